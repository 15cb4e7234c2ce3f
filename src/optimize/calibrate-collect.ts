/** Gathers ranges from runs: by reductions inside the graph, or by histograms of what comes out. */

import type { TensorMap } from '../core/backend.ts';
import { DTYPES } from '../core/dtype.ts';
import type { ModelProto, NodeProto, ValueInfoProto } from '../onnx/messages.ts';
import { toAttribute } from '../onnx/attributes.ts';
import type { CalibrationSettings } from './calibrate-options.ts';
import { createHistogram, entropyRange, percentileRange, type Histogram } from './histogram.ts';
import type { Range } from './technique.ts';
import { exposeValues } from './types.ts';

/** Ranges in the making. */
export interface Collector {
  /** The model to run. */
  readonly model: ModelProto;
  /** What has to be asked of each run. */
  readonly outputs: readonly string[];
  take(feeds: TensorMap, outputs: TensorMap): void;
  /** Ranges of all values that were finite at least once and had elements. */
  ranges(): Map<string, Range>;
  /** In how many runs a value held NaN or infinity. */
  readonly broken: ReadonlyMap<string, number>;
}

/** Starts to gather the ranges of some float32 values of the graph. */
export function createCollector(
  model: ModelProto,
  values: readonly string[],
  settings: CalibrationSettings,
): Collector {
  return settings.method === 'minmax'
    ? createReducing(model, values, settings)
    : createCounting(model, values, settings);
}

/** A sum tells of NaN, which minimum and maximum pass over. */
const REDUCTIONS = ['ReduceMin', 'ReduceMax', 'ReduceSum'] as const;

function createReducing(
  model: ModelProto,
  values: readonly string[],
  { isSymmetric }: CalibrationSettings,
): Collector {
  const prefix = unusedPrefix(model);
  const nameOf = (op: string, index: number): string => `${prefix}${op}_${index}`;
  const node = values.flatMap((value, index) =>
    REDUCTIONS.map((op): NodeProto => ({
      input: [value],
      output: [nameOf(op, index)],
      opType: op,
      attribute: [toAttribute('keepdims', 0)],
    })),
  );
  const output = node.map(({ output: [name = ''] }): ValueInfoProto => ({
    name,
    type: { tensorType: { elemType: DTYPES.float32.onnx, shape: { dim: [] } } },
  }));
  const { graph } = model;
  const ranges = new Map<string, Range>();
  const broken = new Map<string, number>();
  return {
    // A graph has at least one output, also where there is nothing to reduce.
    model: {
      ...model,
      graph: {
        ...graph,
        node: [...graph.node, ...node],
        output: output.length > 0 ? output : graph.output,
      },
    },
    outputs: output.map(({ name = '' }) => name),
    take: (_, outputs) => {
      for (const [index, value] of values.entries()) {
        const [min, max, sum] = REDUCTIONS.map((op) => Number(outputs[nameOf(op, index)]?.data[0])) as [
          number,
          number,
          number,
        ];
        // What an empty tensor is reduced to.
        if (min === Number.POSITIVE_INFINITY && max === Number.NEGATIVE_INFINITY) continue;
        if (Number.isFinite(min) && Number.isFinite(max) && !Number.isNaN(sum)) {
          ranges.set(value, union(ranges.get(value), { min, max }));
        } else {
          broken.set(value, (broken.get(value) ?? 0) + 1);
        }
      }
    },
    ranges: () =>
      isSymmetric ? new Map(Array.from(ranges, ([name, range]) => [name, mirrored(range)])) : ranges,
    broken,
  };
}

function createCounting(
  model: ModelProto,
  values: readonly string[],
  settings: CalibrationSettings,
): Collector {
  const { method, percentile, isSymmetric, bins } = settings;
  const isOfMagnitudes = method === 'percentile' && isSymmetric;
  const histograms = new Map<string, Histogram>();
  const broken = new Map<string, number>();
  const inputs = new Set(model.graph.input.map(({ name }) => name));
  const given = values.filter((value) => !inputs.has(value));
  const rangeOf = (histogram: Histogram): Range => {
    if (method === 'percentile') return percentileRange(histogram, percentile, isOfMagnitudes);
    const range = entropyRange(histogram);
    return isSymmetric ? mirrored(range) : range;
  };
  return {
    model: exposeValues(model, given),
    outputs: given,
    take: (feeds, outputs) => {
      for (const value of values) {
        const data = (outputs[value] ?? feeds[value])?.data;
        if (!(data instanceof Float32Array) || data.length === 0) continue;
        const observed = extentOf(data);
        if (observed === undefined) {
          broken.set(value, (broken.get(value) ?? 0) + 1);
          continue;
        }
        const histogram = histograms.get(value) ?? createHistogram({ bins, isOfMagnitudes });
        histograms.set(value, histogram);
        histogram.add(data, observed);
      }
    },
    ranges: () => new Map(Array.from(histograms, ([value, histogram]) => [value, rangeOf(histogram)])),
    broken,
  };
}

/** Smallest and largest element; `undefined` if one is no finite number. */
function extentOf(data: Float32Array): Range | undefined {
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  let isFinite = true;
  for (let i = 0; i < data.length; i += 1) {
    const value = data[i] as number;
    if (value < min) min = value;
    if (value > max) max = value;
    isFinite &&= Number.isFinite(value);
  }
  return isFinite ? { min, max } : undefined;
}

function union(range: Range | undefined, { min, max }: Range): Range {
  return range === undefined
    ? { min, max }
    : { min: Math.min(range.min, min), max: Math.max(range.max, max) };
}

/** Widens a range until it reaches as far to either side of 0. */
function mirrored({ min, max }: Range): Range {
  const limit = Math.max(Math.abs(min), Math.abs(max));
  return { min: -limit, max: limit };
}

/** A start that no value of the graph has. */
function unusedPrefix({ graph }: ModelProto): string {
  const names = [
    ...graph.input.map(({ name = '' }) => name),
    ...graph.initializer.map(({ name = '' }) => name),
    ...graph.node.flatMap(({ output }) => output),
  ];
  let prefix = 'calibration_';
  while (names.some((name) => name.startsWith(prefix))) prefix += '_';
  return prefix;
}
