/** What the guards work with where a programme says nothing else. */

import type { GuardName, GuardOptions, Stage, Strategy } from './programme.ts';

const hourS = 3600;

/** The options of the guards. */
export const DEFAULT_GUARD: GuardOptions = {
  guards: ['errors', 'latency', 'memory', 'load', 'quality', 'silence', 'rejections'],
  required: ['errors', 'latency', 'silence'],
  alpha: 0.05,
  calls: 50,
  marginRatio: 2,
  minRatio: 1.2,
  maxP95Ratio: 1.2,
  maxLoadRatio: 1.5,
  maxMemoryRatio: 1.25,
};

const soak = { soakS: hourS, maxS: 24 * hourS } as const;
const everybody: readonly Stage[] = [{ bp: 10_000, ...soak }];
const half: readonly Stage[] = [{ bp: 5000, ctl: 5000, soakS: 24 * hourS, maxS: 14 * 24 * hourS }];

/** The stages of each strategy. The control has the size that plans give it, nine times the share at first. */
export const DEFAULT_STAGES: Readonly<Record<Strategy, readonly Stage[]>> = {
  canary: [{ bp: 100, ...soak }, { bp: 1000, ...soak }, { bp: 5000, ...soak }, ...everybody],
  rolling: [{ bp: 5000, ctl: 5000, ...soak }],
  'blue-green': everybody,
  pin: everybody,
  shadow: [{ bp: 500, ...soak }],
  ab: half,
  bandit: [500, 1000, 2000, 5000].map((bp) => ({ bp, ...soak })),
};

/** Guards that compare counts of bad devices; the others have rules of their own. */
export const COUNTED_GUARDS: readonly GuardName[] = [
  'errors',
  'latency',
  'memory',
  'load',
  'quality',
  'silence',
];

/** E-value at which a required guard passes. */
export const PASS_AT = 20;
/** Least share of bad devices, where nothing is wrong, at which a ratio to the control can be told with a thousand devices. */
const TELLING_RATE = 0.02;
/** Judged devices of an arm below which nothing counts as proven. */
export const SMALL_FLEET = 200;
/** Guards whose counts leave devices under full consent only. */
export const FULL_CONSENT_GUARDS: readonly GuardName[] = ['quality', 'biz'];

/** Devices of each side below which the central limit theorem is not to be relied on. */
export const ENOUGH_VALUES = 50;
/** Devices at which confidence sequences are tightest. */
export const PLANNED_DEVICES = 5000;
/** Seconds between two reports where a plan does not say. */
export const REPORT_PERIOD_S = 900;
/** A device that makes few calls is judged after this time, by so many. */
export const SLOW_DEVICE_MS: number = 24 * hourS * 1000;
export const SLOW_DEVICE_CALLS = 10;
/** Shadow runs that a verdict needs, and the shares of outputs that may differ and of runs that may fail. */
export const SHADOW_RUNS = 1000;
export const MAX_UNLIKE = 0.02;
export const MAX_SHADOW_FAILED = 0.01;
/** Share of lost reports in one arm above which its devices are no sample of it. */
export const MAX_LOSS = 0.2;

/**
 * Gives the share of bad devices below which a guard is proven, whatever the control has. What happens to fewer than
 * {@link TELLING_RATE} is taken to happen to so many: the margin of 2 on a base of 1 % takes thousands of devices to prove,
 * and a good release would never leave its first stage. It only says what passes; a stage fails at any base rate.
 */
export function harmlessRate({ marginRatio }: GuardOptions): number {
  return Math.min(0.5, marginRatio * TELLING_RATE);
}

/**
 * Tells whether the evidence on a required guard lets its stage pass: enough that it is harmless, and not half of what would
 * end it. A multiple of next to nothing is below every rate, and still no good sign.
 * @param fail - logarithm of the evidence that it is worse. @param failAt - where that ends the stage.
 */
export function isProven(
  { fail, pass }: { readonly fail: number; readonly pass: number },
  failAt: number,
): boolean {
  return pass >= Math.log(PASS_AT) && fail < failAt / 2;
}

/**
 * Gives the chance of a false alarm that each counted guard of a stage may spend: stages get a half, a quarter, an eighth
 * … of `alpha`, so that all of them together stay below it, however many there are; guards share alike (union bound).
 */
export function alphaOf({ alpha, guards }: GuardOptions, stage: number): number {
  const judging = guards.filter((guard) => guard !== 'rejections').length;
  return (alpha * 2 ** -Math.min(stage + 1, 20)) / Math.max(1, judging);
}
