/** `--calibration`: ranges in a file, so that the next command need not calibrate. */

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { resolve } from 'node:path';
import { Option } from 'commander';
import type { CalibrationData } from '../optimize/options.ts';
import { createCalibrationStore } from '../optimize-node/calibration-store.ts';
import type { Mapping } from './data/columns.ts';
import { parseJsonPath } from './optimize-flags.ts';
import type { Terminal } from './terminal.ts';

/** Flags of commands that calibrate. */
export interface CalibrationFlags {
  readonly calib?: string;
  readonly calibration?: string;
  readonly map: readonly Mapping[];
}

/** Makes `--calibration`. */
export function calibrationOption(): Option {
  return new Option(
    '--calibration <file>',
    'keep the ranges in this .json: taken if model, data and settings are the same, else written',
  ).argParser(parseJsonPath);
}

/**
 * Opens the file of `--calibration`, if there is one.
 * @throws `RangeError` without `--calib`; what the system throws if that file cannot be read.
 */
export async function openCalibration(
  { calib, calibration, map }: CalibrationFlags,
  { cwd, printError }: Terminal,
): Promise<Pick<CalibrationData, 'store'>> {
  if (calibration === undefined) return {};
  if (calib === undefined) throw new RangeError('--calibration keeps the ranges of --calib; give both.');
  const hash = createHash('sha256').update(JSON.stringify(map));
  for await (const chunk of createReadStream(resolve(cwd, calib))) hash.update(chunk as Uint8Array);
  return {
    store: createCalibrationStore(resolve(cwd, calibration), {
      data: hash.digest('hex'),
      onNote: (note) => {
        printError(`note: ${note}`);
      },
    }),
  };
}
