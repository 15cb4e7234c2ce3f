/** Layers that slide a window over an image: convolutions and pooling. */

import { toValue, type Emitter, type Value } from './onnx-emitter.ts';
import {
  activated,
  assertChannelsLast,
  pairOf,
  refusal,
  sole,
  weightOf,
  type LayerView,
  type LayerWriter,
} from './onnx-layer.ts';
import { transposed } from './transpose.ts';

type Pair = readonly [number, number];

/** How a window moves. */
interface Window {
  readonly kernel: Pair;
  readonly strides: Pair;
  readonly dilations: Pair;
}

/**
 * Padding in front of an axis and behind it, for `same`: as many places as make the output `ceil(length / stride)`, the
 * odd one behind (TensorFlow, "Notes on padding" of `tf.nn`). Without a stride, the length does not matter.
 * @returns `undefined` if the length matters and is not known.
 */
export function samePadding(
  length: number | null,
  kernel: number,
  stride: number,
  dilation: number,
): Pair | undefined {
  const extent = (kernel - 1) * dilation + 1;
  if (length === null && stride > 1) return undefined;
  const total = length === null ? extent - 1 : (Math.ceil(length / stride) - 1) * stride + extent - length;
  const before = Math.floor(Math.max(total, 0) / 2);
  return [before, Math.max(total, 0) - before];
}

function windowAttributes(layer: LayerView, value: Value, { kernel, strides, dilations }: Window) {
  assertChannelsLast(layer);
  const padding = String(layer.config['padding']);
  if (padding !== 'same' && padding !== 'valid') throw refusal(layer, `its padding is ${padding}`);
  const [rows, columns] = ([0, 1] as const).map((at): Pair => {
    if (padding === 'valid') return [0, 0];
    const pads = samePadding(value.shape[at + 1] ?? null, kernel[at], strides[at], dilations[at]);
    if (pads !== undefined) return pads;
    throw refusal(
      layer,
      `its padding "same" with the stride ${strides[at]} depends on the size of the image, which is not fixed; give the input a size, or use padding "valid"`,
    );
  }) as [Pair, Pair];
  return { kernel_shape: kernel, strides, pads: [rows[0], columns[0], rows[1], columns[1]] };
}

/** Writes one convolution of a kernel in ONNX's order, [outputs, inputs / group, rows, columns]. */
function convolve(
  layer: LayerView,
  value: Value,
  emit: Emitter,
  parts: Window & {
    readonly stem: string;
    readonly kernelAt: number;
    readonly order: readonly number[];
    readonly biasAt?: number;
    readonly isDepthwise?: boolean;
  },
): string {
  const { shape, data } = weightOf(layer, parts.kernelAt);
  const kernel = emit.weight(parts.stem, () => {
    const turned = transposed(data, shape, parts.order);
    const [outputs = 1, inputs = 1, ...rest] = turned.shape;
    return parts.isDepthwise === true ? { ...turned, shape: [outputs * inputs, 1, ...rest] } : turned;
  });
  const inputs = [emit.as(value, 'first'), kernel];
  const { biasAt } = parts;
  if (biasAt !== undefined && layer.config['useBias'] !== false) {
    inputs.push(emit.weight('bias', () => weightOf(layer, biasAt)));
  }
  return emit.node('Conv', inputs, {
    ...windowAttributes(layer, value, parts),
    dilations: parts.dilations,
    group: parts.isDepthwise === true ? (shape[2] ?? 1) : 1,
  });
}

/** TensorFlow's kernels are [rows, columns, inputs, outputs]; those per channel [rows, columns, inputs, multiplier]. */
const FULL = [3, 2, 0, 1];
const PER_CHANNEL = [2, 3, 0, 1];

const windowOf = (layer: LayerView): Window => ({
  kernel: pairOf(layer, 'kernelSize'),
  strides: pairOf(layer, 'strides'),
  dilations: pairOf(layer, 'dilationRate'),
});

const convolution: LayerWriter = (layer, inputs, emit) => {
  const parts = { ...windowOf(layer), stem: 'kernel', kernelAt: 0, order: FULL, biasAt: 1 };
  return activated(
    layer,
    toValue(layer.outputShape, 'first', convolve(layer, sole(layer, inputs), emit, parts)),
    emit,
  );
};

const depthwise: LayerWriter = (layer, inputs, emit) => {
  const parts = {
    ...windowOf(layer),
    stem: 'kernel',
    kernelAt: 0,
    order: PER_CHANNEL,
    biasAt: 1,
    isDepthwise: true,
  };
  if (parts.dilations.some((rate) => rate !== 1)) {
    throw refusal(layer, 'TensorFlow.js ignores its dilationRate; leave that out');
  }
  return activated(
    layer,
    toValue(layer.outputShape, 'first', convolve(layer, sole(layer, inputs), emit, parts)),
    emit,
  );
};

const separable: LayerWriter = (layer, inputs, emit) => {
  const spread = convolve(layer, sole(layer, inputs), emit, {
    ...windowOf(layer),
    stem: 'depthwise_kernel',
    kernelAt: 0,
    order: PER_CHANNEL,
    isDepthwise: true,
  });
  const one: Window = { kernel: [1, 1], strides: [1, 1], dilations: [1, 1] };
  const mixed = convolve(layer, toValue(layer.outputShape, 'first', spread), emit, {
    ...one,
    stem: 'pointwise_kernel',
    kernelAt: 1,
    order: FULL,
    biasAt: 2,
  });
  return activated(layer, toValue(layer.outputShape, 'first', mixed), emit);
};

const pooling =
  (op: 'MaxPool' | 'AveragePool'): LayerWriter =>
  (layer, inputs, emit) => {
    const value = sole(layer, inputs);
    const attributes = windowAttributes(layer, value, {
      kernel: pairOf(layer, 'poolSize'),
      strides: pairOf(layer, 'strides'),
      dilations: [1, 1],
    });
    return toValue(layer.outputShape, 'first', emit.node(op, [emit.as(value, 'first')], attributes));
  };

const globalPooling =
  (op: 'GlobalAveragePool' | 'GlobalMaxPool', reduce: 'ReduceMean' | 'ReduceMax'): LayerWriter =>
  (layer, inputs, emit) => {
    assertChannelsLast(layer);
    const value = sole(layer, inputs);
    const first = value.names.get('first');
    const pooled =
      first === undefined
        ? emit.node(reduce, [emit.as(value, 'last')], { axes: [1, 2], keepdims: 0 })
        : emit.node('Flatten', [emit.node(op, [first])], { axis: 1 });
    return toValue(layer.outputShape, 'last', pooled);
  };

/** Writers by class of layer. */
export const WINDOW_LAYERS: Readonly<Record<string, LayerWriter>> = {
  Conv2D: convolution,
  DepthwiseConv2D: depthwise,
  SeparableConv2D: separable,
  MaxPooling2D: pooling('MaxPool'),
  AveragePooling2D: pooling('AveragePool'),
  GlobalAveragePooling2D: globalPooling('GlobalAveragePool', 'ReduceMean'),
  GlobalMaxPooling2D: globalPooling('GlobalMaxPool', 'ReduceMax'),
};
