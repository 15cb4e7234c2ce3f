/** Layers of TensorFlow.js as ONNX operators. */

import { axisIn, toValue, weightIn, type Emitter, type Layout, type Value } from './onnx-emitter.ts';
import { activate, mapValue, soleLayout } from './onnx-activations.ts';
import {
  activated,
  assertChannelsLast,
  axisOf,
  pairOf,
  refusal,
  sole,
  weightOf,
  type LayerView,
  type LayerWriter,
} from './onnx-layer.ts';
import { WINDOW_LAYERS } from './onnx-windows.ts';
import { transposed } from './transpose.ts';

const identity: LayerWriter = (layer, inputs) => sole(layer, inputs);

const dense: LayerWriter = (layer, inputs, emit) => {
  const value = sole(layer, inputs);
  const kernel = weightOf(layer, 0);
  const { image } = value;
  const flat = value.names.get('flat');
  // The rows of the kernel follow the image, so that the image need not be turned round.
  const operands =
    flat !== undefined && image !== undefined
      ? [
          flat,
          emit.weight('kernel_channels_first', () => ({
            ...transposed(kernel.data, [...image, kernel.shape[1] ?? 1], [2, 0, 1, 3]),
            shape: kernel.shape,
          })),
        ]
      : [emit.as(value, 'last'), emit.weight('kernel', () => kernel)];
  const hasBias = layer.config['useBias'] !== false;
  const bias = hasBias ? [emit.weight('bias', () => weightOf(layer, 1))] : [];
  const isMatrix = value.shape.length === 2;
  const product = emit.node(isMatrix && hasBias ? 'Gemm' : 'MatMul', [
    ...operands,
    ...(isMatrix ? bias : []),
  ]);
  const sum = hasBias && !isMatrix ? emit.node('Add', [product, ...bias]) : product;
  return activated(layer, toValue(layer.outputShape, 'last', sum), emit);
};

const flatten: LayerWriter = (layer, inputs, emit) => {
  assertChannelsLast(layer);
  const value = sole(layer, inputs);
  const [layout, name] = soleLayout(value);
  if (layout === 'flat') return value;
  const [, rows = null, columns = null, channels = null] = value.shape;
  if (layout === 'last' || rows === null || columns === null || channels === null) {
    return toValue(layer.outputShape, 'last', emit.node('Flatten', [emit.as(value, 'last')], { axis: 1 }));
  }
  const row = emit.node('Flatten', [name], { axis: 1 });
  return channels === 1 || rows * columns === 1
    ? toValue(layer.outputShape, 'last', row)
    : toValue(layer.outputShape, 'flat', row, [rows, columns, channels]);
};

const reshape: LayerWriter = (layer, inputs, emit) => {
  const name = emit.as(sole(layer, inputs), 'last');
  const target = layer.outputShape.slice(1);
  if (target.filter((length) => length === null).length > 1) {
    throw refusal(layer, 'more than one axis of its result has no fixed length');
  }
  const shape = emit.integers([0, ...target.map((length) => length ?? -1)]);
  return toValue(layer.outputShape, 'last', emit.node('Reshape', [name, shape]));
};

const permute: LayerWriter = (layer, inputs, emit) => {
  const value = sole(layer, inputs);
  const dims = layer.config['dims'] as readonly number[];
  const order = dims.join(' ');
  const first = value.names.get('first');
  const last = value.names.get('last');
  // Turning an image round is a matter of what it is called.
  if (order === '2 3 1' && last !== undefined) return toValue(layer.outputShape, 'first', last);
  if (order === '3 1 2' && first !== undefined) return toValue(layer.outputShape, 'last', first);
  const turned = emit.node('Transpose', [emit.as(value, 'last')], { perm: [0, ...dims] });
  return toValue(layer.outputShape, 'last', turned);
};

const batchNormalization: LayerWriter = (layer, inputs, emit) => {
  const value = sole(layer, inputs);
  const rank = value.shape.length;
  if (axisOf(layer, 'axis', rank) !== rank - 1) {
    throw refusal(layer, 'its axis is not the last one, about which the backends of TensorFlow.js disagree');
  }
  const { center = true, scale = true, epsilon = 1e-3 } = layer.config;
  const places = ['gamma', 'beta', 'mean', 'variance'].filter(
    (part) => (part !== 'gamma' || scale === true) && (part !== 'beta' || center === true),
  );
  const part = (name: string, at: number): number | undefined =>
    places.includes(name) ? weightOf(layer, places.indexOf(name)).data[at] : undefined;
  const { length } = weightOf(layer, 0).data;
  const factor = Float64Array.from(
    { length },
    (_, at) => (part('gamma', at) ?? 1) / Math.sqrt((part('variance', at) ?? 0) + Number(epsilon)),
  );
  const shift = factor.map((by, at) => (part('beta', at) ?? 0) - (part('mean', at) ?? 0) * by);
  return mapValue(restored(value, emit), (x, layout) => {
    const shape = layout === 'first' ? [length, 1, 1] : [length];
    const factors = emit.weight(`factor_${layout}`, () => ({ shape, data: Float32Array.from(factor) }));
    const shifts = emit.weight(`shift_${layout}`, () => ({ shape, data: Float32Array.from(shift) }));
    return emit.node('Add', [emit.node('Mul', [x, factors]), shifts]);
  });
};

