import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ModelError } from '../../../src/core/errors.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { createGraph } from '../../../src/onnx/build.ts';
import type { ModelProto } from '../../../src/onnx/messages.ts';
import { fromTensorProto } from '../../../src/onnx/tensors.ts';
import { pruneModel } from '../../../src/optimize/prune.ts';

function product(values: readonly number[], shape: readonly number[] = [values.length, 1]): ModelProto {
  const graph = createGraph({ name: 'test', opset: 17 });
  graph.input('x', 'float32', ['n', shape[0] ?? 1]);
  graph.initializer('w', new Tensor('float32', shape, Float32Array.from(values)));
  graph.node('MatMul', ['x', 'w'], {}, { outputs: 'y', name: 'product' });
  graph.output('y', 'float32', null);
  return graph.toModel();
}

function weights({ graph }: ModelProto): readonly number[] {
  const [constant] = graph.initializer;
  return constant === undefined ? [] : Array.from(fromTensorProto(constant).data as Float32Array);
}

const prune = (model: ModelProto, sparsity: number): ModelProto =>
  pruneModel(model, { kind: 'prune', sparsity }).model;

describe('pruning by magnitude', () => {
  it('sets the smallest elements to zero, the first of equal ones first', () => {
    expect(weights(prune(product([3, -1, 1, -4, 1, 2, -0.5, 8]), 0.375))).toEqual([3, 0, 0, -4, 1, 2, 0, 8]);
  });

  it('sets exactly the share that is asked for, and never a larger element before a smaller one', () => {
    const values = fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), {
      minLength: 1,
      maxLength: 60,
    });
    fc.assert(
      fc.property(values, fc.double({ min: 0, max: 0.99, noNaN: true }), (given, sparsity) => {
        const before = Array.from(Float32Array.from(given));
        const after = weights(prune(product(given), sparsity));
        const count = Math.round(sparsity * given.length);
        const sorted = before.map(Math.abs).sort((a, b) => a - b);
        const dropped = before.filter((value, i) => value !== 0 && after[i] === 0).map(Math.abs);
        expect(after.every((value, i) => value === 0 || value === before[i])).toBe(true);
        expect(after.filter((value) => value === 0).length).toBeGreaterThanOrEqual(count);
        expect(dropped.length).toBeLessThanOrEqual(count);
        expect(Math.max(0, ...dropped)).toBeLessThanOrEqual(sorted[Math.max(0, count - 1)] ?? 0);
      }),
      { numRuns: 50 },
    );
  });

  it('does the same with weights that are too large to be sorted', () => {
    // Magnitudes repeat, so that many are equal.
    const values = Array.from({ length: 20_000 }, (_, i) => ((i * 7919) % 1000) / 64 - 7);
    const order = values
      .map((value, i) => [Math.abs(value), i] as const)
      .sort(([a, i], [b, j]) => a - b || i - j);
    const zeros = new Set(order.slice(0, 9_001).map(([, i]) => i));
    const expected = values.map((value, i) => (zeros.has(i) ? 0 : value));
    expect(weights(prune(product(values), 9_001 / 20_000))).toEqual(expected);
    expect(() => prune(product([...values, NaN]), 0.5)).toThrow(ModelError);
  });

  it('leaves weights of one axis as they are', () => {
    const model = product([1, 2, 3, 4], [4]);
    const { model: same, changed } = pruneModel(model, { kind: 'prune', sparsity: 0.5 });
    expect(same).toBe(model);
    expect(changed).toEqual([]);
  });

  it('says that nothing gets faster, and what is lost', () => {
    const { changed, warnings } = pruneModel(product([3, -1, 1, -4]), { kind: 'prune', sparsity: 0.5 });
    expect(changed).toEqual([
      { node: 'product', op: 'MatMul', reason: '50.0 % of 4 weights are zero, which leaves 11.3 dB' },
    ]);
    expect(warnings.join()).toContain('runs no faster');
  });

  it('leaves what is excluded', () => {
    const technique = { kind: 'prune', sparsity: 0.5 } as const;
    const { changed, kept } = pruneModel(product([1, 2]), technique, { exclude: ['product'] });
    expect([changed.length, kept.map(({ reason }) => reason)]).toEqual([0, ['it is excluded']]);
  });

  it('refuses NaN, and shares that are none', () => {
    expect(() => prune(product([1, NaN]), 0.5)).toThrow(ModelError);
    expect(() => prune(product([1, 2]), 1)).toThrow(RangeError);
    expect(() => prune(product([1, 2]), NaN)).toThrow(RangeError);
  });
});
