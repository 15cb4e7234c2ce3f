/**
 * Follow a sync server yourself: signed metadata, the rollout decision, verified downloads.
 * @module inlay/update
 */
export {
  armLabel,
  bucketOf,
  decide,
  unitHash,
  type Arm,
  type Decision,
  type Reason,
  type Refuge,
  type ShadowRun,
  type SlotsView,
} from './decide.ts';
export {
  readPlan,
  type Install,
  type Plan,
  type PlanArm,
  type PlanEntry,
  type RolloutPlans,
  type SignedPlan,
} from './plan.ts';
export { policyOf, resolvePlan, type ResolvedPlan } from './resolve.ts';
export type { Rejected, RejectReason, SeenPlan, Slot, SlotName, SlotsState, Trial } from './slot.ts';
export { createSync, type Sync, type SyncInfo, type SyncParts } from './sync.ts';
export { createTrustedMetadata, type TrustedMetadata } from '../trust/client.ts';
export type * from '../trust/metadata.ts';