const layerNormalization: LayerWriter = (layer, inputs, emit) => {
  const value = sole(layer, inputs);
  const rank = value.shape.length;
  const { axis: given = -1, center = true, scale = true, epsilon = 1e-3 } = layer.config;
  const axes = (Array.isArray(given) ? (given as number[]) : [Number(given)])
    .map((axis) => (axis < 0 ? axis + rank : axis))
    .sort((a, b) => a - b);
  const [axis = rank - 1] = axes;
  if (axes.some((one, at) => one !== axis + at) || axis + axes.length !== rank) {
    throw refusal(layer, `it normalizes the axes ${axes.join(', ')}, which are not the last ones`);
  }
  const shape = value.shape.slice(axis).map((length) => length ?? 1);
  const ones = {
    shape,
    data: new Float32Array(shape.reduce((product, length) => product * length, 1)).fill(1),
  };
  const operands = [
    emit.as(value, 'last'),
    emit.weight('gamma', () => (scale === true ? weightOf(layer, 0) : ones)),
    ...(center === true ? [emit.weight('beta', () => weightOf(layer, scale === true ? 1 : 0))] : []),
  ];
  const normal = emit.node('LayerNormalization', operands, { axis, epsilon: { float: Number(epsilon) } });
  return toValue(layer.outputShape, 'last', normal);
};

const embedding: LayerWriter = (layer, inputs, emit) => {
  if (layer.config['maskZero'] === true) throw refusal(layer, 'it masks zeros; set maskZero to false');
  const value = sole(layer, inputs);
  const indices = value.dtype === 'int64' ? value : emit.cast(value, 'int32');
  const table = emit.weight('embeddings', () => weightOf(layer, 0));
  return toValue(layer.outputShape, 'last', emit.node('Gather', [table, emit.as(indices, 'last')]));
};

/** The layout for several values at once: channels first if one of them is. */
function commonLayout(inputs: readonly Value[]): 'first' | 'last' {
  return inputs.some(({ names }) => names.has('first')) ? 'first' : 'last';
}

const merge =
  (write: (emit: Emitter, names: readonly string[]) => string): LayerWriter =>
  (layer, inputs, emit) => {
    if (new Set(inputs.map(({ shape }) => shape.length)).size > 1) {
      throw refusal(layer, 'its inputs have different ranks; put a reshape layer before it');
    }
    const layout = commonLayout(inputs);
    const names = inputs.map((value) => emit.as(value, layout));
    return toValue(layer.outputShape, layout, write(emit, names));
  };

const folded =
  (op: string) =>
  (emit: Emitter, [first = '', ...rest]: readonly string[]): string =>
    rest.reduce((sum, name) => emit.node(op, [sum, name]), first);

const concatenate: LayerWriter = (layer, inputs, emit) => {
  const layout = commonLayout(inputs);
  const axis = axisIn(layout, axisOf(layer, 'axis', layer.outputShape.length));
  const names = inputs.map((value) => emit.as(value, layout));
  return toValue(layer.outputShape, layout, emit.node('Concat', names, { axis }));
};

const zeroPadding: LayerWriter = (layer, inputs, emit) => {
  assertChannelsLast(layer);
  const padding = layer.config['padding'] as readonly (readonly [number, number])[];
  const [[top, bottom] = [0, 0], [left, right] = [0, 0]] = padding;
  const pad = (x: string, layout: Layout): string => {
    const before = layout === 'first' ? [0, 0, top, left] : [0, top, left, 0];
    const after = layout === 'first' ? [0, 0, bottom, right] : [0, bottom, right, 0];
    return emit.node('Pad', [x, emit.integers([...before, ...after])]);
  };
  return mapValue(sole(layer, inputs), pad, layer.outputShape);
};

