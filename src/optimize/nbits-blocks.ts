/** Weights in blocks of 4 or 8 bits, laid out as `com.microsoft::MatMulNBits` reads them (onnxruntime docs/ContribOperators.md). */

import { toFloat16Bits, fromFloat16Bits } from '../core/float.ts';
import { Tensor } from '../core/tensor.ts';
import { notFinite, type Weights } from './weights.ts';

/** How blocks are made. */
export interface BlockOptions {
  readonly bits: 4 | 8;
  /** A power of two, at least 16. */
  readonly blockSize: number;
  readonly isSymmetric: boolean;
  /** The weights are stored as `[outputs, inputs]`, not `[inputs, outputs]`. */
  readonly isTransposed: boolean;
}

/** A matrix in blocks along its inputs. */
export interface Blocks {
  readonly inputs: number;
  readonly outputs: number;
  /** uint8 `[outputs, blocks, blockSize · bits / 8]`; with 4 bits, even elements are in the low half. */
  readonly values: Tensor<'uint8'>;
  /** `[outputs, blocks]`. May be negative if symmetric. */
  readonly scales: Tensor<'float32' | 'float16'>;
  /** uint8 `[outputs, ceil(blocks · bits / 8)]`; absent if symmetric: the middle of the integers. */
  readonly zeroPoints?: Tensor<'uint8'>;
}

/** Outputs that are taken at a time: what a cache line holds. */
const LANES = 16;

/** Bytes that a matrix takes in blocks. */
export function sizeOfBlocks(
  inputs: number,
  outputs: number,
  { bits, blockSize, isSymmetric }: Omit<BlockOptions, 'isTransposed'>,
): number {
  const blocks = Math.ceil(inputs / blockSize);
  const zeroPoints = isSymmetric ? 0 : Math.ceil((blocks * bits) / 8);
  return outputs * ((blocks * blockSize * bits) / 8 + blocks * 4 + zeroPoints);
}

/**
 * Quantizes a matrix, leading axes of length 1 aside, each block to the nearest integers. Every step is rounded to
 * float32, and halves go up, as the kernels of onnxruntime do; what pads the last block is 0.
 *
 * Symmetric: the scale takes the element of the largest magnitude to the lowest integer. Asymmetric: scale and zero
 * point take the range of the block, widened to hold 0, to all integers.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` if an element is NaN or infinite.
 */
export function toBlocks({ name, dtype, shape, data }: Weights, options: BlockOptions): Blocks {
  const { bits, blockSize, isSymmetric, isTransposed } = options;
  const [first = 0, second = 0] = shape.slice(-2);
  const [inputs, outputs] = isTransposed ? [second, first] : [first, second];
  const blocks = Math.ceil(inputs / blockSize);
  const blockBytes = (blockSize * bits) / 8;
  const zeroPointBytes = Math.ceil((blocks * bits) / 8);
  const values = new Uint8Array(outputs * blocks * blockBytes);
  const scales = new Float32Array(outputs * blocks);
  const zeroPoints = isSymmetric ? undefined : new Uint8Array(outputs * zeroPointBytes);
  const isHalf = dtype === 'float16';
  const find = isSymmetric ? findSymmetric : findAsymmetric;
  const largest = 2 ** bits - 1;
  const tile = new Float32Array(LANES * blockSize);
  const quantized = new Uint8Array(blockSize);

  // Any number minus itself is zero.
  let poison = 0;
  for (let block = 0; block < blocks; block += 1) {
    const from = block * blockSize;
    const length = Math.min(blockSize, inputs - from);
    for (let left = 0; left < outputs; left += LANES) {
      const lanes = Math.min(LANES, outputs - left);
      if (isTransposed) {
        for (let lane = 0; lane < lanes; lane += 1) {
          const start = (left + lane) * inputs + from;
          tile.set(data.subarray(start, start + length), lane * blockSize);
        }
      } else {
        for (let row = 0; row < length; row += 1) {
          const start = (from + row) * outputs + left;
          for (let lane = 0; lane < lanes; lane += 1) {
            tile[lane * blockSize + row] = data[start + lane] as number;
          }
        }
      }
      for (let lane = 0; lane < lanes; lane += 1) {
        const start = lane * blockSize;
        const end = start + length;
        let low = tile[start] as number;
        let high = low;
        for (let at = start; at < end; at += 1) {
          const value = tile[at] as number;
          if (value < low) low = value;
          if (value > high) high = value;
          poison += value - value;
        }
        const { scale: exact, zeroPoint } = find(low, high, bits);
        const scale = isHalf ? fromFloat16Bits(toFloat16Bits(exact)) : exact;
        const factor = scale === 0 ? 0 : Math.fround(1 / scale);
        const output = left + lane;
        const index = output * blocks + block;
        scales[index] = scale;
        if (zeroPoints !== undefined) pack(zeroPoints, output * zeroPointBytes, block, zeroPoint, bits);
        for (let at = start; at < end; at += 1) {
          const shifted = Math.fround(Math.fround((tile[at] as number) * factor) + zeroPoint);
          const rounded = Math.floor(Math.fround(shifted + 0.5));
          quantized[at - start] = rounded < 0 ? 0 : rounded > largest ? largest : rounded;
        }
        quantized.fill(0, length);
        const into = index * blockBytes;
        if (bits === 8) values.set(quantized, into);
        else {
          for (let at = 0; at < blockBytes; at += 1) {
            values[into + at] = (quantized[2 * at] as number) | ((quantized[2 * at + 1] as number) << 4);
          }
        }
      }
    }
  }
  if (Number.isNaN(poison)) throw notFinite(name);
  return {
    inputs,
    outputs,
    values: new Tensor('uint8', [outputs, blocks, blockBytes], values),
    scales: isHalf
      ? new Tensor('float16', [outputs, blocks], Uint16Array.from(scales, toFloat16Bits))
      : new Tensor('float32', [outputs, blocks], scales),
    ...(zeroPoints && { zeroPoints: new Tensor('uint8', [outputs, zeroPointBytes], zeroPoints) }),
  };
}

/** Scale and zero point of one block. */
interface BlockAffine {
  readonly scale: number;
  readonly zeroPoint: number;
}

function findSymmetric(low: number, high: number, bits: number): BlockAffine {
  const half = 2 ** (bits - 1);
  const extreme = Math.abs(high) > Math.abs(low) ? high : low;
  return { scale: Math.fround(extreme / -half), zeroPoint: half };
}

function findAsymmetric(low: number, high: number, bits: number): BlockAffine {
  const largest = 2 ** bits - 1;
  const min = Math.min(low, 0);
  const spread = Math.max(high, 0) - min;
  const rounded = Math.fround(spread);
  // The difference of huge weights overflows.
  const scale = Math.fround((Number.isFinite(rounded) ? rounded : spread) / largest);
  if (scale === 0) return { scale, zeroPoint: 0 };
  const zeroPoint = Math.round(Math.fround(-min / scale));
  return { scale, zeroPoint: Math.min(zeroPoint, largest) };
}

/** Puts an integer of some bits at its place among others of one row. */
function pack(into: Uint8Array, start: number, index: number, value: number, bits: number): void {
  const at = start + Math.floor((index * bits) / 8);
  into[at] = (into[at] as number) | (value << ((index * bits) % 8));
}
