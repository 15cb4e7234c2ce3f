/** A network of three layers that is trained here, and then trained on for another task: the pair of a fine-tune. */
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph, encodeModel } from '../../src/onnx/index.ts';
import { createRandom } from '../../src/stats/random.ts';

interface Layer {
  readonly inputs: number;
  readonly outputs: number;
  readonly weights: Float32Array<ArrayBuffer>;
  readonly biases: Float32Array<ArrayBuffer>;
}

/** Inputs with their classes. */
export interface Examples {
  readonly x: Float32Array<ArrayBuffer>;
  readonly classes: Uint8Array;
}

export const width = 32;
export const classes = 8;
const sizes = [width, 128, 64, classes] as const;

function normal(random: () => number): number {
  let sum = -6;
  for (let i = 0; i < 12; i += 1) sum += random();
  return sum;
}

/** Noisy points around two centres of each class; `turn` moves the centres. */
export function draw(count: number, seed: number, turn: number): Examples {
  const places = createRandom(7);
  const from = Float32Array.from({ length: 2 * classes * width }, () => normal(places));
  const to = Float32Array.from({ length: 2 * classes * width }, () => normal(places));
  const random = createRandom(seed);
  const x = new Float32Array(count * width);
  const labels = new Uint8Array(count);
  for (let row = 0; row < count; row += 1) {
    const centre = Math.floor(random() * 2 * classes);
    labels[row] = centre % classes;
    for (let i = 0; i < width; i += 1) {
      const at = centre * width + i;
      x[row * width + i] =
        (from[at] as number) * (1 - turn) + (to[at] as number) * turn + 1.5 * normal(random);
    }
  }
  return { x, classes: labels };
}

function create(): readonly Layer[] {
  const random = createRandom(1);
  return sizes.slice(1).map((outputs, l) => {
    const inputs = sizes[l] as number;
    const scale = Math.sqrt(2 / inputs);
    const weights = Float32Array.from({ length: inputs * outputs }, () => normal(random) * scale);
    return { inputs, outputs, weights, biases: new Float32Array(outputs) };
  });
}

/** Adam (Kingma and Ba 2015), one example after the other in batches of 32. */
function train(layers: readonly Layer[], { x, classes: labels }: Examples, rate: number): void {
  const parts = layers.flatMap(({ weights, biases }) => [weights, biases]);
  const state = parts.map(({ length }) => [new Float64Array(length), new Float64Array(length)] as const);
  for (let step = 1, row = 0; row < labels.length; step += 1) {
    const gradients = parts.map(({ length }) => new Float64Array(length));
    for (const end = Math.min(labels.length, row + 32); row < end; row += 1)
      backward(layers, x.subarray(row * width, (row + 1) * width), labels[row] as number, gradients);
    parts.forEach((part, at) => {
      const [m, v] = state[at] as readonly [Float64Array, Float64Array];
      gradients[at]?.forEach((sum, i) => {
        const g = sum / 32;
        m[i] = 0.9 * (m[i] as number) + 0.1 * g;
        v[i] = 0.999 * (v[i] as number) + 0.001 * g * g;
        const move = m[i] / (1 - 0.9 ** step) / (Math.sqrt(v[i] / (1 - 0.999 ** step)) + 1e-8);
        part[i] = (part[i] as number) - rate * move;
      });
    });
  }
}

function backward(
  layers: readonly Layer[],
  x: Float32Array,
  label: number,
  sums: readonly Float64Array[],
): void {
  const values: ArrayLike<number>[] = [x];
  for (const [l, { inputs, outputs, weights, biases }] of layers.entries()) {
    const from = values[l] as ArrayLike<number>;
    const to = Float64Array.from(biases);
    for (let i = 0; i < inputs; i += 1) {
      const value = from[i] as number;
      if (value === 0) continue;
      for (let j = 0; j < outputs; j += 1)
        to[j] = (to[j] as number) + value * (weights[i * outputs + j] as number);
    }
    values.push(l + 1 < layers.length ? to.map((value) => Math.max(0, value)) : to);
  }
  const logits = values.at(-1) as Float64Array;
  const largest = Math.max(...logits);
  const exps = logits.map((value) => Math.exp(value - largest));
  const total = exps.reduce((sum, value) => sum + value, 0);
  let back = exps.map((value, j) => value / total - (j === label ? 1 : 0));
  for (let l = layers.length - 1; l >= 0; l -= 1) {
    const { inputs, outputs, weights } = layers[l] as Layer;
    const [gw, gb] = [sums[2 * l] as Float64Array, sums[2 * l + 1] as Float64Array];
    const from = values[l] as ArrayLike<number>;
    const before = new Float64Array(inputs);
    for (let j = 0; j < outputs; j += 1) gb[j] = (gb[j] as number) + (back[j] as number);
    for (let i = 0; i < inputs; i += 1) {
      const value = from[i] as number;
      if (l > 0 && value === 0) continue;
      for (let j = 0; j < outputs; j += 1) {
        const at = i * outputs + j;
        gw[at] = (gw[at] as number) + value * (back[j] as number);
        before[i] = (before[i] as number) + (weights[at] as number) * (back[j] as number);
      }
    }
    back = before;
  }
}

/** `x` float32 [batch, 32] gives `logits` float32 [batch, 8]. */
function toModel(layers: readonly Layer[]): Uint8Array<ArrayBuffer> {
  const graph = createGraph({ name: 'pair', opset: 17 });
  graph.input('x', 'float32', ['batch', width]);
  let value = 'x';
  layers.forEach(({ inputs, outputs, weights, biases }, l) => {
    const w = graph.initializer(`w${l}`, new Tensor('float32', [inputs, outputs], weights.slice()));
    const b = graph.initializer(`b${l}`, new Tensor('float32', [outputs], biases.slice()));
    const isLast = l + 1 === layers.length;
    value = graph.node('Gemm', [value, w, b], {}, { outputs: isLast ? 'logits' : `h${l}` });
    if (!isLast) value = graph.node('Relu', [value], {});
  });
  graph.output('logits', 'float32', ['batch', classes]);
  return encodeModel(graph.toModel());
}

/** What was trained first, and what became of it on a task that moved. */
export function trainPair(): {
  readonly base: Uint8Array<ArrayBuffer>;
  readonly next: Uint8Array<ArrayBuffer>;
} {
  const layers = create();
  train(layers, draw(2400, 3, 0), 3e-3);
  const base = toModel(layers);
  train(layers, draw(1200, 5, 0.5), 3e-4);
  return { base, next: toModel(layers) };
}
