/** Which plan counts for a model, and what the offline key says about the releases that it names. */

import { TrustError, isInlayError } from '../core/errors.ts';
import type { TrustedMetadata } from '../trust/client.ts';
import type { ModelPolicy, TargetFile, Targets } from '../trust/metadata.ts';
import { isFields, isSize } from '../trust/parse.ts';
import { readPlan, type Plan, type PlanEntry } from './plan.ts';
import { isVersion } from './rules.ts';

/** A plan whose releases are signed offline, and what else the offline key says about them. */
export interface ResolvedPlan extends Plan {
  /** Releases of this model that must not run. */
  readonly policy: Required<ModelPolicy>;
  /** Lowest versions of Inlay that run the releases, where they name one. */
  readonly minSdk: {
    readonly cand?: string;
    readonly base?: string;
    /** By the name of the arm. */
    readonly arms?: Readonly<Record<string, string>>;
  };
  /** Whether the metadata holds now; expired metadata begins nothing new. */
  readonly isCurrent: boolean;
}

/**
 * Looks up the plan of a model in a channel. What the online role says is believed only where the offline-signed
 * `targets` says the same: every release that a device may run must be listed there with the same path, SHA-256,
 * length, model, sequence number and version, and must not be withdrawn. A base that is withdrawn becomes `null`; an arm
 * that is withdrawn stays, and its devices run the base, so that the others do not suffer for it. The candidate of a rollout that was taken back may be withdrawn, and may be gone from `targets`: no device runs it.
 * @param now milliseconds since 1970, for `isCurrent`; default: the time of the trusted set.
 * @returns `undefined` when the channel has no plan for the model.
 * @throws {@link TrustError} `ERR_INLAY_PLAN_INVALID`; `ERR_INLAY_WITHDRAWN` when the candidate must not run.
 */
export function resolvePlan(
  trusted: Pick<TrustedMetadata, 'targets' | 'rollout'> & Partial<Pick<TrustedMetadata, 'assertCurrent'>>,
  channel: string,
  model: string,
  now?: number,
): ResolvedPlan | undefined {
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
  const plan = readPlan(named[0]);
  if (plan === undefined) throw invalid(model, `the plan in channel ${channel} is malformed`);
  const policy = policyOf(targets, model);
  const { cand, state } = plan;
  const isOver = state === 'rolledback';
  if (!isOver && isWithdrawn(policy, cand)) throw withdrawn(model, cand);
  const base = plan.base && !isWithdrawn(policy, plan.base) ? plan.base : null;
  // Once complete, only devices on which the candidate does not work run the base, and it may be gone from `targets`.
  const hasBase = base !== null && (state !== 'complete' || targetOf(targets, base) !== undefined);
  const candSdk = isOver && !targetOf(targets, cand) ? undefined : minSdkOf(targets, model, cand);
  const baseSdk = hasBase ? minSdkOf(targets, model, base) : undefined;
  const armSdks = plan.arms.flatMap(({ name, entry }) => {
    const mayBeGone = isOver || isWithdrawn(policy, entry);
    const sdk = mayBeGone && !targetOf(targets, entry) ? undefined : minSdkOf(targets, model, entry);
    return sdk === undefined ? [] : [[name, sdk] as const];
  });
  return {
    ...plan,
    base: hasBase ? base : null,
    policy,
    minSdk: {
      ...(candSdk !== undefined && { cand: candSdk }),
      ...(baseSdk !== undefined && { base: baseSdk }),
      ...(armSdks.length > 0 && { arms: Object.fromEntries(armSdks) }),
    },
    isCurrent: isCurrent(trusted, now),
  };
}

/**
 * Reads which releases of a model are withdrawn. It holds also where no plan counts.
 * @throws {@link TrustError} `ERR_INLAY_METADATA_INVALID`: nobody can tell what a malformed one forbids.
 */
export function policyOf({ custom }: Pick<Targets, 'custom'>, model: string): Required<ModelPolicy> {
  const all: unknown = custom === undefined ? {} : custom;
  const models = isFields(all) && (all['models'] === undefined ? {} : all['models']);
  const own = isFields(models) && (Object.hasOwn(models, model) ? models[model] : {});
  if (isFields(own)) {
    const { floorSeq = 0, revoked = [] } = own;
    if (isSize(floorSeq) && Array.isArray(revoked) && revoked.every((seq) => isSize(seq)))
      return { floorSeq, revoked };
  }
  throw new TrustError(
    'ERR_INLAY_METADATA_INVALID',
    `What targets says about withdrawn releases of model ${quote(model)} is malformed; sign it anew.`,
    { details: { model } },
  );
}

/** Tells whether a release must not run any more: it is below the floor, or revoked. */
export function isWithdrawn(
  { floorSeq = 0, revoked = [] }: ModelPolicy,
  { seq }: Pick<PlanEntry, 'seq'>,
): boolean {
  return seq < floorSeq || revoked.includes(seq);
}

/** What is withdrawn by either of two policies. */
export function joinPolicies(a: ModelPolicy, b: ModelPolicy): ModelPolicy {
  return {
    floorSeq: Math.max(a.floorSeq ?? 0, b.floorSeq ?? 0),
    revoked: [...new Set([...(a.revoked ?? []), ...(b.revoked ?? [])])].sort((x, y) => x - y),
  };
}

function isCurrent(
  { assertCurrent }: Partial<Pick<TrustedMetadata, 'assertCurrent'>>,
  now?: number,
): boolean {
  try {
    assertCurrent?.(now);
    return true;
  } catch (error) {
    if (isInlayError(error)) return false;
    throw error;
  }
}

function targetOf({ targets }: Targets, { path }: PlanEntry): TargetFile | undefined {
  return Object.hasOwn(targets, path) ? targets[path] : undefined;
}

/** Checks a release against the signed targets, and gives the lowest version of Inlay that runs it. */
function minSdkOf(targets: Targets, model: string, entry: PlanEntry): string | undefined {
  const listed = targetOf(targets, entry);
  if (!listed) throw invalid(model, `${quote(entry.path)} is not in the signed targets`);
  const { custom = {}, hashes, length } = listed;
  const agrees =
    hashes['sha256']?.toLowerCase() === entry.sha256 &&
    length === entry.length &&
    custom['role'] === undefined &&
    custom['model'] === model &&
    custom['seq'] === entry.seq &&
    custom['version'] === entry.version &&
    entry.path.startsWith(`models/${model}/${entry.seq}/`);
  if (!agrees) throw invalid(model, `what it says of ${quote(entry.path)} differs from the signed targets`);
  const { minSdk } = custom;
  if (minSdk === undefined) return undefined;
  if (typeof minSdk === 'string' && isVersion(minSdk)) return minSdk;
  throw invalid(model, `the lowest version of Inlay for ${quote(entry.path)} is no version`);
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 120));
}

function withdrawn(model: string, { version, seq }: PlanEntry): TrustError {
  return new TrustError(
    'ERR_INLAY_WITHDRAWN',
    `The rollout plan of model ${quote(model)} does not count: its release ${quote(version)} is withdrawn; roll another one out.`,
    { details: { model, version, seq } },
  );
}

function invalid(model: string, problem: string): TrustError {
  return new TrustError(
    'ERR_INLAY_PLAN_INVALID',
    `The rollout plan of model ${quote(model)} does not count: ${problem}; publish the release, then plan it again.`,
    { details: { model } },
  );
}
