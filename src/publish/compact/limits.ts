/**
 * Where gates draw the line. The numbers are this library's own, for publishers who set none; what was measured stands
 * beside them: language models of 5 million weights and convolutional ones of 3 million, float32, rounded to the nearest
 * with steps of f times the root mean square of an update up to 1/2, at random from 1 on.
 */

import type { CompactMode } from './compact.ts';
import type { AnswerLimits } from './gate.ts';

/**
 * What a rounded model has to reach.
 *
 * - `minAgreement` protects single decisions. Measured: 99.3 to 99.9 % of them stay up to f = 1/4, as with quantizing to 8
 *   bits; 98.2 % at 1/2, 91.7 % at 2. `small` is for those who bear that, and tells the share only.
 * - `maxDivergence` protects how sure a model is, nats. Measured: 3e-4 at f = 1/2, 7e-3 at 2, 2e-2 at 4.
 * - `minSqnrDb` protects outputs that are no classes, which no divergence describes: 40 dB is an error of 1 %, 25 dB of
 *   5.6 %. Nothing was measured that says what an application bears.
 * - `maxLoss` protects what the fine-tune was for, as a share of its gain. Measured: 0 up to f = 1/2, 0.2 % at 2, 0.8 to
 *   1.1 % at 4.
 */
export const compactLimits: Readonly<Record<CompactMode, AnswerLimits & { readonly maxLoss: number }>> = {
  near: { minAgreement: 0.99, maxDivergence: 1e-3, minSqnrDb: 40, maxLoss: 0.005 },
  small: { maxDivergence: 1e-2, minSqnrDb: 25, maxLoss: 0.01 },
};

/**
 * Least share of equal elements of models that give nothing but labels, where no agreement is asked for: nothing else
 * would judge them.
 */
export const leastSameLabels = 0.99;

/**
 * Rows have to tell at least so many times the divergence that is allowed to count as classes. Protects from taking
 * vectors of unit length for distributions: those are nearly even, and any two of them diverge by less than any limit.
 */
export const leastContent = 10;

/**
 * Least signal-to-noise ratio of classes, dB, unless less is asked for of other outputs. Protects outputs that look like
 * classes and are none, such as places in pixels: exponentials hide all but the largest of a row.
 */
export const leastClassSqnrDb = 10;

/**
 * Largest share of the lossless patch that a rounded one may take. Protects from giving up quality for nothing: updates of
 * a few units in the last place, as those of 16-bit floats are, hardly shrink by being rounded to the nearest.
 */
export const mostOfLossless = 0.9;
