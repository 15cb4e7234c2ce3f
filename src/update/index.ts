/**
 * Follow a sync server yourself: signed metadata, the rollout decision, verified downloads.
 * @module inlay/update
 */
export { bucketOf, decide } from './decide.ts';
export type { Plan, PlanEntry, RolloutPlans } from './plan.ts';
export { createSync, type Release, type Sync, type SyncInfo, type SyncParts } from './sync.ts';
export { createTrustedMetadata, type TrustedMetadata } from '../trust/client.ts';
export type * from '../trust/metadata.ts';
