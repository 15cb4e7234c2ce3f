/** A calibration in a file of its own. */

import { createHash } from 'node:crypto';
import * as nodeFs from 'node:fs/promises';
import { InputError } from '../core/errors.ts';
import type { ModelProto } from '../onnx/messages.ts';
import { encodePieces } from '../onnx/pieces.ts';
import type { CalibrateOptions } from '../optimize/calibrate-options.ts';
import {
  calibrationKey,
  fromCalibrationFile,
  isCalibrationOf,
  toCalibrationFile,
} from '../optimize/calibrate-file.ts';
import type { CalibrationStore } from '../optimize/options.ts';
import { replaceFile } from './staged-file.ts';

/** Options of {@link createCalibrationStore}. */
export interface CalibrationStoreOptions {
  /** Names the data, such as by its hash: ranges of other data are not taken. */
  readonly data: string;
  /** Hears whether what the file holds is taken, or why it will be replaced. */
  readonly onNote?: (note: string) => void;
}

/**
 * Keeps one calibration in a JSON file: that of the last model, data and settings. Another one takes its place.
 *
 * `load` throws {@link InputError} `ERR_INLAY_FEED_VALUE` for a file that is no calibration, which is left as it is.
 */
export function createCalibrationStore(
  path: string,
  { data, onNote = () => {} }: CalibrationStoreOptions,
): CalibrationStore {
  const keyOf = (model: ModelProto, settings: CalibrateOptions): string => {
    const hash = createHash('sha256');
    for (const piece of encodePieces(model)) hash.update(piece);
    return `${calibrationKey(hash.digest('hex'), settings)}, data ${data}`;
  };
  return {
    load: async (model, settings) => {
      const text = await nodeFs.readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined;
        throw error;
      });
      if (text === undefined) return undefined;
      const json = parse(text, path);
      const stored = fromCalibrationFile(json);
      if (isCalibrationOf(json, keyOf(model, settings))) {
        onNote(`Ranges are those of ${path}.`);
        return stored;
      }
      onNote(`${path} is of another model, of other data or of other settings; it is made anew.`);
      return undefined;
    },
    save: async (calibration, model, settings) => {
      const text = `${JSON.stringify(toCalibrationFile(calibration, keyOf(model, settings)))}\n`;
      await replaceFile(nodeFs, path, [new TextEncoder().encode(text)]);
    },
  };
}

function parse(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new InputError(
      'ERR_INLAY_FEED_VALUE',
      `${path} is no calibration, and would be lost; give another file for it.`,
      { cause },
    );
  }
}
