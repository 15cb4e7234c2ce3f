/** Models for tests of publishing: `x` float32 [batch, 2] gives `y` float32 [batch, 2] unless they say otherwise. */
import { Tensor, tensorFrom } from '../../src/core/tensor.ts';
import { createGraph, encodeModel, type GraphBuilder } from '../../src/onnx/index.ts';
import type { Backend } from '../../src/core/backend.ts';
import { processBackend } from './worker-fixture.ts';

/** In place of the one of `publish-backend.ts`, whose worker is a file that only the build has. */
export function openCheckBackend(timeoutMs: number): Backend {
  return processBackend('onnxruntime-node', {
    runTimeoutMs: timeoutMs,
    createTimeoutMs: Math.max(timeoutMs, 20_000),
    maxLosses: 1,
  });
}

/** Builds a model around `x`. */
export function modelOf(build: (graph: GraphBuilder) => void): Uint8Array<ArrayBuffer> {
  const graph = createGraph({ name: 'test', opset: 17 });
  build(graph);
  return encodeModel(graph.toModel());
}

/** `y = x · factor`, with weights that compress as badly as is asked for. */
export function scale(factor: number, weights: Float32Array = new Float32Array(0)): Uint8Array<ArrayBuffer> {
  return modelOf((graph) => {
    graph.input('x', 'float32', ['batch', 2]);
    graph.initializer('factor', new Tensor('float32', [1], Float32Array.of(factor)));
    if (weights.length > 0) graph.initializer('spare', new Tensor('float32', [weights.length], weights));
    graph.node('Mul', ['x', 'factor'], {}, { outputs: ['y'] });
    graph.output('y', 'float32', ['batch', 2]);
  });
}

/** It loads, and no run of it works. */
export const failsAtRun: Uint8Array<ArrayBuffer> = modelOf((graph) => {
  graph.input('x', 'float32', ['batch', 2]);
  graph.initializer('seven', tensorFrom('int64', [7, 1]));
  graph.node('Reshape', ['x', 'seven'], {}, { outputs: ['y'] });
  graph.output('y', 'float32', [7, 1]);
});

/** An operator that no library has. */
export const unknownOperator: Uint8Array<ArrayBuffer> = modelOf((graph) => {
  graph.input('x', 'float32', ['batch', 2]);
  graph.node('Frobnicate', ['x'], {}, { outputs: ['y'] });
  graph.output('y', 'float32', ['batch', 2]);
});

/** Gives other answers each time. */
export const random: Uint8Array<ArrayBuffer> = modelOf((graph) => {
  graph.input('x', 'float32', ['batch', 2]);
  graph.node('Add', ['x', graph.node('RandomNormalLike', ['x'], {})], {}, { outputs: ['y'] });
  graph.output('y', 'float32', ['batch', 2]);
});

/** Takes `x` float32 [frames, 3, width] with at least four columns: sizes that nobody can guess. */
export const needsWidth: Uint8Array<ArrayBuffer> = modelOf((graph) => {
  graph.input('x', 'float32', ['frames', 3, 'width']);
  graph.initializer('shape', tensorFrom('int64', [-1, 3, 4]));
  graph.node('Reshape', ['x', 'shape'], {}, { outputs: ['y'] });
  graph.output('y', 'float32', ['rest', 3, 4]);
});

/** The same signature but another input dtype. */
export const otherSignature: Uint8Array<ArrayBuffer> = modelOf((graph) => {
  graph.input('x', 'int64', ['batch', 2]);
  graph.node('Cast', ['x'], { to: 1 }, { outputs: ['y'] });
  graph.output('y', 'float32', ['batch', 2]);
});
