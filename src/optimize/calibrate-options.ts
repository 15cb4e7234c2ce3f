/** How calibration goes about it. */

import type { ValueTypes } from './technique.ts';

/**
 * How a range follows from what was seen: all of it, most of it, or as much as keeps the distribution of the quantized
 * values closest to the true one.
 */
export type CalibrationMethod = 'minmax' | 'percentile' | 'entropy';

/** The methods, for checks. */
export const METHODS: readonly CalibrationMethod[] = ['minmax', 'percentile', 'entropy'];

/** Progress of `calibrate`. */
export interface CalibrationProgress {
  /** Samples so far. */
  readonly samples: number;
  /** Most samples that are read. */
  readonly max: number;
}

/** Options of `calibrate`. */
export interface CalibrateOptions {
  /** Default `percentile`. */
  readonly method?: CalibrationMethod;
  /** Share of the elements that `percentile` keeps, in percent. Default 99.999. */
  readonly percentile?: number;
  /**
   * Takes one limit for both signs. `percentile` then counts magnitudes and stays within what was seen; the other
   * methods widen their ranges. Default: true for `percentile`, false for the others.
   */
  readonly isSymmetric?: boolean;
  /** Bins of each histogram at first, an even number. Default 2048. `minmax` has none. */
  readonly bins?: number;
  /** Most samples that are run. Default 128. */
  readonly max?: number;
  /** Types of the model's values, as `inferTypes` gives them. Default: it is asked. */
  readonly types?: ValueTypes;
  /** Aborts between two samples. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: CalibrationProgress) => void;
}

/** {@link CalibrateOptions} that decide what comes out, complete. */
export interface CalibrationSettings {
  readonly method: CalibrationMethod;
  readonly percentile: number;
  readonly isSymmetric: boolean;
  readonly bins: number;
  readonly max: number;
}

/**
 * Fills options up.
 * @throws `RangeError` for one that makes no sense.
 */
export function completeSettings({
  method = 'percentile',
  percentile = 99.999,
  isSymmetric = method === 'percentile',
  bins = 2048,
  max = 128,
}: CalibrateOptions): CalibrationSettings {
  if (!METHODS.includes(method)) {
    throw new RangeError(`There is no calibration method "${method}"; take one of ${METHODS.join(', ')}.`);
  }
  if (!(percentile > 50 && percentile <= 100)) {
    throw new RangeError(`The percentile is above 50 and at most 100, got ${percentile}.`);
  }
  if (!Number.isSafeInteger(bins) || bins < 128 || bins % 2 !== 0) {
    throw new RangeError(`A histogram has an even number of bins, at least 128, got ${bins}.`);
  }
  if (!Number.isSafeInteger(max) || max < 1) {
    throw new RangeError(`The most samples are a whole number of at least 1, got ${max}.`);
  }
  return { method, percentile, isSymmetric, bins, max };
}
