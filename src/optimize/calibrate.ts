/** Ranges that the values of a model take on data of the user. */

import { assertNotAborted } from '../core/abort.ts';
import type { TensorMap } from '../core/backend.ts';
import { InputError } from '../core/errors.ts';
import { createFeedBinder } from '../engine/feeds.ts';
import type { ModelProto } from '../onnx/messages.ts';
import { encodeModel } from '../onnx/model.ts';
import { createCollector } from './calibrate-collect.ts';
import { completeSettings, type CalibrateOptions, type CalibrationMethod } from './calibrate-options.ts';
import { activationsOf } from './qdq-rules.ts';
import type { NamedValueType, OptimizeRuntime } from './runtime.ts';
import type { Ranges } from './technique.ts';
import { inferTypes } from './types.ts';

/** What calibration found. */
export interface Calibration {
  readonly ranges: Ranges;
  readonly method: CalibrationMethod;
  /** Samples that were run: rows, where the first axis of the first input has no fixed length. */
  readonly samples: number;
  /** How many times a value was left out, since it held NaN or infinity. */
  readonly ignored: number;
  /** What the publisher should know, one sentence each. */
  readonly warnings: readonly string[];
}

/** Samples below which ranges are a matter of luck. */
const FEW = 16;

/**
 * Runs a model on samples and finds the range of each float32 value that static quantization may ask for.
 *
 * The model runs as it is written (level `disabled`), since optimised graphs lack values. `minmax` reduces values inside
 * the graph, which costs little more than the run; the other methods read every value and keep histograms.
 * @param samples - feeds of one run each; they are read one after another, and no further than `max`.
 * @throws {@link InputError} `ERR_INLAY_FEED_MISSING` if there are no samples; any of its codes for a sample that does
 * not fit the model; {@link ModelError} if the runtime does not take the model; `RangeError` for a wrong option; the
 * signal's reason.
 */
export async function calibrate(
  model: ModelProto,
  runtime: OptimizeRuntime,
  samples: AsyncIterable<TensorMap> | Iterable<TensorMap>,
  options: CalibrateOptions = {},
): Promise<Calibration> {
  const settings = completeSettings(options);
  const { signal, onProgress } = options;
  assertNotAborted(signal);
  const types = options.types ?? (await inferTypes(model, runtime));
  const values = activationsOf(model).filter((name) => types.get(name)?.dtype === 'float32');
  const collector = createCollector(model, values, settings);
  const session = await runtime.open(encodeModel(collector.model), { level: 'disabled' });
  let seen = 0;
  try {
    const bind = createFeedBinder(session);
    for await (const sample of samples) {
      assertNotAborted(signal);
      const feeds = bind(sample);
      // There may be nothing to look at, but samples that do not fit are told all the same.
      const hasOutputs = collector.outputs.length > 0;
      collector.take(feeds, hasOutputs ? await session.run(feeds, collector.outputs) : {});
      seen += rowsOf(feeds, session.inputs);
      onProgress?.({ samples: seen, max: settings.max });
      if (seen >= settings.max) break;
    }
  } finally {
    await session.release();
  }
  assertNotAborted(signal);
  if (seen === 0) {
    throw new InputError(
      'ERR_INLAY_FEED_MISSING',
      'There is no data to calibrate with; give at least one sample, better 100.',
    );
  }
  const ranges = collector.ranges();
  const broken = [...collector.broken];
  const warnings = [
    ...(seen < FEW ? [`Calibration saw ${plural(seen)} only; give at least ${FEW}, better 100.`] : []),
    ...broken.map(([name, times]) =>
      ranges.has(name)
        ? `The value "${name}" was NaN or infinite in ${times} runs, which say nothing of its range.`
        : `The value "${name}" was NaN or infinite in every run, so that it has no range.`,
    ),
  ];
  const ignored = broken.reduce((sum, [, times]) => sum + times, 0);
  return { ranges, method: settings.method, samples: seen, ignored, warnings };
}

function rowsOf(feeds: TensorMap, [input]: readonly NamedValueType[]): number {
  const [rows] = input === undefined ? [] : (feeds[input.name]?.shape ?? []);
  return rows === undefined || typeof input?.shape?.[0] === 'number' ? 1 : rows;
}

const plural = (count: number): string => (count === 1 ? '1 sample' : `${count} samples`);
