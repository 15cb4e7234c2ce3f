/** How sure a model was against how often it was right, in bins of confidence. */

import { CALIBRATION_BINS } from './profile.ts';

/** Bins of equal width over [0, 1]: number, right ones, sum of confidence. */
export type Calibration = [n: number, ok: number, confidence: number][];

/** Bins without anything in them. */
export function openCalibration(): Calibration {
  return Array.from({ length: CALIBRATION_BINS }, () => [0, 0, 0]);
}

/** Counts an answer. What is outside [0, 1] counts as the nearer end. */
export function calibrate(bins: Calibration, confidence: number, isRight: boolean): void {
  const sure = Math.min(Math.max(confidence, 0), 1);
  const bin = bins[Math.min(Math.floor(sure * bins.length), bins.length - 1)];
  if (bin === undefined) return;
  bin[0] += 1;
  bin[1] += isRight ? 1 : 0;
  bin[2] += sure;
}
