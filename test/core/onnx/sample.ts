/** A small model of many parts, for the tests here. */
import { tensorFrom } from '../../../src/core/tensor.ts';
import { createGraph } from '../../../src/onnx/build.ts';
import type { ModelProto } from '../../../src/onnx/messages.ts';

/** A perceptron with a symbolic batch, a branch, a float16 weight and constants. */
export function sampleModel(): ModelProto {
  const graph = createGraph({ name: 'sample', opset: 17, producer: { name: 'inlay', version: '1.2.3' } });
  graph.input('x', 'float32', ['batch', 3]);
  graph.input('flag', 'bool', []);
  graph.initializer(
    'weight',
    tensorFrom('float32', [
      [1, 2],
      [3, 4],
      [5, 6],
    ]),
  );
  graph.initializer('bias16', tensorFrom('float16', [0.5, -0.5]));
  const bias = graph.node('Cast', ['bias16'], { to: 1 });
  const product = graph.node('MatMul', ['x', 'weight']);
  const sum = graph.node('Add', [product, bias]);
  const positive = graph.subgraph('positive');
  positive.output(positive.node('Relu', [sum]), 'float32', ['batch', 2]);
  const scaled = graph.subgraph('scaled');
  const two = scaled.constant('two', tensorFrom('float32', 2));
  scaled.output(scaled.node('Mul', [sum, two]), 'float32', ['batch', 2]);
  graph.node('If', ['flag'], { then_branch: positive, else_branch: scaled }, { outputs: 'y' });
  graph.output('y', 'float32', ['batch', 2]);
  return graph.toModel();
}
