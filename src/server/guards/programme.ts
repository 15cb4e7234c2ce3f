/** What a rollout is to do by itself. The job of the guards carries it out, one signed plan after another. */

import type { Rule } from '../../update/plan.ts';

/**
 * How a release gets to the devices.
 * - `canary`: stages, each judged by the guards before the next. With `durationS`, a stage fills up bucket by bucket.
 * - `blue-green`: all at once at `startAt`, the version before kept on every device for an instant return.
 * - `shadow`: it runs beside the present one and answers nobody; outputs are compared on the device.
 * - `ab`: arms with fixed shares, compared at the end.
 * - `bandit`: arms whose shares of the devices that have not begun yet follow what is learned.
 * - `rolling`: one cohort after the other; each stage adds a rule.
 * - `pin`: everybody, and nothing takes its place until it is unpinned.
 */
export type Strategy = 'canary' | 'blue-green' | 'shadow' | 'ab' | 'bandit' | 'rolling' | 'pin';

/** One stage. */
export interface Stage {
  /** Share of devices, basis points. */
  readonly bp: number;
  /** Share that is measured on the base, basis points. Default: as plans have it. */
  readonly ctl?: number;
  /** Seconds over which the share fills up. Default 0. */
  readonly durationS?: number;
  /** Shortest time until it may pass, seconds. */
  readonly soakS: number;
  /** Longest time until it is held as inconclusive, seconds. */
  readonly maxS: number;
  /** Cohort that this stage adds, for `rolling`. */
  readonly rules?: readonly Rule[];
}

/** What is watched. `errors` … `biz` are verdicts on devices, judged by e-processes; the rest are tripwires. */
export type GuardName =
  | 'errors'
  | 'latency'
  | 'memory'
  | 'load'
  | 'quality'
  | 'silence'
  | 'biz'
  | 'rejections';

/** What the guards work with. Every field has a default; see `guards/defaults.ts`. */
export interface GuardOptions {
  /** Guards that may fail a stage, and those that have to pass for the next one. */
  readonly guards: readonly GuardName[];
  readonly required: readonly GuardName[];
  /** Chance of ever halting a rollout that is as good as the version before, over all guards. Default 0.05. */
  readonly alpha: number;
  /** Calls after which a device is judged. Default 50. */
  readonly calls: number;
  /** A rate this many times that of the control is bad enough to want to know. Default 2. */
  readonly marginRatio: number;
  /** Observed ratio below which nothing is halted. Default 1.2. */
  readonly minRatio: number;
  /** How much longer calls and opens may take and how much more memory there may be than before, as multiples. */
  readonly maxP95Ratio: number;
  readonly maxLoadRatio: number;
  readonly maxMemoryRatio: number;
  /** Business event whose mean must not fall, and by how much it may, as a share. */
  readonly biz?: { readonly name: string; readonly margin: number };
}

/** What is done where the evidence does not say. */
export type Inconclusive = 'hold' | 'promote' | 'rollback';

/** A whole programme. */
export interface Programme {
  readonly v: 1;
  readonly strategy: Strategy;
  readonly stages: readonly Stage[];
  /** When the first stage begins, milliseconds since 1970. Default: at once. */
  readonly startAt?: number;
  readonly guard: GuardOptions;
  /** What a stage does at its longest time without a verdict. Default `hold`. */
  readonly inconclusive: Inconclusive;
  /** Passes by time and clean tripwires alone, for fleets that are too small for statistics. Default false. */
  readonly soakOnly: boolean;
  /** What a failed guard does. Default `rollback`. */
  readonly onFail: 'rollback' | 'halt' | 'hold';
  /** Arms, for `ab` and `bandit`: weights in basis points of the share. The candidate is the arm `t`. */
  readonly arms?: readonly { readonly name: string; readonly version: string; readonly weightBp: number }[];
}

/** Where a programme stands. */
export type ProgrammeStatus = 'running' | 'held' | 'failed' | 'ended';
