/** Constants of a model as integers of 8 bits. */

import { ModelError } from '../core/errors.ts';
import { fromFloat16Array } from '../core/float.ts';
import { Tensor } from '../core/tensor.ts';
import type { TensorProto } from '../onnx/messages.ts';
import { dtypeOf, fromTensorProto, isExternal } from '../onnx/tensors.ts';
import { affineOf, INT8_RANGES, integersOf, roundHalfEven } from './arithmetic.ts';
import type { Int8, Range } from './technique.ts';

/** Types of weights that can be quantized. */
export type WeightDType = 'float32' | 'float16' | 'bfloat16';

/** Weights as float32 numbers. */
export interface Weights {
  /** For messages. */
  readonly name: string;
  /** Type in the model. */
  readonly dtype: WeightDType;
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** How {@link quantizeWeights} goes about it. */
export interface WeightOptions {
  readonly dtype: Int8;
  /** Axis along which each index has a scale of its own. Default: one scale for all. */
  readonly axis?: number;
  /** 7 bits. Default false. */
  readonly isReduced?: boolean;
}

/**
 * Scales and zero point of weights. The zero point is the same for all channels: kernels take no other. `int8` is
 * always symmetric, `uint8` where there are channels.
 */
export interface WeightScales {
  /** One for all, or one for each channel. */
  readonly scales: Float32Array;
  readonly zeroPoint: number;
}

/** Weights as integers. */
export interface QuantizedWeights {
  readonly values: Tensor<Int8>;
  /** float32 `[]` or `[channels]`. */
  readonly scale: Tensor<'float32'>;
  /** A scalar. */
  readonly zeroPoint: Tensor<Int8>;
}

const WEIGHT_DTYPES: readonly string[] = ['float32', 'float16', 'bfloat16'] satisfies WeightDType[];

/** Type of a constant, if it is one of weights that can be quantized. */
export function weightDTypeOf(proto: TensorProto): WeightDType | undefined {
  const dtype = dtypeOf(proto);
  return isWeightDType(dtype) ? dtype : undefined;
}

/**
 * Reads weights; float32 ones that lie aligned are a view.
 * @param name - what the model calls them.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` for another dtype or data outside of the model.
 */
export function readWeights(proto: TensorProto, name: string = proto.name ?? ''): Weights {
  if (isExternal(proto)) {
    throw new ModelError(
      'ERR_INLAY_MODEL_UNSUPPORTED',
      `The weights "${name}" are in another file; load them into the model with inlineExternal before it is quantized.`,
      { details: { tensor: name } },
    );
  }
  const { dtype, shape, data } = fromTensorProto(proto);
  if (!isWeightDType(dtype)) {
    throw new ModelError(
      'ERR_INLAY_MODEL_UNSUPPORTED',
      `The weights "${name}" are ${dtype}; float32, float16 and bfloat16 can be quantized.`,
      { details: { tensor: name, dtype } },
    );
  }
  if (dtype === 'float32') return { name, dtype, shape, data: data as Float32Array };
  const toFloats = dtype === 'float16' ? fromFloat16Array : fromBfloat16Array;
  return { name, dtype, shape, data: toFloats(data as Uint16Array) };
}

/**
 * Makes a {@link readWeights} for one tensor at a time: those that do not lie aligned are copied to the same memory each
 * time, so that what was read before is overwritten, and no garbage piles up.
 */
export function createWeightReader(): typeof readWeights {
  let memory = new Uint8Array(0);
  return (proto, name) => {
    const { rawData } = proto;
    if (rawData === undefined || rawData.byteOffset % Float32Array.BYTES_PER_ELEMENT === 0) {
      return readWeights(proto, name);
    }
    if (memory.length < rawData.length) memory = new Uint8Array(rawData.length);
    memory.set(rawData);
    return readWeights({ ...proto, rawData: memory.subarray(0, rawData.length) }, name);
  };
}

/**
 * Quantizes weights: scales by the largest magnitude (asymmetric: by smallest and largest), then rounding.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` if an element is NaN or infinite; RangeError if there is no such
 * axis.
 */
export function quantizeWeights(weights: Weights, options: WeightOptions): QuantizedWeights {
  return applyScales(weights, scalesOf(weights, options), options);
}

/** Finds the scales of weights. @throws as {@link quantizeWeights} */
export function scalesOf(weights: Weights, { dtype, axis, isReduced = false }: WeightOptions): WeightScales {
  const isSymmetric = dtype === 'int8' || axis !== undefined;
  const integers = integersOf(dtype, { isSymmetric, isReduced });
  const affine = rangesOf(weights, axis).map((range) => affineOf(range, integers, isSymmetric));
  return {
    scales: Float32Array.from(affine, ({ scale }) => scale),
    // A channel of zeros alone has zero point 0 by the formula; that of the others stands for its zeros as well.
    zeroPoint:
      axis === undefined ? (affine[0]?.zeroPoint ?? 0) : roundHalfEven((integers.min + integers.max) / 2),
  };
}

/** Rounds weights to integers by scales that are given: those of {@link scalesOf}, or larger ones. */
export function applyScales(
  { shape, data }: Weights,
  { scales, zeroPoint }: WeightScales,
  { dtype, axis }: Pick<WeightOptions, 'dtype' | 'axis'>,
): QuantizedWeights {
  const bytes = new Uint8Array(data.length);
  const { min, max } = INT8_RANGES[dtype];
  // One array type for both: stores wrap around, so that the bits are the same.
  const into = new Int8Array(bytes.buffer);
  const { channels, inner } = layoutOf(shape, axis);
  let at = 0;
  while (at < data.length) {
    for (let channel = 0; channel < channels; channel += 1) {
      const scale = scales[channel] as number;
      for (const end = at + inner; at < end; at += 1) {
        const q = roundHalfEven(Math.fround((data[at] as number) / scale)) + zeroPoint;
        into[at] = q < min ? min : q > max ? max : q;
      }
    }
  }
  const tensor = (values: Uint8Array<ArrayBuffer>, of: readonly number[]): Tensor<Int8> =>
    dtype === 'int8' ? new Tensor('int8', of, new Int8Array(values.buffer)) : new Tensor('uint8', of, values);
  return {
    values: tensor(bytes, shape),
    scale: new Tensor('float32', axis === undefined ? [] : [scales.length], scales),
    zeroPoint: tensor(Uint8Array.of(zeroPoint), []),
  };
}

/** Swaps the axes of a matrix of bytes. */
export function transposeBytes(values: Tensor<Int8>): Tensor<Int8> {
  const [rows = 0, columns = 0] = values.shape;
  const { buffer, byteOffset, length } = values.data;
  const from = new Uint8Array(buffer, byteOffset, length);
  const into = new Uint8Array(length);
  // Tiles, so that a cache line is used up while it is there.
  const tile = 64;
  for (let top = 0; top < rows; top += tile) {
    const bottom = Math.min(top + tile, rows);
    for (let left = 0; left < columns; left += tile) {
      const right = Math.min(left + tile, columns);
      for (let column = left; column < right; column += 1) {
        for (let row = top; row < bottom; row += 1) {
          into[column * rows + row] = from[row * columns + column] as number;
        }
      }
    }
  }
  return values.dtype === 'int8'
    ? new Tensor('int8', [columns, rows], new Int8Array(into.buffer))
    : new Tensor('uint8', [columns, rows], into);
}

/** The refusal of weights that have an element which is no number. */
export function notFinite(name: string): ModelError {
  return new ModelError(
    'ERR_INLAY_MODEL_INVALID',
    `The weights "${name}" have elements that are NaN or infinite, which no scale can hold; mend the model or exclude the nodes that use them.`,
    { details: { tensor: name } },
  );
}

/** Smallest and largest element of each channel, or of all. */
function rangesOf({ name, shape, data }: Weights, axis: number | undefined): Range[] {
  const { channels, inner } = layoutOf(shape, axis);
  const lows = new Float32Array(channels);
  const highs = new Float32Array(channels);
  // Any number minus itself is zero.
  let poison = 0;
  let at = 0;
  while (at < data.length) {
    for (let channel = 0; channel < channels; channel += 1) {
      let low = lows[channel] as number;
      let high = highs[channel] as number;
      for (const end = at + inner; at < end; at += 1) {
        const value = data[at] as number;
        if (value < low) low = value;
        if (value > high) high = value;
        poison += value - value;
      }
      lows[channel] = low;
      highs[channel] = high;
    }
  }
  if (Number.isNaN(poison)) throw notFinite(name);
  return Array.from(lows, (min, channel) => ({ min, max: highs[channel] as number }));
}

/** A tensor as `[outer, channels, inner]`. */
function layoutOf(shape: readonly number[], axis: number | undefined): { channels: number; inner: number } {
  const product = (lengths: readonly number[]): number => lengths.reduce((size, length) => size * length, 1);
  if (axis === undefined) return { channels: 1, inner: product(shape) };
  const channels = shape[axis];
  if (channels === undefined) {
    throw new RangeError(`Weights of shape [${shape.join(', ')}] have no axis ${axis}.`);
  }
  return { channels, inner: product(shape.slice(axis + 1)) };
}

function isWeightDType(dtype: string): dtype is WeightDType {
  return WEIGHT_DTYPES.includes(dtype);
}

/** A bfloat16 is the upper half of a float32. */
function fromBfloat16Array(halves: Uint16Array): Float32Array<ArrayBuffer> {
  const words = Uint32Array.from(halves, (bits) => bits << 16);
  return new Float32Array(words.buffer);
}
