import { describe, expect, it } from 'vitest';
import { toFloat16Array } from '../../src/core/float.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph, encodeModel, parseModel, type NodeProto } from '../../src/onnx/index.ts';
import { compactRelease } from '../../src/publish/compact/compact.ts';
import { createDivergence } from '../../src/publish/compact/gate.ts';
import { roundOntoGrid } from '../../src/publish/compact/grid.ts';
import { roundFloats, roundIntegers, type RoundedFloats } from '../../src/publish/compact/round.ts';
import { snapRelease } from '../../src/publish/compact/snap.ts';
import { weightsOf } from '../../src/publish/compact/weights.ts';
import { createRandom } from '../../src/stats/random.ts';
import { halves } from '../../src/update/delta/halves.ts';

const rows = 64;
const count = 64 * rows;
const noise = createRandom(1);
const before = Float32Array.from({ length: count }, () => (noise() - 0.5) / 4);
const after = before.map((value) => value + (noise() - 0.5) / 256);

describe.each(['float16', 'bfloat16'] as const)('roundFloats of %s', (dtype) => {
  const { widen, narrow } = halves[dtype];
  const settle = (values: Float32Array): Float32Array<ArrayBuffer> => widen(narrow(values));
  const [from, to] = [settle(before), settle(after)];
  const rounded = (f: number, isStochastic: boolean, seed: number): RoundedFloats | undefined =>
    roundFloats(from, to, rows, { f, isStochastic, seed }, settle);
  const round = (f: number, isStochastic: boolean, seed: number): Float32Array =>
    rounded(f, isStochastic, seed)?.values ?? new Float32Array(0);

  const rms = Math.hypot(...to.map((value, k) => value - (from[k] as number))) / Math.sqrt(count);

  it('keeps the update on average, and each number within a step and the spacing of its type', () => {
    const seeds = 40;
    const spacing = dtype === 'float16' ? 2 ** -10 : 2 ** -7;
    let along = 0;
    let furthest = 0;
    for (let seed = 0; seed < seeds; seed += 1)
      round(1, true, seed).forEach((value, k) => {
        const [a, b] = [from[k] as number, to[k] as number];
        // Along its own direction, so that an update that shrinks shows.
        along += (Math.sign(b - a) * (value - b)) / (seeds * count);
        furthest = Math.max(furthest, Math.abs(value - b) - spacing * Math.abs(b));
      });
    expect(furthest).toBeLessThanOrEqual(rms);
    expect(Math.abs(along)).toBeLessThan(0.01 * rms);
  });

  it('moves most numbers not at all with large steps, and none further than half a step to the nearest', () => {
    const unmoved = round(4, true, 1).filter((value, k) => value === from[k]).length / count;
    expect(unmoved).toBeGreaterThan(0.6);
    const off = round(0.5, false, 1).map((value, k) => Math.abs(value - (to[k] as number)));
    expect(Math.max(...off)).toBeLessThan(0.25 * rms + (dtype === 'float16' ? 2 ** -13 : 2 ** -10));
  });

  it('gives numbers of its type that are a few steps from the base, and leaves alone what is not finite', () => {
    const { values, step } = rounded(1, true, 3) ?? { values: new Float32Array(1), step: 1 };
    const grid = from.map((value, k) => value + Math.round(((values[k] as number) - value) / step) * step);
    const off = values.filter((value, k) => value !== settle(grid.subarray(k, k + 1))[0]);
    expect([values.length, off.length]).toEqual([count, 0]);
    const infinite = to.slice().fill(Infinity, 1, 2);
    expect(roundFloats(from, infinite, rows, { f: 1, isStochastic: true, seed: 3 }, settle)).toBeUndefined();
  });
});

describe('roundIntegers', () => {
  it('takes no unit between half of the change and all of it', () => {
    const random = createRandom(4);
    const base = Int8Array.from({ length: 64 }, () => 100 * (random() - 0.5));
    for (let spread = 2; spread < 40; spread += 1) {
      const next = base.map((value) => value + spread * (random() - 0.5));
      const rms = Math.hypot(...next.map((value, k) => value - (base[k] as number))) / 8;
      const unitOf = (f: number, isStochastic: boolean): number | undefined =>
        roundIntegers(base, next, 1, { f, isStochastic, seed: 1 })?.unit;
      expect(unitOf(0.5, false) ?? 0).toBeLessThanOrEqual(rms / 2);
      expect(unitOf(1, true) ?? rms).toBeGreaterThanOrEqual(rms);
    }
  });
});

/** One graph with constants in every part that a constant can have. */
function partsModel(values: Float32Array): Uint8Array<ArrayBuffer> {
  const graph = createGraph({ name: 'parts', opset: 17 });
  const shape = [64, 64];
  const add = (name: string, dtype: 'float32' | 'float16' | 'int8' | 'uint8'): string => {
    const numbers = dtype === 'int8' ? Int8Array : Uint8Array;
    const data =
      dtype === 'float32'
        ? values
        : dtype === 'float16'
          ? toFloat16Array(values)
          : numbers.from(Array.from(values, (value) => 64 + 400 * value));
    return graph.initializer(name, new Tensor(dtype, shape, data));
  };
  const scale = graph.initializer('scale', new Tensor('float32', [], Float32Array.of(0.01)));
  graph.input('x', 'float32', [64, 64]);
  graph.input('x8', 'uint8', [64, 64]);
  graph.input('ids', 'int64', [64]);
  graph.node('MatMul', ['x', add('product', 'float32')]);
  graph.node('MatMul', [
    'x',
    graph.node('Cast', [graph.node('Transpose', [add('moved', 'float16')])], { to: 1 }),
  ]);
  graph.node('MatMul', ['x', graph.node('Concat', [add('joined', 'float32'), 'x'], { axis: 0 })]);
  graph.node('Gather', [add('embedding', 'float32'), 'ids']);
  graph.node('DequantizeLinear', [add('quantized', 'int8'), scale]);
  graph.node('DequantizeLinear', [graph.node('Gather', [add('rows', 'uint8'), 'ids']), scale]);
  graph.node('MatMulInteger', ['x8', add('integers', 'int8')]);
  graph.node('Gather', [add('vocabulary', 'uint8'), 'ids']);
  graph.node('Where', [add('mask', 'uint8'), 'x', add('positions', 'float32')]);
  graph.node('Add', ['x', graph.node('Mul', ['x', add('places', 'float32')])]);
  return encodeModel(graph.toModel());
}

