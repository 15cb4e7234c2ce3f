import { afterAll, describe, expect, it } from 'vitest';
import type { TensorMap } from '../../src/core/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph } from '../../src/onnx/build.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { calibrate } from '../../src/optimize/calibrate.ts';
import type { CalibrationMethod } from '../../src/optimize/calibrate-options.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';

const runtime = createNodeRuntime();
afterAll(() => runtime.close());

/** y = relu(x · w) */
function model(): ModelProto {
  const graph = createGraph({ name: 'g', opset: 17 });
  graph.input('x', 'float32', ['n', 2]);
  graph.initializer('w', new Tensor('float32', [2, 2], Float32Array.of(1, 0, 0, -2)));
  graph.node('MatMul', ['x', 'w'], {}, { outputs: 'm' });
  graph.node('Relu', ['m'], {}, { outputs: 'y' });
  graph.output('y', 'float32', ['n', 2]);
  return graph.toModel();
}
const sample = (...values: number[]): TensorMap => ({
  x: new Tensor('float32', [values.length / 2, 2], Float32Array.from(values)),
});
const methods: readonly CalibrationMethod[] = ['minmax', 'percentile', 'entropy'];

describe('calibration', () => {
  it('finds smallest and largest element over all samples', async () => {
    const { ranges, samples } = await calibrate(model(), runtime, [sample(1, 2), sample(-3, 1, 5, 0)], {
      method: 'minmax',
    });
    expect(samples).toBe(3);
    expect(ranges).toEqual(
      new Map([
        ['x', { min: -3, max: 5 }],
        ['m', { min: -4, max: 5 }],
        ['y', { min: 0, max: 5 }],
      ]),
    );
  });

  it('widens ranges to both sides on request', async () => {
    const { ranges } = await calibrate(model(), runtime, [sample(-3, 1)], {
      method: 'minmax',
      isSymmetric: true,
    });
    expect(ranges.get('x')).toEqual({ min: -3, max: 3 });
  });

  it.each(methods)('stays within what was seen, by %s', async (method) => {
    const { ranges } = await calibrate(model(), runtime, [sample(1, 2, 3, -4), sample(0.5, 7)], { method });
    const { min, max } = ranges.get('x') ?? { min: Number.NaN, max: Number.NaN };
    expect(min).toBeGreaterThanOrEqual(-7);
    expect(max).toBeLessThanOrEqual(7);
    expect(max).toBeGreaterThan(0);
  });

  it.each(methods)('leaves out and counts runs with NaN or infinity, by %s', async (method) => {
    const bad = [sample(0, Number.NaN), sample(1, Number.POSITIVE_INFINITY)];
    const { ranges, ignored, warnings } = await calibrate(model(), runtime, [sample(1, 2), ...bad], {
      method,
    });
    expect(ignored).toBeGreaterThanOrEqual(4);
    expect([...ranges.values()].every(({ min, max }) => Number.isFinite(min) && Number.isFinite(max))).toBe(
      true,
    );
    expect(warnings.join()).toContain('"x" was NaN or infinite in 2 runs');
  });

  it.each(methods)('passes over tensors without elements, by %s', async (method) => {
    const { ranges } = await calibrate(model(), runtime, [sample(), sample(1, 2)], { method });
    expect(ranges.get('x')?.max).toBeCloseTo(2, 2);
  });

  it('reads no more samples than asked for, and warns of few', async () => {
    let read = 0;
    const samples = (function* (): Generator<TensorMap> {
      for (;;) yield sample((read += 1), 1);
    })();
    const seen: number[] = [];
    const { warnings } = await calibrate(model(), runtime, samples, {
      max: 3,
      onProgress: (progress) => seen.push(progress.samples),
    });
    expect(read).toBe(3);
    expect(seen).toEqual([1, 2, 3]);
    expect(warnings).toEqual(['Calibration saw 3 samples only; give at least 16, better 100.']);
  });

  it.each([
    ['no data', [], 'ERR_INLAY_FEED_MISSING'],
    ['another name', [{ z: sample(1, 2)['x'] as Tensor }], 'ERR_INLAY_FEED_MISSING'],
    ['another dtype', [{ x: new Tensor('int32', [1, 2], new Int32Array(2)) }], 'ERR_INLAY_FEED_DTYPE'],
    ['another shape', [{ x: new Tensor('float32', [3, 3], new Float32Array(9)) }], 'ERR_INLAY_FEED_SHAPE'],
  ])('refuses %s', async (_, samples, code) => {
    await expect(calibrate(model(), runtime, samples)).rejects.toMatchObject({ code });
  });

  it('refuses settings that make no sense', async () => {
    for (const options of [
      { percentile: 40 },
      { bins: 7 },
      { max: 0 },
      { method: 'guess' as CalibrationMethod },
    ]) {
      await expect(calibrate(model(), runtime, [sample(1, 2)], options)).rejects.toThrow(RangeError);
    }
  });

  it('stops between samples when it is aborted', async () => {
    const controller = new AbortController();
    const running = calibrate(
      model(),
      runtime,
      Array.from({ length: 9 }, () => sample(1, 2)),
      {
        signal: controller.signal,
        onProgress: () => controller.abort(new Error('enough')),
      },
    );
    await expect(running).rejects.toThrow('enough');
  });
});
