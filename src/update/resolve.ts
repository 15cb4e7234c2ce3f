import { TrustError } from '../core/errors.ts';
import type { TrustedMetadata } from '../trust/client.ts';
import type { TargetFile, Targets } from '../trust/metadata.ts';
import { isFields, isSize } from '../trust/parse.ts';
import { buckets } from './decide.ts';
import type { Plan, PlanEntry } from './plan.ts';

/**
 * Looks up the plan of a model in a channel. What the online role says is believed only where the offline-signed
 * `targets` says the same: every release that a device may run must be listed there with the same path, SHA-256,
 * length, model, sequence number and version.
 * @returns `undefined` when the channel has no plan for the model.
 * @throws {@link TrustError} `ERR_INLAY_PLAN_INVALID`
 */
export function resolvePlan(
  trusted: Pick<TrustedMetadata, 'targets' | 'rollout'>,
  channel: string,
  model: string,
): Plan | undefined {
  const { targets, rollout } = trusted;
  const path = `rollout/${channel}.json`;
  const target = rollout && Object.hasOwn(rollout.targets, path) ? rollout.targets[path] : undefined;
  if (!targets || !target) return undefined;
  const { v, plans } = target.custom ?? {};
  if (v !== 1 || !Array.isArray(plans))
    throw invalid(model, `the plans of channel ${channel} have an unknown form`);
  const named = plans.filter((plan: unknown) => isFields(plan) && plan['model'] === model);
  if (named.length > 1) throw invalid(model, `channel ${channel} has two plans for it`);
  if (named.length === 0) return undefined;
  const plan: unknown = named[0];
  if (!isPlan(plan)) throw invalid(model, `the plan in channel ${channel} is malformed`);
  const { base, cand, state } = plan;
  assertListed(targets, model, cand);
  // Once complete, only devices on which the candidate does not work run the base, and it may be gone from `targets`.
  if (base && state === 'complete' && !targetOf(targets, base)) return { ...plan, base: null };
  if (base) assertListed(targets, model, base);
  return plan;
}

function targetOf({ targets }: Targets, { path }: PlanEntry): TargetFile | undefined {
  return Object.hasOwn(targets, path) ? targets[path] : undefined;
}

function assertListed(targets: Targets, model: string, entry: PlanEntry): void {
  const listed = targetOf(targets, entry);
  if (!listed) throw invalid(model, `${quote(entry.path)} is not in the signed targets`);
  const { custom = {}, hashes, length } = listed;
  const agrees =
    hashes['sha256']?.toLowerCase() === entry.sha256 &&
    length === entry.length &&
    custom['model'] === model &&
    custom['seq'] === entry.seq &&
    custom['version'] === entry.version &&
    entry.path.startsWith(`models/${model}/${entry.seq}/`);
  if (!agrees) throw invalid(model, `what it says of ${quote(entry.path)} differs from the signed targets`);
}

function isPlan(value: unknown): value is Plan {
  return (
    isFields(value) &&
    typeof value['id'] === 'string' &&
    typeof value['salt'] === 'string' &&
    /^[0-9a-f]{16}$/.test(value['salt']) &&
    isSize(value['bp']) &&
    value['bp'] <= buckets &&
    value['state'] === (value['bp'] === buckets ? 'complete' : 'ramp') &&
    (value['base'] === null || isEntry(value['base'])) &&
    isEntry(value['cand'])
  );
}

/** Tells whether a value has the form of a release in a plan. */
export function isEntry(value: unknown): value is PlanEntry {
  return (
    isFields(value) &&
    typeof value['path'] === 'string' &&
    typeof value['sha256'] === 'string' &&
    /^[0-9a-f]{64}$/.test(value['sha256']) &&
    isSize(value['length']) &&
    isSize(value['seq']) &&
    typeof value['version'] === 'string'
  );
}

function quote(path: string): string {
  return JSON.stringify(path.slice(0, 120));
}

function invalid(model: string, problem: string): TrustError {
  return new TrustError(
    'ERR_INLAY_PLAN_INVALID',
    `The rollout plan of model ${quote(model)} does not count: ${problem}; publish the release, then plan it again.`,
    { details: { model } },
  );
}
