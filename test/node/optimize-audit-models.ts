/** Small models in the forms that quantization gives them, and in forms that go wrong. */
import type { TensorMap } from '../../src/core/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph, type GraphBuilder, type ModelBuilder, type ModelProto } from '../../src/onnx/index.ts';

const sizeOf = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);
const float32 = (shape: readonly number[], value: number | ((i: number) => number)): Tensor =>
  new Tensor(
    'float32',
    shape,
    Float32Array.from({ length: sizeOf(shape) }, (_, i) => (typeof value === 'number' ? value : value(i))),
  );
/** The value everywhere, or else what looks like weights. */
const int8 = (shape: readonly number[], value?: number): Tensor =>
  new Tensor(
    'int8',
    shape,
    Int8Array.from({ length: sizeOf(shape) }, (_, i) => value ?? ((i * 37) % 200) - 100),
  );
const uint8 = (shape: readonly number[], value?: number): Tensor =>
  new Tensor(
    'uint8',
    shape,
    Uint8Array.from({ length: sizeOf(shape) }, (_, i) => value ?? (i * 37) % 200),
  );

/** Dense 16 → 16 and Relu on `x` float32 [batch, 16]. */
export function dense(): ModelProto {
  const graph = createGraph({ name: 'dense', opset: 17 });
  graph.input('x', 'float32', ['batch', 16]);
  graph.initializer(
    'w',
    float32([16, 16], (i) => Math.sin(i)),
  );
  graph.node('Relu', [graph.node('MatMul', ['x', 'w'], {}, { name: 'fc' })], {}, { outputs: 'y' });
  graph.output('y', 'float32', ['batch', 16]);
  return graph.toModel();
}

/** Feeds of {@link dense} and of others that take `x` float32 [batch, 16]. */
export const denseFeeds = (rows: number): TensorMap => ({
  x: float32([rows, 16], (i) => Math.cos(i * 1.7)),
});

/** How {@link residual} is quantized. */
interface ResidualOptions {
  readonly activations?: 'int8' | 'uint8';
  /** Relu behind the first convolution, with the range of its activations starting at 0 or below. */
  readonly relu?: 'fits' | 'reaches-below';
  readonly hasQuantizedResults?: boolean;
}

/** Two convolutions and the sum of what they give, between QuantizeLinear and DequantizeLinear. */
export function residual(options: ResidualOptions = {}): ModelProto {
  const { activations = 'uint8', relu, hasQuantizedResults = true } = options;
  const graph = createGraph({ name: 'residual', opset: 17 });
  const shape = [1, 8, 8, 8];
  const typed = activations === 'int8' ? int8 : uint8;
  const lowest = activations === 'int8' ? -128 : 0;
  graph.initializer('scale', float32([], 0.05));
  graph.initializer('zero', typed([], lowest + 100));
  graph.initializer('bottom', typed([], lowest));
  graph.initializer('w.scale', float32([8], 0.01));
  graph.initializer('w.zero', int8([8], 0));
  const quantize = (value: string, name: string, zero = 'zero'): string => {
    const quantized = graph.node('QuantizeLinear', [value, 'scale', zero], {}, { name: `${name}.q` });
    return graph.node('DequantizeLinear', [quantized, 'scale', zero], {}, { name: `${name}.dq` });
  };
  const convolve = (value: string, name: string): string => {
    const stored = graph.initializer(`${name}.w`, int8([8, 8, 3, 3]));
    const weights = graph.node('DequantizeLinear', [stored, 'w.scale', 'w.zero'], { axis: 0 });
    return graph.node('Conv', [value, weights], { pads: [1, 1, 1, 1], kernel_shape: [3, 3] }, { name });
  };
  graph.input('x', 'float32', shape);
  let first = convolve(quantize('x', 'in'), 'conv0');
  if (relu !== undefined) first = graph.node('Relu', [first], {}, { name: 'relu' });
  if (hasQuantizedResults) first = quantize(first, 'a', relu === 'fits' ? 'bottom' : 'zero');
  let second = convolve(first, 'conv1');
  if (hasQuantizedResults) second = quantize(second, 'b');
  const sum = graph.node('Add', [second, first], {}, { name: 'add' });
  graph.node('Neg', [hasQuantizedResults ? quantize(sum, 'c') : sum], {}, { outputs: 'y' });
  graph.output('y', 'float32', shape);
  return graph.toModel();
}

/** A convolution of integers in the form of dynamic quantization. */
export function convInteger(weights: 'int8' | 'uint8'): ModelProto {
  const graph = createGraph({ name: 'conv-integer', opset: 17 });
  graph.input('x', 'float32', [1, 8, 8, 8]);
  const [quantized, scale, zero] = dynamicallyQuantized(graph);
  graph.initializer('w', (weights === 'int8' ? int8 : uint8)([8, 8, 3, 3]));
  const product = graph.node('ConvInteger', [quantized, 'w', zero], { pads: [1, 1, 1, 1] }, { name: 'conv' });
  finishDynamic(graph, product, scale);
  graph.output('y', 'float32', [1, 8, 8, 8]);
  return graph.toModel();
}

