/** Ranges from data of the user, or those that were found on it before. */

import type { ModelProto } from '../onnx/messages.ts';
import { calibrate, type Calibration } from './calibrate.ts';
import type { CalibrateOptions } from './calibrate-options.ts';
import type { CalibrationData } from './options.ts';
import type { OptimizeRuntime } from './runtime.ts';

/**
 * Calibrates a model, unless the store has what that would give.
 * @throws what {@link calibrate} and the store throw.
 */
export async function calibrateOn(
  { data, method, max, store }: CalibrationData,
  model: ModelProto,
  runtime: OptimizeRuntime,
  options: Pick<CalibrateOptions, 'types' | 'signal' | 'onProgress'>,
): Promise<Calibration> {
  const settings = { ...(method !== undefined && { method }), ...(max !== undefined && { max }) };
  const known = await store?.load(model, settings);
  if (known !== undefined) return known;
  const found = await calibrate(model, runtime, data, { ...settings, ...options });
  await store?.save(found, model, settings);
  return found;
}
