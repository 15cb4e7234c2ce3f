import { describe, expect, it } from 'vitest';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph } from '../../src/onnx/build.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { quantizeDynamic } from '../../src/optimize/dynamic.ts';
import { floats, gauss, opsOf, runAll, runOnce, sqnrDb, type Feeds } from './optimize-golden.ts';

const WIDTH = 96;
const ROWS = 7;

/** Attention-like: three products of one value, then others, and a residual connection. */
function encoder(): ModelProto {
  const graph = createGraph({ name: 'rows', opset: 17 });
  graph.input('x', 'float32', ['n', WIDTH]);
  const matrix = (name: string, seed: number): string =>
    graph.initializer(name, new Tensor('float32', [WIDTH, WIDTH], gauss(WIDTH * WIDTH, seed)));
  const [q = '', k = '', v = ''] = ['q', 'k', 'v'].map((name, at) =>
    graph.node('MatMul', ['x', matrix(`w_${name}`, at + 1)]),
  );
  const gate = graph.node('Sigmoid', [graph.node('Mul', [q, k])]);
  const mixed = graph.node('Add', [graph.node('Mul', [gate, v]), 'x']);
  graph.node('MatMul', [graph.node('Relu', [mixed]), matrix('w_out', 9)], {}, { outputs: 'y' });
  graph.output('y', 'float32');
  return graph.toModel();
}

const batch = gauss(ROWS * WIDTH, 42);
const feeds = (data: Float32Array): Feeds => ({ x: floats([data.length / WIDTH, WIDTH], data) });
const row = (data: Float32Array, at: number): Float32Array => data.slice(at * WIDTH, (at + 1) * WIDTH);
/** The batch with another last row. */
const beside = (replace: (value: number, at: number) => number): Float32Array =>
  batch.map((value, at) => (at < (ROWS - 1) * WIDTH ? value : replace(value, at)));

describe.each([true, false])('row mode (scales by channel: %s)', (perChannel) => {
  const { model } = quantizeDynamic(encoder(), { kind: 'dynamic', mode: 'row', perChannel });

  it('gives a row alone, bit for bit, what it gives it in a batch', async () => {
    const alone = Array.from({ length: ROWS }, (_, at) => feeds(row(batch, at)));
    const [together = new Float32Array(), ...each] = await runAll(model, [feeds(batch), ...alone]);
    each.forEach((output, at) => expect(row(together, at)).toEqual(output));
  });

  it.each([
    ['ten times as large', (value: number) => value * 10],
    ['of zeros', () => 0],
    ['of NaN', () => Number.NaN],
    [
      'with an infinity',
      (value: number, at: number) => (at % WIDTH === 3 ? Number.POSITIVE_INFINITY : value),
    ],
    ['of the smallest numbers', () => 1e-45],
  ])('gives rows the same beside one %s', async (_case, replace) => {
    const [before = new Float32Array(), after = new Float32Array()] = await runAll(model, [
      feeds(batch),
      feeds(beside(replace)),
    ]);
    const others = (ROWS - 1) * WIDTH;
    expect(after.subarray(0, others)).toEqual(before.subarray(0, others));
    expect(before.some(Number.isNaN)).toBe(false);
  });

  it('gives zeros for a row of zeros through a product', async () => {
    const zeros = await runOnce(model, feeds(beside(() => 0)));
    expect(Array.from(row(zeros, ROWS - 1)).every((value) => value === 0)).toBe(true);
  });
});

describe('row mode with batches of no rows', () => {
  /** Two products of a value of three axes; what is between them says how many axes the second one has, or not. */
  const between = (op: string): ModelProto => {
    const graph = createGraph({ name: 'empty', opset: 17 });
    graph.input('x', 'float32', ['n', 'length', 64]);
    const [w = '', v = ''] = [32, 16].map((columns, at) =>
      graph.initializer(
        `w${at}`,
        new Tensor('float32', [at === 0 ? 64 : 32, columns], gauss(columns * (at === 0 ? 64 : 32), at)),
      ),
    );
    const shape = graph.initializer('shape', new Tensor('int64', [3], BigInt64Array.of(0n, 0n, 32n)));
    const first = graph.node('MatMul', ['x', w]);
    graph.node('MatMul', [graph.node(op, op === 'Relu' ? [first] : [first, shape]), v], {}, { outputs: 'y' });
    graph.output('y', 'float32', ['n', 'length', 16]);
    return graph.toModel();
  };

  it.each([
    ['Relu', 0],
    ['Reshape', 1],
  ])('gives none after %s, with an operator more only where the axes are not known', async (op, slices) => {
    const { model } = quantizeDynamic(between(op), { kind: 'dynamic', mode: 'row' });
    expect(opsOf(model).filter((one) => one === 'Slice')).toHaveLength(slices);
    const runs = [
      [0, 3],
      [2, 0],
    ].map((lead) => ({ x: floats([...lead, 64], new Float32Array(0)) }));
    expect((await runAll(model, runs)).map(({ length }) => length)).toEqual([0, 0]);
  });
});

describe('row mode beside tensor mode', () => {
  it('reckons the scales of an activation once for all who read it', () => {
    const { model } = quantizeDynamic(encoder(), { kind: 'dynamic', mode: 'row' });
    const ops = opsOf(model);
    expect(ops.filter((op) => op === 'MatMulInteger')).toHaveLength(4);
    expect(ops.filter((op) => op === 'ReduceMax')).toHaveLength(2);
  });

  it('is as exact, and stays so beside a large row where the other does not', async () => {
    const float = encoder();
    const [row10, small] = [feeds(beside((value) => value * 100)), feeds(batch)];
    const ratios = async (model: ModelProto): Promise<number[]> => {
      const [a, b] = await runAll(model, [small, row10]);
      const [x, y] = await runAll(float, [small, row10]);
      const others = (ROWS - 1) * WIDTH;
      return [
        sqnrDb(x as Float32Array, a as Float32Array),
        sqnrDb((y as Float32Array).subarray(0, others), (b as Float32Array).subarray(0, others)),
      ];
    };
    const [rows = 0, rowsBeside = 0] = await ratios(quantizeDynamic(float, { kind: 'dynamic' }).model);
    const [tensor = 0, tensorBeside = 0] = await ratios(
      quantizeDynamic(float, { kind: 'dynamic', mode: 'tensor' }).model,
    );
    expect(rows).toBeGreaterThan(tensor - 1);
    expect(Math.abs(rows - rowsBeside)).toBeLessThan(2);
    expect(tensorBeside).toBeLessThan(tensor - 10);
  });
});
