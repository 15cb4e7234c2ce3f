/** Small models for edge cases, and what is done to them. */
import { expect } from 'vitest';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph, type ModelBuilder } from '../../src/onnx/build.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { validateModel } from '../../src/onnx/validate.ts';
import { applyTechnique } from '../../src/optimize/apply.ts';
import { calibrate } from '../../src/optimize/calibrate.ts';
import { activationsOf } from '../../src/optimize/qdq-rules.ts';
import type { OptimizeRuntime } from '../../src/optimize/runtime.ts';
import type { Rewritten, Technique } from '../../src/optimize/technique.ts';
import { inferTypes } from '../../src/optimize/types.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';
import { gauss, type Feeds } from './optimize-golden.ts';

export const techniques: Readonly<Record<string, Technique>> = {
  'dynamic by row': { kind: 'dynamic' },
  'dynamic by tensor': { kind: 'dynamic', mode: 'tensor' },
  static: { kind: 'static' },
  blocks: { kind: 'nbits', bits: 8, blockSize: 16 },
  float16: { kind: 'float16' },
};
export const isThorough = process.env['INLAY_TEST_THOROUGH'] === '1';

/** Pruning changes values only. */
export const all: Readonly<Record<string, Technique>> = {
  ...techniques,
  pruning: { kind: 'prune', sparsity: 0.1 },
};

export const runtime: OptimizeRuntime = createNodeRuntime();

export const float32 = (shape: readonly number[], seed = 1): Tensor =>
  new Tensor('float32', shape, gauss(sizeOf(shape), seed));
export const sizeOf = (shape: readonly number[]): number => shape.reduce((size, length) => size * length, 1);

export function model(
  build: (graph: ModelBuilder) => void,
  opset: number | Record<string, number> = 17,
): ModelProto {
  const graph = createGraph({ name: 'edge', opset });
  build(graph);
  return graph.toModel();
}

/** y = x · w, of 32 by 24. */
export function product(weights: Tensor = float32([32, 24])): ModelProto {
  return model((graph) => {
    graph.input('x', 'float32', ['n', 32]);
    graph.initializer('w', weights);
    graph.node('MatMul', ['x', 'w'], {}, { outputs: 'y', name: 'product' });
    graph.output('y', 'float32', ['n', weights.shape.at(-1) ?? null]);
  });
}

/** Applies a technique to a model that onnxruntime takes, with the ranges that it has on its feeds. */
export async function apply(float: ModelProto, technique: Technique, feeds: Feeds): Promise<Rewritten> {
  const types = await inferTypes(float, runtime);
  const samples = [
    Object.fromEntries(
      Object.entries(feeds).map(([name, { type, dims, data }]) => [
        name,
        new Tensor(type, dims, data as Float32Array),
      ]),
    ),
  ];
  const ranges =
    technique.kind === 'static'
      ? (await calibrate(float, runtime, samples, { types, method: 'minmax' })).ranges
      : undefined;
  const rewritten = applyTechnique(float, technique, { types, ranges });
  expect(validateModel(rewritten.model).filter(({ severity }) => severity === 'error')).toEqual([]);
  return rewritten;
}

/** What can be told without a runtime. */
export function applyBlindly(float: ModelProto, technique: Technique, options = {}): Rewritten {
  const ranges = new Map(activationsOf(float).map((name) => [name, { min: -1, max: 1 }]));
  return applyTechnique(float, technique, { ranges, ...options });
}

export const scaled = (shape: readonly number[], by: number): Tensor =>
  new Tensor(
    'float32',
    shape,
    gauss(sizeOf(shape)).map((value) => value * by),
  );
export const typesOf = (
  ...names: readonly string[]
): ReadonlyMap<string, { dtype: 'float32'; shape: null }> =>
  new Map(names.map((name) => [name, { dtype: 'float32', shape: null }]));
