import { describe, expect, it } from 'vitest';
import { Tensor } from '../../../src/core/tensor.ts';
import { createGraph } from '../../../src/onnx/build.ts';
import { listCandidates, workloadOf, type CandidateContext } from '../../../src/optimize/candidates.ts';
import { completeGoal } from '../../../src/optimize/options.ts';

const products = { matMul: 2_000_000, conv: 0, depthwise: 0, embedding: 0, lstm: 0 };
const images = { matMul: 1000, conv: 200_000, depthwise: 500, embedding: 0, lstm: 0 };

function list(given: Partial<CandidateContext>): { tried: string[]; not: Record<string, string> } {
  const { batches = [1], goal = completeGoal({}, batches) } = given;
  const context = {
    target: 'node-cpu',
    workload: products,
    isCalibrated: true,
    ...given,
    batches,
    goal,
  } as const;
  const { candidates, dismissed } = listCandidates(context);
  return {
    tried: candidates.map(({ name }) => name),
    not: Object.fromEntries(dismissed.map(({ name, reason }) => [name, reason])),
  };
}

describe('listCandidates', () => {
  it('tries dynamic integers first where matrices are multiplied, and blocks for single rows', () => {
    expect(list({}).tried).toEqual([
      'int8-dynamic',
      'int8-static',
      'int8-block128',
      'int4-block32',
      'int4-block128',
    ]);
  });

  it('takes one scale for each row where there are batches', () => {
    const { tried, not } = list({ batches: [8] });
    expect(tried).toEqual(['int8-row', 'int8-static']);
    expect(not['int8-dynamic']).toMatch(/rows beside it/);
    expect(not['int8-block128']).toMatch(/single rows/);
  });

  it('tries static integers first where there are convolutions, and never with calibration missing', () => {
    expect(list({ workload: images }).tried[0]).toBe('int8-static');
    const { tried, not } = list({ workload: images, isCalibrated: false });
    expect(tried).not.toContain('int8-static');
    expect(not['int8-static']).toMatch(/calibration data/);
    expect(not['int8-conv']).toMatch(/no kernel/);
  });

  it('never tries blocks in WebAssembly, where convolutions of integers need no calibration', () => {
    const { tried, not } = list({ target: 'wasm', workload: images, isCalibrated: false });
    expect(tried).toContain('int8-conv');
    expect(not['int4-block32']).toMatch(/thirty times slower/);
  });

  it('tries what quantizes LSTMs at each run where answers may depend on the batch', () => {
    const workload = { matMul: 0, conv: 0, depthwise: 0, embedding: 0, lstm: 1000 };
    expect(list({ workload }).tried).toEqual(['int8-dynamic']);
    expect(list({ workload, batches: [8] }).tried).toEqual([]);
    expect(list({ workload, target: 'webgpu' }).tried).toEqual(['fp16']);
    const both = { workload: { ...workload, conv: 1000 }, isCalibrated: true };
    expect(list(both).tried.slice(0, 2)).toEqual(['int8-static', 'int8-static-lstm']);
    expect(list({ ...both, batches: [8] }).not['int8-static-lstm']).toMatch(/rows beside it/);
    expect(list({ ...both, isCalibrated: false }).tried).not.toContain('int8-static-lstm');
  });

  it('leaves depthwise convolutions in floats in WebAssembly only', () => {
    const depthwiseOf = (target: 'wasm' | 'node-cpu'): unknown => {
      const context = { target, workload: images, goal: completeGoal(), batches: [1], isCalibrated: true };
      const [first] = listCandidates(context).candidates;
      return first?.technique.kind === 'static' ? (first.technique.depthwise ?? true) : undefined;
    };
    expect([depthwiseOf('wasm'), depthwiseOf('node-cpu')]).toEqual([false, true]);
  });

  it('tries no products of integers on GPUs', () => {
    expect(list({ target: 'webgpu' }).tried).toEqual([
      'fp16',
      'int8-block128',
      'int4-block32',
      'int4-block128',
    ]);
  });

  it('tries half precision on processors only where size is a goal, and never pruning', () => {
    expect(list({}).not['fp16']).toMatch(/smaller/);
    expect(list({ goal: completeGoal({ maxSizeRatio: 0.6 }) }).tried).toContain('fp16');
    expect(list({}).not['pruned']).toMatch(/accuracy/);
  });

  it('takes seven bits where products saturate', () => {
    const { candidates } = listCandidates({
      target: 'node-cpu',
      workload: products,
      goal: completeGoal(),
      batches: [1],
      isCalibrated: true,
      saturates: true,
    });
    expect(candidates[0]?.technique).toMatchObject({ reduceRange: true });
    expect(candidates[1]?.technique).toMatchObject({ reduceRange: true });
  });

  it('tries nothing on a model without weights', () => {
    expect(list({ workload: { matMul: 0, conv: 0, depthwise: 0, embedding: 0, lstm: 0 } }).tried).toEqual([]);
  });
});

describe('workloadOf', () => {
  it('counts constant weights by the kind of operator, and no others', () => {
    const graph = createGraph({ name: 'test', opset: 17 });
    graph.input('x', 'float32', ['batch', 4]);
    const floats = (...shape: number[]): Tensor =>
      new Tensor('float32', shape, new Float32Array(shape.reduce((a, b) => a * b, 1)));
    graph.node('MatMul', ['x', graph.initializer('w', floats(4, 6))]);
    graph.node('MatMul', ['x', 'x']);
    graph.input('i', 'float32', [1, 3, 8, 8]);
    graph.node('Conv', ['i', graph.initializer('k', floats(5, 3, 3, 3))]);
    graph.node('Conv', ['i', graph.initializer('d', floats(3, 1, 3, 3))], { group: 3 });
    expect(workloadOf(graph.toModel())).toEqual({
      matMul: 24,
      conv: 135,
      depthwise: 27,
      embedding: 0,
      lstm: 0,
    });
  });
});
