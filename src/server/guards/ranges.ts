/** What the numbers of a programme may be. Whoever reads one, in the API or from anywhere else, goes by these. */

import type { GuardOptions } from './programme.ts';

/** Lowest and highest value, both allowed. */
export type Range = readonly [lowest: number, highest: number];

const yearS = 31_536_000;
/** The last second that metadata can write. */
const latestMs = Date.UTC(9999, 11, 31, 23, 59, 59);

/** Of the options of the guards. */
export const GUARD_RANGES: Readonly<
  Record<Exclude<keyof GuardOptions, 'guards' | 'required' | 'biz'>, Range>
> = {
  alpha: [1e-6, 0.5],
  calls: [10, 100_000],
  marginRatio: [1.1, 10],
  minRatio: [1, 10],
  maxP95Ratio: [1.01, 100],
  maxLoadRatio: [1.01, 100],
  maxMemoryRatio: [1.01, 100],
};

/** Of the margin of a business event. */
export const MARGIN_RANGE: Range = [0, 0.99];
/** Of the share of a stage, of a control or an arm, and of the times of a stage. */
export const SHARE_RANGE: Range = [1, 10_000];
export const WEIGHT_RANGE: Range = [0, 10_000];
export const SECONDS_RANGE: Range = [0, yearS];
export const MOST_SECONDS_RANGE: Range = [1, yearS];
/** Of the time at which a programme begins, milliseconds since 1970. */
export const START_RANGE: Range = [0, latestMs];

export const MOST_STAGES = 50;
export const MOST_RULES = 32;
/** Form of versions. */
export const VERSION_FORM: RegExp = /^[!-~]{1,64}$/;