const upSampling: LayerWriter = (layer, inputs, emit) => {
  assertChannelsLast(layer);
  const [rows, columns] = pairOf(layer, 'size');
  const isLinear = layer.config['interpolation'] === 'bilinear';
  const scales = emit.weight('scales', () => ({ shape: [4], data: Float32Array.of(1, 1, rows, columns) }));
  const image = emit.as(sole(layer, inputs), 'first');
  const larger = emit.node('Resize', [image, '', scales], {
    mode: isLinear ? 'linear' : 'nearest',
    coordinate_transformation_mode: 'asymmetric',
    nearest_mode: 'floor',
  });
  return toValue(layer.outputShape, 'first', larger);
};

const prelu: LayerWriter = (layer, inputs, emit) =>
  mapValue(restored(sole(layer, inputs), emit), (x, layout) =>
    emit.node('PRelu', [x, emit.weight(`alpha_${layout}`, () => weightIn(layout, weightOf(layer, 0)))]),
  );

const elementwise =
  (write: (layer: LayerView, emit: Emitter, x: string) => string): LayerWriter =>
  (layer, inputs, emit) =>
    mapValue(sole(layer, inputs), (x) => write(layer, emit, x));

const softmax: LayerWriter = (layer, inputs, emit) => {
  const value = sole(layer, inputs);
  const rank = value.shape.length;
  if (axisOf(layer, 'axis', rank) !== rank - 1) throw refusal(layer, 'its axis is not the last one');
  return activate(emit, 'softmax', value);
};

const pooledSequence =
  (op: 'ReduceMean' | 'ReduceMax'): LayerWriter =>
  (layer, inputs, emit) => {
    const name = emit.as(sole(layer, inputs), 'last');
    return toValue(layer.outputShape, 'last', emit.node(op, [name], { axes: [1], keepdims: 0 }));
  };

/** A value whose elements lie as its shape says, but for the place of channels. */
function restored(value: Value, emit: Emitter): Value {
  return value.names.has('flat') ? toValue(value.shape, 'last', emit.as(value, 'last')) : value;
}

const LAYERS: Readonly<Record<string, LayerWriter>> = {
  ...WINDOW_LAYERS,
  Dense: dense,
  Flatten: flatten,
  Reshape: reshape,
  Permute: permute,
  Activation: (layer, inputs, emit) => activated(layer, sole(layer, inputs), emit),
  // Active in training only.
  Dropout: identity,
  SpatialDropout1D: identity,
  GaussianNoise: identity,
  GaussianDropout: identity,
  AlphaDropout: identity,
  BatchNormalization: batchNormalization,
  LayerNormalization: layerNormalization,
  Embedding: embedding,
  Add: merge(folded('Add')),
  Multiply: merge(folded('Mul')),
  Average: merge((emit, names) =>
    emit.node('Mul', [folded('Add')(emit, names), emit.scalar(1 / names.length)]),
  ),
  Maximum: merge((emit, names) => emit.node('Max', names)),
  Minimum: merge((emit, names) => emit.node('Min', names)),
  Concatenate: concatenate,
  ZeroPadding2D: zeroPadding,
  UpSampling2D: upSampling,
  GlobalAveragePooling1D: pooledSequence('ReduceMean'),
  GlobalMaxPooling1D: pooledSequence('ReduceMax'),
  ReLU: elementwise(({ config: { maxValue } }, emit, x) =>
    typeof maxValue === 'number'
      ? emit.node('Clip', [x, emit.scalar(0), emit.scalar(maxValue)])
      : emit.node('Relu', [x]),
  ),
  LeakyReLU: elementwise(({ config }, emit, x) =>
    emit.node('LeakyRelu', [x], { alpha: { float: Number(config['alpha']) } }),
  ),
  ELU: elementwise((_, emit, x) => emit.node('Elu', [x])),
  ThresholdedReLU: elementwise(({ config }, emit, x) =>
    emit.node('ThresholdedRelu', [x], { alpha: { float: Number(config['theta']) } }),
  ),
  PReLU: prelu,
  Softmax: softmax,
};

/**
 * Writes a layer that is applied once.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` if it has no form, with its name and the reason.
 */
export function writeLayer(layer: LayerView, inputs: readonly Value[], emit: Emitter): Value {
  const write = Object.hasOwn(LAYERS, layer.type) ? LAYERS[layer.type] : undefined;
  if (write === undefined) throw refusal(layer, 'this class of layer has no form');
  emit.enter(layer.name);
  return write(
    layer,
    layer.type === 'Embedding' ? inputs : inputs.map((value) => emit.cast(value, 'float32')),
    emit,
  );
}