describe('weights', () => {
  it('are what operators multiply with or look floats up in; masks, vocabularies and places are none', () => {
    expect(weightsOf(partsModel(before)).map(({ name }) => name)).toEqual([
      ...['product', 'moved', 'joined', 'embedding', 'quantized', 'rows', 'integers'],
    ]);
  });

  it('are found through functions and in nodes that hold constants', () => {
    const graph = createGraph({ name: 'functions', opset: 17 });
    graph.initializer('w', new Tensor('float32', [64, 64], before));
    graph.initializer('b', new Tensor('float32', [64, 64], before));
    const model = parseModel(encodeModel(graph.toModel()));
    const node = (opType: string, input: readonly string[], output: string, domain = ''): NodeProto => ({
      ...{ opType, input, output: [output], domain, attribute: [] },
    });
    const [held] = model.graph.initializer;
    const constant: NodeProto = {
      ...node('Constant', [], 'c'),
      attribute: held ? [{ name: 'value', type: 4, t: { ...held, name: 'held' } }] : [],
    };
    const file = encodeModel({
      ...model,
      graph: {
        ...model.graph,
        node: [constant, node('MatMul', ['x', 'c'], 'y'), node('Layer', ['y', 'b', 'w'], 'z', 'own')],
      },
      functions: [
        {
          ...{ name: 'Layer', domain: 'own', input: ['v', 'p', 'q'], output: ['o'], opsetImport: [] },
          node: [node('Gemm', ['v', 'q', 'p'], 'o')],
        },
      ],
    });
    expect(
      weightsOf(file)
        .map(({ name }) => name)
        .sort(),
    ).toEqual(['held', 'w']);
  });

  it('are all that rounding and snapping change', async () => {
    const [base, next] = [partsModel(before), partsModel(after)];
    const changed = (one: Uint8Array): readonly string[] =>
      ['product', 'moved', 'embedding', 'positions', 'places', 'mask', 'vocabulary'].filter(
        (name) => contentOf(one, name) !== contentOf(next, name),
      );
    const rounded = roundOntoGrid(base, next, { f: 2, isStochastic: true, seed: 1 }).bytes;
    expect(changed(rounded)).toEqual(['product', 'moved', 'embedding']);
    const gate = { judge: async () => ({ isGood: true, figures: [] }) };
    const { bytes } = await snapRelease({ next, bits: 6, gate });
    expect(changed(bytes)).toEqual(['product', 'embedding']);
  });
});

function contentOf(file: Uint8Array, name: string): string {
  const tensor = parseModel(file).graph.initializer.find((one) => one.name === name);
  return Buffer.from(tensor?.rawData ?? []).toString('hex');
}

describe('compactRelease', () => {
  const [base, next] = [partsModel(before), partsModel(after)];
  const gate = { judge: async () => ({ isGood: true, figures: [] }) };

  it('gives the same bytes for the same seed, and others for another', async () => {
    const release = async (seed: number): Promise<Buffer> =>
      Buffer.from((await compactRelease({ base, next, mode: 'small', gate, seed, seeds: 1 })).bytes);
    expect((await release(1)).equals(await release(1))).toBe(true);
    expect((await release(1)).equals(await release(2))).toBe(false);
  });

  it('publishes what was trained where rounding saves next to nothing, and says so', async () => {
    const encode = (_: Uint8Array, to: Uint8Array): Uint8Array => new Uint8Array(to === next ? 100 : 95);
    const { bytes, chosen, attempts, losslessBytes } = await compactRelease({
      base,
      next,
      mode: 'near',
      gate,
      encode,
    });
    expect([bytes === next, chosen, losslessBytes]).toEqual([true, undefined, 100]);
    expect(attempts[0]?.verdict.figures).toEqual([
      { name: 'share of the lossless patch', value: 0.95, limit: { atMost: 0.9 } },
    ]);
  });
});

describe('the divergence of float16 answers', () => {
  it('is that of their values', () => {
    const [p, q] = [Float32Array.of(1, 2, 4), Float32Array.of(1, 3, 4)];
    const meanOf = (dtype: 'float32' | 'float16'): number | undefined => {
      const toTensor = (values: Float32Array): Tensor =>
        new Tensor(dtype, [1, 3], dtype === 'float16' ? toFloat16Array(values) : values);
      const divergence = createDivergence();
      divergence.add(toTensor(p), toTensor(q));
      return divergence.mean;
    };
    expect(meanOf('float16')).toBeGreaterThan(0);
    expect(meanOf('float16')).toBe(meanOf('float32'));
  });
});
