/** Two models side by side: answers, sizes, speed. */

import type { TensorMap } from '../core/backend.ts';
import { parseModel } from '../onnx/model.ts';
import { createComparer, type Comparison } from './compare.ts';
import { compareLayers, type LayerComparison } from './compare-layers.ts';
import { checkInvariance, type BatchInvariance } from './invariance.ts';
import { measureModels } from './measure.ts';
import type { OptimizeRuntime } from './runtime.ts';

/** Options of {@link compareModels}. */
export interface CompareModelsOptions {
  /** Outputs that are compared. Default: all. */
  readonly outputs?: readonly string[];
  /** Also compares what is between the layers. Default false. */
  readonly layers?: boolean;
  /** Rows of one call; speed is measured at each. Default `[1]`; `[]` measures none. */
  readonly batches?: readonly number[];
  /** Times that each model is run for each batch. Default 30. */
  readonly runs?: number;
  /** Threads inside one operator. Default 1. */
  readonly threads?: number;
  /** Monotonic clock, milliseconds. */
  readonly monotonicMs: () => number;
  readonly signal?: AbortSignal;
  /** Hears what is being done. */
  readonly onProgress?: (step: string) => void;
}

/** How long two models take for one batch. */
export interface SpeedComparison {
  readonly batch: number;
  /** Medians, milliseconds: of the first model, and of the second. */
  readonly p50Ms: readonly [number, number];
  /** 10th percentile of the first model over that of the second: above 1, the second is faster. */
  readonly speedup: number;
}

/** Two models side by side. */
export interface ModelComparison extends Comparison {
  /** Bytes of the first model and of the second. */
  readonly sizeBytes: readonly [number, number];
  /** Size of the second over that of the first. */
  readonly sizeRatio: number;
  readonly speed: readonly SpeedComparison[];
  /** Of the second model; absent if it takes no batches. */
  readonly batchInvariance?: BatchInvariance;
  readonly layers?: readonly LayerComparison[];
}

/** Samples that layers and rows are compared on: they are held in memory, with all values between the layers. */
const HELD = 4;

/**
 * Runs two models on the same samples and compares answers, sizes and speed. Samples are read one at a time; but for a
 * few they are not held.
 * @throws `RangeError` if the first model has no such output; what the runtime throws; the reason of `signal`.
 */
export async function compareModels(
  runtime: OptimizeRuntime,
  expected: Uint8Array,
  actual: Uint8Array,
  samples: AsyncIterable<TensorMap> | Iterable<TensorMap>,
  options: CompareModelsOptions,
): Promise<ModelComparison> {
  const { layers = false, batches = [1], threads = 1, runs, monotonicMs, signal, onProgress } = options;
  onProgress?.('comparing answers');
  const { comparison, held } = await compareAnswers(runtime, expected, actual, samples, options);
  const batchInvariance = await checkInvariance(actual, runtime, held);
  if (batches.length > 0) onProgress?.('measuring speed');
  const subjects = [
    { name: 'first', model: expected },
    { name: 'second', model: actual },
  ];
  const [first, second] =
    batches.length === 0
      ? []
      : await measureModels(subjects, runtime, {
          samples: held,
          batches,
          threads,
          monotonicMs,
          ...(runs !== undefined && { runs }),
          ...(signal && { signal }),
        });
  if (layers) onProgress?.('comparing layers');
  return {
    ...comparison,
    sizeBytes: [expected.length, actual.length],
    sizeRatio: actual.length / expected.length,
    speed: (first?.latencies ?? []).map(({ batch, p10Ms, p50Ms }, at) => {
      const other = second?.latencies[at];
      return {
        batch,
        p50Ms: [p50Ms, other?.p50Ms ?? Number.NaN],
        speedup: p10Ms / (other?.p10Ms ?? Number.NaN),
      };
    }),
    ...(batchInvariance && { batchInvariance }),
    ...(layers && {
      layers: await compareLayers(
        runtime,
        parseModel(expected),
        parseModel(actual),
        held,
        signal && { signal },
      ),
    }),
  };
}

async function compareAnswers(
  runtime: OptimizeRuntime,
  expected: Uint8Array,
  actual: Uint8Array,
  samples: AsyncIterable<TensorMap> | Iterable<TensorMap>,
  { outputs, threads = 1, signal }: CompareModelsOptions,
): Promise<{ readonly comparison: Comparison; readonly held: readonly TensorMap[] }> {
  const held: TensorMap[] = [];
  const comparer = createComparer();
  const one = await runtime.open(expected, { threads });
  try {
    const unknown = outputs?.find((wanted) => one.outputs.every(({ name }) => name !== wanted));
    if (unknown !== undefined) {
      const names = one.outputs.map(({ name }) => `"${name}"`).join(', ');
      throw new RangeError(`The first model has no output "${unknown}"; its outputs are ${names}.`);
    }
    const other = await runtime.open(actual, { threads });
    try {
      const shared = outputs?.filter((wanted) => other.outputs.some(({ name }) => name === wanted));
      for await (const sample of samples) {
        signal?.throwIfAborted();
        if (held.length < HELD) held.push(sample);
        comparer.add(await one.run(sample, outputs), await other.run(sample, shared));
      }
    } finally {
      await other.release();
    }
  } finally {
    await one.release();
  }
  return { comparison: comparer.result(), held };
}
