/**
 * The rollout plan: which version each bucket of devices runs. It travels in the `custom` field of the target
 * `rollout/<channel>.json` that the online `rollout` role signs; it can only name files that the offline `targets`
 * role lists.
 */

/** A release that a plan names. It counts only if path, hash and length equal the entry in `targets`. */
export interface PlanEntry {
  /** Target path, `models/<model>/<seq>/<file>`. */
  readonly path: string;
  /** Lower-case hex. */
  readonly sha256: string;
  /** Bytes. */
  readonly length: number;
  readonly seq: number;
  readonly version: string;
}

/** One rollout of one model in one channel. */
export interface Plan {
  /** Identifier of this rollout; a new candidate starts a new one. */
  readonly id: string;
  readonly model: string;
  readonly state: 'ramp' | 'complete';
  /** 16 hex digits, random per rollout; never changes within one. */
  readonly salt: string;
  /** Share of devices that run `cand`, basis points in [0, 10000]. Only rises within one rollout. */
  readonly bp: number;
  /** What the other devices run; `null` before the first release. */
  readonly base: PlanEntry | null;
  readonly cand: PlanEntry;
}

/** Content of a rollout target's `custom`. */
export interface RolloutPlans {
  readonly v: 1;
  /** At most one plan per model. */
  readonly plans: readonly Plan[];
}