/** A product of integers in the form of dynamic quantization; `isShared`: something else reads it half-way. */
export function matMulInteger({ isShared }: { readonly isShared: boolean }): ModelProto {
  const graph = createGraph({ name: 'matmul-integer', opset: 17 });
  graph.input('x', 'float32', ['batch', 16]);
  const [quantized, scale, zero] = dynamicallyQuantized(graph);
  graph.initializer('w', int8([16, 16]));
  const product = graph.node('MatMulInteger', [quantized, 'w', zero], {}, { name: 'fc' });
  const cast = finishDynamic(graph, product, scale);
  graph.output('y', 'float32', ['batch', 16]);
  if (isShared) {
    graph.node('Neg', [cast], {}, { outputs: 'z' });
    graph.output('z', 'float32', ['batch', 16]);
  }
  return graph.toModel();
}

function dynamicallyQuantized(graph: ModelBuilder): [string, string, string] {
  return graph.node('DynamicQuantizeLinear', ['x'], {}, { outputs: 3 }) as [string, string, string];
}

function finishDynamic(graph: ModelBuilder, product: string, scale: string): string {
  const cast = graph.node('Cast', [product], { to: 1 });
  graph.initializer('w.scale', float32([], 0.01));
  graph.node('Mul', [cast, graph.node('Mul', [scale, 'w.scale'])], {}, { outputs: 'y' });
  return cast;
}

/** A product with a scale for each row. */
export function rowProduct(): ModelProto {
  const graph = createGraph({ name: 'row', opset: 18 });
  graph.input('x', 'float32', ['batch', 16]);
  graph.initializer('axes', new Tensor('int64', [1], BigInt64Array.of(-1n)));
  graph.initializer('most', float32([], 127));
  graph.initializer('one', float32([], 1));
  graph.initializer('middle', uint8([], 128));
  graph.initializer('w', int8([16, 16]));
  const largest = graph.node('ReduceMax', [graph.node('Abs', ['x']), 'axes'], { keepdims: 1 });
  const scale = graph.node('Div', [largest, 'most']);
  const quantized = graph.node('QuantizeLinear', [graph.node('Div', ['x', scale]), 'one', 'middle']);
  const product = graph.node('MatMulInteger', [quantized, 'w', 'middle'], {}, { name: 'fc' });
  graph.node('Mul', [graph.node('Cast', [product], { to: 1 }), scale], {}, { outputs: 'y' });
  graph.output('y', 'float32', ['batch', 16]);
  return graph.toModel();
}

/** A product of 4-bit blocks on `x` float32 [batch, 64], and a bias of that shape. */
export function blockProduct(options: {
  readonly bias: readonly number[];
  readonly level: number;
}): ModelProto {
  const graph = createGraph({ name: 'blocks', opset: { '': 17, 'com.microsoft': 1 } });
  graph.input('x', 'float32', ['batch', 64]);
  graph.initializer('w', uint8([16, 2, 16]));
  graph.initializer('scales', float32([16, 2], 0.01));
  graph.initializer('bias', float32(options.bias, 1));
  const attributes = { K: 64, N: 16, bits: 4, block_size: 32, accuracy_level: options.level };
  const place = { domain: 'com.microsoft', name: 'fc' };
  const product = graph.node('MatMulNBits', ['x', 'w', 'scales'], attributes, place);
  graph.node('Add', [product, 'bias'], {}, { outputs: 'y', name: 'bias-add' });
  graph.output('y', 'float32', ['batch', 16]);
  return graph.toModel();
}

/** Branches whose bodies dequantize a constant of the graph around them. */
export function bodiesWithConstant(): ModelProto {
  const graph = createGraph({ name: 'bodies', opset: 17 });
  graph.input('x', 'float32', [16, 16]);
  graph.input('on', 'bool', []);
  graph.initializer('w', int8([16, 16]));
  graph.initializer('scale', float32([], 0.01));
  const branch = (name: string, op: string): GraphBuilder => {
    const body = graph.subgraph(name);
    const weights = body.node('DequantizeLinear', ['w', 'scale']);
    const product = body.node('Mul', ['x', weights], {}, { name: `${name}.mul` });
    body.node(op, [product], {}, { outputs: `${name}.y` });
    body.output(`${name}.y`, 'float32', [16, 16]);
    return body;
  };
  const bodies = { then_branch: branch('then', 'Neg'), else_branch: branch('else', 'Abs') };
  graph.node('If', ['on'], bodies, { outputs: 'y' });
  graph.output('y', 'float32', [16, 16]);
  return graph.toModel();
}

/** Float16 inside, with operators that the processor computes in float32 only. */
export function halfPrecision(): ModelProto {
  const graph = createGraph({ name: 'half', opset: 17 });
  graph.input('x', 'float32', ['batch', 16]);
  const half = graph.node('Cast', ['x'], { to: 10 });
  const twice = graph.node('Concat', [half, half], { axis: 1 });
  const soft = graph.node('Softmax', [twice], {}, { name: 'softmax' });
  graph.node('Cast', [soft], { to: 1 }, { outputs: 'y' });
  graph.output('y', 'float32', ['batch', 32]);
  return graph.toModel();
}
