/** Calibrations as JSON, so that a model need not be calibrated twice on the same data. */

import { InputError } from '../core/errors.ts';
import type { Calibration } from './calibrate.ts';
import { completeSettings, METHODS, type CalibrateOptions } from './calibrate-options.ts';
import type { Range } from './technique.ts';

/** A calibration as it is stored. */
export interface CalibrationFile extends Omit<Calibration, 'ranges'> {
  readonly format: typeof FORMAT;
  /** What it was made of, see {@link calibrationKey}. */
  readonly key: string;
  /** Smallest and largest element by name. */
  readonly ranges: Readonly<Record<string, readonly [min: number, max: number]>>;
}

const FORMAT = 'inlay-calibration-1';

/**
 * Names what a calibration is made of: the model, the method with its settings, and how many samples at most. The data
 * is not part of it.
 * @param modelSha256 - of the model file, as hex.
 */
export function calibrationKey(modelSha256: string, options: CalibrateOptions = {}): string {
  const { method, percentile, isSymmetric, bins, max } = completeSettings(options);
  const settings = [
    method,
    ...(method === 'percentile' ? [`${percentile}%`] : []),
    ...(method === 'minmax' ? [] : [`${bins} bins`]),
    isSymmetric ? 'symmetric' : 'asymmetric',
    `${max} samples`,
  ];
  return [modelSha256, ...settings].join(', ');
}

/** Turns a calibration into what `JSON.stringify` takes. */
export function toCalibrationFile({ ranges, ...rest }: Calibration, key: string): CalibrationFile {
  const pairs = Array.from(ranges, ([name, { min, max }]) => [name, [min, max]] as const);
  return { format: FORMAT, key, ...rest, ranges: Object.fromEntries(pairs) };
}

/** Whether stored JSON is of what {@link calibrationKey} names. */
export function isCalibrationOf(json: unknown, key: string): boolean {
  return isRecord(json) && json['key'] === key;
}

/**
 * Reads a calibration back.
 * @param json - what `JSON.parse` gave.
 * @param key - what it has to be made of; not checked if absent.
 * @throws {@link InputError} `ERR_INLAY_FEED_VALUE` if it is none, or one of something else.
 */
export function fromCalibrationFile(json: unknown, key?: string): Calibration {
  if (!isRecord(json) || json['format'] !== FORMAT) throw invalid(`has not the format "${FORMAT}"`);
  const { key: found, method, samples, ignored, warnings, ranges } = json;
  if (typeof found !== 'string') throw invalid('has no key');
  if (key !== undefined && !isCalibrationOf(json, key))
    throw invalid('is of another model or of other settings');
  const known = METHODS.find((one) => one === method);
  if (known === undefined) throw invalid('names no method that there is');
  if (!isCount(samples) || samples === 0 || !isCount(ignored)) throw invalid('counts no samples');
  if (!Array.isArray(warnings) || !warnings.every((one) => typeof one === 'string')) {
    throw invalid('has warnings that are no texts');
  }
  if (!isRecord(ranges)) throw invalid('has no ranges');
  const read = Object.entries(ranges).map(([name, pair]): [string, Range] => {
    const [min, max]: readonly unknown[] = Array.isArray(pair) && pair.length === 2 ? pair : [];
    if (
      typeof min !== 'number' ||
      typeof max !== 'number' ||
      !Number.isFinite(min) ||
      !Number.isFinite(max) ||
      min > max
    ) {
      throw invalid(`has no range for "${name}"`);
    }
    return [name, { min, max }];
  });
  return { ranges: new Map(read), method: known, samples, ignored, warnings };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function invalid(what: string): InputError {
  return new InputError('ERR_INLAY_FEED_VALUE', `The stored calibration ${what}; calibrate the model again.`);
}
