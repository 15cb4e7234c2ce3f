/** Backends in child processes as built, and models that end them. */
import type { Backend } from '../../src/core/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph, encodeModel } from '../../src/onnx/index.ts';
import { spawnNodeProcess, type NodeProcessOptions } from '../../src/workers/node-process.ts';
import type { NodeWorkerData } from '../../src/workers/node.ts';
import { createWorkerBackend, type WorkerBackendOptions } from '../../src/workers/realm.ts';
import { workerScript } from './backend-libraries.ts';

export { temporaryFiles } from './backend-libraries.ts';

/** A backend whose sessions live in a child process. */
export function processBackend(
  library: NodeWorkerData['library'],
  options: Partial<WorkerBackendOptions> & NodeProcessOptions = {},
): Backend {
  const { maxBytes, ...more } = options;
  return createWorkerBackend({
    name: library,
    placement: 'process',
    spawn: () => spawnNodeProcess(workerScript, { library }, maxBytes === undefined ? {} : { maxBytes }),
    ...more,
  });
}

/** Adds 1 to `x` float32 [1], `times` int64 [] times: a run that takes as long as its feed says. */
export function loopModel(): Uint8Array {
  const graph = createGraph({ name: 'loop', opset: 17 });
  graph.input('x', 'float32', [1]);
  graph.input('times', 'int64', []);
  const body = graph.subgraph('body');
  body.input('i', 'int64', []);
  body.input('go', 'bool', []);
  body.input('sum', 'float32', [1]);
  body.constant('one', new Tensor('float32', [1], new Float32Array([1])));
  body.node('Identity', ['go'], {}, { outputs: 'goOn' });
  body.node('Add', ['sum', 'one'], {}, { outputs: 'next' });
  body.output('goOn', 'bool', []);
  body.output('next', 'float32', [1]);
  graph.node('Loop', ['times', '', 'x'], { body }, { outputs: 'y' });
  graph.output('y', 'float32', [1]);
  return encodeModel(graph.toModel());
}

/** Feeds of {@link loopModel}. */
export function loopFeeds(times: bigint): Readonly<Record<string, Tensor>> {
  return {
    x: new Tensor('float32', [1], new Float32Array(1)),
    times: new Tensor('int64', [], new BigInt64Array([times])),
  };
}

/** Fills `size` int64 [] float32 numbers with one: a run that takes as much memory as its feed says. */
export function fillModel(): Uint8Array {
  const graph = createGraph({ name: 'fill', opset: 17 });
  graph.input('size', 'int64', [1]);
  const one = new Tensor('float32', [1], new Float32Array([1]));
  const filled = graph.node('ConstantOfShape', ['size'], { value: one });
  graph.node('ReduceMax', [graph.node('Exp', [filled])], { keepdims: 0 }, { outputs: 'y' });
  graph.output('y', 'float32', []);
  return encodeModel(graph.toModel());
}

/** Multiplies `x` float32 [1, size] by weights that are in another file: the model, and that file. */
export function externalModel(size: number, weightsFile: string): readonly [Uint8Array, Uint8Array] {
  const graph = createGraph({ name: 'external', opset: 17 });
  graph.input('x', 'float32', [1, size]);
  graph.initializer('w', new Tensor('float32', [1, 1], new Float32Array(1)));
  graph.node('MatMul', ['x', 'w'], {}, { outputs: 'y' });
  graph.output('y', 'float32', [1, size]);
  const model = graph.toModel();
  const weights = new Uint8Array(new Float32Array(size * size).fill(0.25).buffer);
  const external = {
    name: 'w',
    dims: [size, size],
    dataType: 1,
    dataLocation: 1,
    externalData: [
      { key: 'location', value: weightsFile },
      { key: 'length', value: String(weights.length) },
    ],
  };
  return [encodeModel({ ...model, graph: { ...model.graph, initializer: [external] } }), weights];
}
