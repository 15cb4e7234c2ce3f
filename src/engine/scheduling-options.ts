import type { PaddingOptions } from '../schedule/padding.ts';
import type { BatchingOptions } from '../schedule/queue-options.ts';

/** How the calls of one model are planned. */
export interface SchedulingOptions extends BatchingOptions {
  /**
   * Fills inputs of varying length up to common sizes, so that calls of nearby lengths share batches. Only for models
   * that a mask tells what is padding; each size is proven on a real call first. Default: none.
   */
  readonly padding?: PaddingOptions | undefined;
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
