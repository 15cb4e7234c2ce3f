import type { Tolerance } from '../core/compare.ts';
import type { PaddingOptions } from '../schedule/padding.ts';

/** How the calls of one model are planned. */
export interface SchedulingOptions {
  /** Most samples of a batch; 1 turns batching off. Default 128. */
  readonly maxBatch?: number | undefined;
  /**
   * How far the result of a call that shared a batch may lie from its result alone. Default: what rounding explains,
   * 1e-3 relative and 1e-4 of the largest value.
   */
  readonly tolerance?: Tolerance | undefined;
  /** Share of the machine in comparison with other models, when all have work. Default 1, above 0. */
  readonly weight?: number | undefined;
  /**
   * Longest wait, in milliseconds, for callers that have just been answered, so that they share the next batch. Default
   * `auto`: 1, where it has paid lately. 0: never.
   */
  readonly linger?: 'auto' | number | undefined;
  /** Most calls that wait; more are refused with `ERR_INLAY_OVERLOADED`. Default 32,768. */
  readonly maxWaiting?: number | undefined;
  /** Most bytes of feeds that wait. Default 1 GiB. */
  readonly maxWaitingBytes?: number | undefined;
  /**
   * Fills inputs of varying length up to common sizes, so that calls of nearby lengths share batches. Only for models
   * that a mask tells what is padding; each size is proven on a real call first. Default: none.
   */
  readonly padding?: PaddingOptions | undefined;
  /** Makes calls again, once, whose worker died under them. Default true: a model computes, it does not act. */
  readonly replay?: boolean | undefined;
}

type Rule = readonly [fits: (value: number) => boolean, words: string];

const COUNT: Rule = [(value) => Number.isSafeInteger(value) && value >= 1, 'a whole number of at least 1'];
const RULES: Readonly<Record<string, Rule>> = {
  maxBatch: COUNT,
  maxWaiting: COUNT,
  maxWaitingBytes: COUNT,
  weight: [(value) => value > 0 && value < Infinity, 'a number above 0'],
};

/**
 * Checks options that came from a host.
 * @throws `RangeError` with the option's name.
 */
export function assertScheduling(options: SchedulingOptions): void {
  for (const [name, [fits, words]] of Object.entries(RULES)) {
    const value: unknown = options[name as keyof SchedulingOptions];
    if (value === undefined || (typeof value === 'number' && fits(value))) continue;
    throw new RangeError(`${name} is ${words}, got ${JSON.stringify(value)}.`);
  }
  const { linger = 'auto', tolerance } = options;
  if (linger !== 'auto' && !(linger >= 0 && linger <= 1000)) {
    throw new RangeError(
      `linger is 'auto' or a number of milliseconds from 0 to 1000, got ${String(linger)}.`,
    );
  }
  if (tolerance !== undefined && !(tolerance.absolute >= 0 && tolerance.relative >= 0)) {
    throw new RangeError('tolerance has an absolute and a relative part, each a number of at least 0.');
  }
}
