import { describe, expect, it } from 'vitest';
import { tensorFrom } from '../../src/core/tensor.ts';
import { calibrate } from '../../src/optimize/calibrate.ts';
import { floats, opsOf, runOnce, sqnrDb } from './optimize-golden.ts';
import { float32, runtime, scaled, model, apply } from './optimize-edge-fixture.ts';

describe('static quantization', () => {
  it('answers right where a bias is too large for the scales of its weights', async () => {
    const float = model((graph) => {
      graph.input('x', 'float32', ['n', 32]);
      graph.initializer('w', scaled([32, 24], 1e-6));
      graph.initializer('b', scaled([24], 1e3));
      graph.node('Gemm', ['x', 'w', 'b'], {}, { outputs: 'y' });
      graph.output('y', 'float32', ['n', 24]);
    });
    const feeds = { x: floats([3, 32]) };
    const { model: small, warnings } = await apply(float, { kind: 'static' }, feeds);
    expect(warnings.join('\n')).toContain('the bias "b"');
    expect(sqnrDb(await runOnce(float, feeds), await runOnce(small, feeds))).toBeGreaterThan(30);
  });

  it('gives a bias that two nodes share to each with its own scale', async () => {
    const float = model((graph) => {
      graph.input('x', 'float32', ['n', 32]);
      graph.initializer('b', float32([24], 8));
      const sums = [1, 30].map((by) => {
        const w = graph.initializer(`w${by}`, scaled([32, 24], by));
        return graph.node('Gemm', ['x', w, 'b']);
      });
      graph.node('Concat', sums, { axis: 1 }, { outputs: 'y' });
      graph.output('y', 'float32', ['n', 48]);
    });
    const feeds = { x: floats([3, 32]) };
    const { model: small } = await apply(float, { kind: 'static' }, feeds);
    expect(small.graph.initializer.filter(({ name = '' }) => /^b_quantized(_\d+)?$/.test(name))).toHaveLength(
      2,
    );
    expect(sqnrDb(await runOnce(float, feeds), await runOnce(small, feeds))).toBeGreaterThan(30);
  });

  for (const [what, attributes] of [
    ['dilated', { kernel_shape: [2, 2], dilations: [3, 3] }],
    [
      'rounded up with its padding',
      { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1], ceil_mode: 1, count_include_pad: 1 },
    ],
  ] as const) {
    it(`leaves a pool float that is ${what}, which the kernel with integers does otherwise`, async () => {
      const float = model((graph) => {
        graph.input('x', 'float32', [1, 4, 12, 12]);
        graph.initializer('w', scaled([4, 4, 3, 3], 0.2));
        const pooled = graph.node('AveragePool', [graph.node('Conv', ['x', 'w'])], attributes);
        graph.node('Conv', [pooled, graph.initializer('v', scaled([4, 4, 1, 1], 0.2))], {}, { outputs: 'y' });
        graph.output('y', 'float32', null);
      }, 19);
      const feeds = { x: floats([1, 4, 12, 12]) };
      const { model: small, kept } = await apply(float, { kind: 'static' }, feeds);
      expect(kept.map(({ op }) => op)).toEqual(['AveragePool']);
      expect(sqnrDb(await runOnce(float, feeds), await runOnce(small, feeds))).toBeGreaterThan(30);
    });
  }

  it('hands floats to nodes that stay floats, beside those that read integers', async () => {
    const float = model((graph) => {
      graph.input('x', 'float32', ['n', 32]);
      graph.initializer('w', scaled([32, 32], 0.2));
      const inner = graph.node('Relu', [graph.node('MatMul', ['x', 'w'])], {}, { outputs: 'inner' });
      const kept = graph.node('Erf', [inner]);
      graph.node('Add', [graph.node('MatMul', [inner, 'w']), kept], {}, { outputs: 'y' });
      graph.output('inner', 'float32', ['n', 32]);
      graph.output('y', 'float32', ['n', 32]);
    });
    const feeds = { x: floats([3, 32]) };
    const { model: small } = await apply(float, { kind: 'static' }, feeds);
    expect(small.graph.output).toEqual(float.graph.output);
    expect(opsOf(small)).toContain('Erf');
    expect(sqnrDb(await runOnce(float, feeds), await runOnce(small, feeds))).toBeGreaterThan(30);
  });

  it('opens with int8 activations where QuantizeLinear names the dtype of its output', async () => {
    const float = model((graph) => {
      graph.input('x', 'float32', ['n', 32]);
      graph.initializer('w', float32([32, 24]));
      graph.initializer('shape', tensorFrom('int64', [-1, 2, 12]));
      graph.node('Reshape', [graph.node('MatMul', ['x', 'w']), 'shape'], {}, { outputs: 'y' });
      graph.output('y', 'float32');
    }, 21);
    const feeds = { x: floats([3, 32]) };
    const { model: small } = await apply(float, { kind: 'static', activations: 'int8' }, feeds);
    expect(sqnrDb(await runOnce(float, feeds), await runOnce(small, feeds))).toBeGreaterThan(30);
  });

  it('calibrates a model that it finds nothing in, and still refuses samples that do not fit', async () => {
    const float = model((graph) => {
      graph.input('x', 'float32', ['n', 4]);
      graph.node('Exp', ['x'], {}, { outputs: 'y' });
      graph.output('y', 'float32', ['n', 4]);
    });
    expect(await calibrate(float, runtime, [{ x: float32([1, 4]) }])).toMatchObject({
      samples: 1,
      ranges: new Map(),
    });
    await expect(calibrate(float, runtime, [{ x: float32([1, 5]) }])).rejects.toMatchObject({
      code: 'ERR_INLAY_FEED_SHAPE',
    });
  });
});
