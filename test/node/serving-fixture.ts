/** Models for tests of serving: `x` float32 [batch, 2] unless they say otherwise. */
import { Tensor } from 'inlay';
import { createGraph, encodeModel, type GraphBuilder } from 'inlay/onnx';

function modelOf(name: string, build: (graph: GraphBuilder) => void): Uint8Array<ArrayBuffer> {
  const graph = createGraph({ name, opset: 17 });
  build(graph);
  return encodeModel(graph.toModel());
}

/**
 * `y = x + 1`, after as many rounds of work as the largest of `rounds` int64 [batch] says: a run as long as one likes.
 */
export const addOne: Uint8Array<ArrayBuffer> = modelOf('add-one', (graph) => {
  graph.input('x', 'float32', ['batch', 2]);
  graph.input('rounds', 'int64', ['batch']);
  const body = graph.subgraph('body');
  body.input('i', 'int64', []);
  body.input('go', 'bool', []);
  body.input('work', 'float32', [1]);
  body.node('Identity', ['go'], {}, { outputs: 'goOn' });
  body.node('Sin', ['work'], {}, { outputs: 'next' });
  body.output('goOn', 'bool', []);
  body.output('next', 'float32', [1]);
  graph.initializer('zero', new Tensor('float32', [1], new Float32Array(1)));
  graph.initializer('one', new Tensor('float32', [1], Float32Array.of(1)));
  const most = graph.node('ReduceMax', ['rounds'], { keepdims: 0 });
  const nothing = graph.node('Loop', [most, '', 'zero'], { body });
  graph.node('Add', ['x', graph.node('Add', ['one', nothing])], {}, { outputs: 'y' });
  graph.output('y', 'float32', ['batch', 2]);
});

/** Looks `index` int64 [batch] up in a table of four rows: `y` float32 [batch, 2] is twice the index and its square. */
export const lookUp: Uint8Array<ArrayBuffer> = modelOf('look-up', (graph) => {
  graph.input('index', 'int64', ['batch']);
  graph.initializer('table', new Tensor('float32', [4, 2], Float32Array.of(0, 0, 2, 1, 4, 4, 6, 9)));
  graph.node('Gather', ['table', 'index'], {}, { outputs: 'y' });
  graph.output('y', 'float32', ['batch', 2]);
});

/** Softmax over the batch: what a row gives depends on its neighbours. */
export const acrossRows: Uint8Array<ArrayBuffer> = modelOf('across-rows', (graph) => {
  graph.input('x', 'float32', ['batch', 2]);
  graph.node('Softmax', ['x'], { axis: 0 }, { outputs: 'y' });
  graph.output('y', 'float32', ['batch', 2]);
});

/** `y = √x`, which is NaN below 0. */
export const root: Uint8Array<ArrayBuffer> = modelOf('root', (graph) => {
  graph.input('x', 'float32', ['batch', 2]);
  graph.node('Sqrt', ['x'], {}, { outputs: 'y' });
  graph.output('y', 'float32', ['batch', 2]);
});
