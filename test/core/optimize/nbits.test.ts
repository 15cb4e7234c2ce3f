import { describe, expect, it } from 'vitest';
import { sizeOfBlocks, toBlocks, type BlockOptions } from '../../../src/optimize/nbits-blocks.ts';
import { quantizeBlocks } from '../../../src/optimize/nbits.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { createGraph } from '../../../src/onnx/build.ts';
import type { Weights } from '../../../src/optimize/weights.ts';

const base: BlockOptions = { bits: 4, blockSize: 16, isSymmetric: true, isTransposed: false };

const column = (data: readonly number[], dtype: Weights['dtype'] = 'float32'): Weights => ({
  name: 'w',
  dtype,
  shape: [data.length, 1],
  data: Float32Array.from(data),
});

describe('blocks', () => {
  it('take the element of the largest magnitude to the lowest integer if symmetric', () => {
    const positive = toBlocks(column([8, -4, 1, 0.5]), base);
    expect(Array.from(positive.scales.data)).toEqual([-1]);
    // 8 → 0, −4 → 12, 1 → 7, 0.5 → 7.5, which goes up.
    expect(Array.from(positive.values.data.subarray(0, 2))).toEqual([0xc0, 0x87]);
    const negative = toBlocks(column([-8, 4]), base);
    expect(Array.from(negative.scales.data)).toEqual([1]);
    expect(negative.values.data[0]).toBe(0xc0);
    expect(negative.zeroPoints).toBeUndefined();
  });

  it('have a finite scale where the difference of two weights is none in float32', () => {
    const { scales, zeroPoints } = toBlocks(column([3e38, -3e38]), { ...base, isSymmetric: false });
    expect(scales.data[0]).toBeCloseTo(4e37, -32);
    expect(zeroPoints?.data[0]).toBe(8);
  });

  it('take their range, widened to hold zero, to all integers if not', () => {
    const { scales, zeroPoints, values } = toBlocks(column([-3, 12, 0, 2]), { ...base, isSymmetric: false });
    expect(Array.from(scales.data)).toEqual([1]);
    expect(Array.from(zeroPoints?.data ?? [])).toEqual([3]);
    expect(Array.from(values.data.subarray(0, 2))).toEqual([0xf0, 0x53]);
  });

  it('are padded with bytes of 0, and pack zero points of two blocks into a byte', () => {
    const data = Array.from({ length: 17 }, (_, at) => (at < 16 ? at - 5 : -15));
    const { values, zeroPoints, scales } = toBlocks(column(data), { ...base, isSymmetric: false });
    expect(values.shape).toEqual([1, 2, 8]);
    expect(Array.from(values.data.subarray(8))).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    expect(Array.from(zeroPoints?.data ?? [])).toEqual([0xf5]);
    expect(Array.from(scales.data)).toEqual([1, 1]);
    const wide = toBlocks(column(data), { ...base, bits: 8 });
    expect(wide.values.shape).toEqual([1, 2, 16]);
    expect(Array.from(wide.values.data.subarray(17)).every((byte) => byte === 0)).toBe(true);
  });

  it('are the same whichever way the matrix is stored', () => {
    const [inputs, outputs] = [37, 19];
    const data = Float32Array.from({ length: inputs * outputs }, (_, at) => Math.sin(at * 1.7));
    const swapped = Float32Array.from(
      { length: data.length },
      (_, at) => data[(at % inputs) * outputs + Math.floor(at / inputs)] as number,
    );
    const of = (isTransposed: boolean): unknown =>
      toBlocks(
        {
          ...column([]),
          shape: isTransposed ? [outputs, inputs] : [inputs, outputs],
          data: isTransposed ? swapped : data,
        },
        { ...base, isSymmetric: false, isTransposed },
      );
    expect(of(true)).toEqual(of(false));
  });

  it('of zeros have scale 0', () => {
    for (const isSymmetric of [true, false]) {
      const { scales, values } = toBlocks(column([0, 0, 0]), { ...base, isSymmetric });
      expect(Math.abs(scales.data[0] as number)).toBe(0);
      expect(values.data[0]).toBe(isSymmetric ? 0x88 : 0);
    }
  });

  it('of 16-bit floats have scales of 16 bits', () => {
    const { scales } = toBlocks(column([0.3, -0.1], 'float16'), base);
    expect([scales.dtype, scales.data[0]]).toEqual(['float16', 0xa8cd]);
  });

  it('are refused if an element is no number', () => {
    for (const bad of [Number.NaN, Number.NEGATIVE_INFINITY]) {
      expect(() => toBlocks(column([1, bad]), base)).toThrow(/"w" have elements that are NaN or infinite/);
    }
  });

  it('take the bytes that are foretold', () => {
    const { values, scales, zeroPoints } = toBlocks(column(Array(50).fill(1) as number[]), {
      ...base,
      isSymmetric: false,
    });
    const bytes = values.sizeBytes + scales.sizeBytes + (zeroPoints?.sizeBytes ?? 0);
    expect(sizeOfBlocks(50, 1, { ...base, isSymmetric: false })).toBe(bytes);
  });
});

describe('quantizeBlocks', () => {
  const graph = createGraph({ name: 'small', opset: 17 });
  graph.input('x', 'float32', ['n', 10]);
  graph.initializer('w', new Tensor('float32', [10, 4], new Float32Array(40).fill(0.5)));
  graph.node('MatMul', ['x', 'w'], {}, { outputs: 'y' });
  graph.output('y', 'float32', ['n', 4]);
  const model = graph.toModel();

  it('leaves weights that blocks would make larger', () => {
    const result = quantizeBlocks(model, { kind: 'nbits', bits: 8, blockSize: 128 });
    expect(result.model).toBe(model);
    expect(result.kept.map(({ reason }) => reason)).toEqual(['blocks would make it larger']);
  });

  it('asks for the operators of com.microsoft', () => {
    const { model: small } = quantizeBlocks(model, { kind: 'nbits', bits: 4, blockSize: 16 });
    expect(small.opsetImport).toContainEqual({ domain: 'com.microsoft', version: 1 });
    expect(small.irVersion).toBe(model.irVersion);
  });

  it.each([0, 8, 24, 31.5, Number.NaN])('refuses blocks of %s elements', (blockSize) => {
    expect(() => quantizeBlocks(model, { kind: 'nbits', bits: 4, blockSize })).toThrow(RangeError);
  });
});
