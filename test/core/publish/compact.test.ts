import { describe, expect, it } from 'vitest';
import { Tensor } from '../../../src/core/tensor.ts';
import { createGraph, encodeModel } from '../../../src/onnx/index.ts';
import { roundOntoGrid } from '../../../src/publish/compact/grid.ts';
import { gainOf, roundFloats, roundIntegers } from '../../../src/publish/compact/round.ts';
import { chooseAnchor } from '../../../src/publish/compact/anchor.ts';
import { weightsOf } from '../../../src/publish/compact/weights.ts';
import { createDivergence, createMetricGate } from '../../../src/publish/compact/gate.ts';
import type { Targets } from '../../../src/trust/metadata.ts';
import { createRandom } from '../../../src/stats/random.ts';

/** Sums of four uniform numbers: near enough to normal ones, of variance 1/3. */
function noise(length: number, seed: number, scale: number): Float32Array<ArrayBuffer> {
  const random = createRandom(seed);
  return Float32Array.from({ length }, () => scale * (random() + random() + random() + random() - 2));
}

function moved(base: Float32Array, update: Float32Array, gain = 1): Float32Array<ArrayBuffer> {
  return base.map((value, i) => gain * value + (update[i] as number));
}

function energy(values: Float32Array): number {
  return values.reduce((sum, value) => sum + value * value, 0);
}

function isOnGrid(value: number, p: number, step: number): boolean {
  const q = Math.round((value - p) / step);
  return Math.abs(q) <= 127 && value === Math.fround(p + q * step);
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((byte, at) => byte === b[at]);
}

/** A model of constants that are all multiplied with, by name. */
function constants(tensors: Readonly<Record<string, Tensor>>): Uint8Array<ArrayBuffer> {
  const graph = createGraph({ name: 'test', opset: 17 });
  graph.input('x', 'float32', ['a', 'b']);
  for (const [name, tensor] of Object.entries(tensors))
    graph.node('MatMul', ['x', graph.initializer(name, tensor)]);
  return encodeModel(graph.toModel());
}

const rows = 64;
const size = 4096;
const near = { f: 1 / 4, isStochastic: false, seed: 1 } as const;
const small = { f: 4, isStochastic: true, seed: 1 } as const;
const base = noise(size, 1, 0.1);
const update = noise(size, 2, 0.001);
const next = moved(base, update);

describe('roundFloats', () => {
  it('gives numbers that are the base plus whole steps in float64, rounded once', () => {
    for (const rounding of [near, small]) {
      const { values, step, gain } = roundFloats(base, next, rows, rounding) ?? expect.fail();
      expect(gain).toBeUndefined();
      expect(values.every((value, k) => isOnGrid(value, base[k] as number, step))).toBe(true);
    }
  });

  it('keeps the update whole on average at four sigma, where rounding to the nearest loses it', () => {
    const kept = (rounding: Parameters<typeof roundFloats>[3]): number => {
      const { values } = roundFloats(base, next, rows, rounding) ?? { values: base };
      const along = values.reduce(
        (sum, value, k) => sum + (value - (base[k] as number)) * (update[k] as number),
        0,
      );
      return along / energy(update);
    };
    expect(Math.abs(kept(small) - 1)).toBeLessThan(0.15);
    expect(kept({ ...small, isStochastic: false })).toBeLessThan(0.5);
  });

  it('predicts rows by gains where channels were scaled, so that steps follow what is left', () => {
    const scaled = next.map((value, k) => value * (1 + (Math.floor(k / rows) % 5) / 10));
    const { values, step, gain } = roundFloats(base, scaled, rows, { ...small, f: 2 }) ?? expect.fail();
    expect(gain?.[4]).toBeCloseTo(1.4, 2);
    const error = values.map((value, k) => value - (scaled[k] as number));
    expect(energy(error)).toBeLessThan(10 * energy(update));
    const predicted = Float64Array.from(base, (value, k) => value * (gain?.[Math.floor(k / rows)] as number));
    expect(values.every((value, k) => isOnGrid(value, predicted[k] as number, step))).toBe(true);
  });

  it('leaves a tensor that has a number that is not finite, or an update too far out, as it is', () => {
    const broken = next.slice();
    broken[7] = Number.NaN;
    const far = next.slice();
    far[7] = 1000;
    expect([broken, far, base].map((one) => roundFloats(base, one, rows, near))).toEqual(
      Array(3).fill(undefined),
    );
    expect(roundFloats(broken, next, rows, small)).toBeUndefined();
  });

  it('takes a larger step, rather than none, for an update that is a little too far out', () => {
    const far = next.slice();
    far[7] = (base[7] as number) + 0.02;
    const { values, step } = roundFloats(base, far, rows, { ...near, f: 1 / 8 }) ?? expect.fail();
    expect(step * 126).toBeCloseTo(0.02, 4);
    expect(values[7]).toBeCloseTo(far[7], 4);
  });
});

describe('gainOf', () => {
  it('finds none where an update is noise: they would cost more than they save', () => {
    expect(gainOf(base, next, rows)).toBeUndefined();
    expect(gainOf(base, moved(base, update, 1.2), rows)).toHaveLength(rows);
  });
});

describe('roundIntegers', () => {
  it('rounds to whole multiples of a unit without wrapping around', () => {
    const before = Int8Array.from({ length: size }, (_, k) => (k % 256) - 128);
    const after = before.map((value, k) => Math.max(-128, Math.min(127, value + ((k * 7) % 9) - 4)));
    const { values, unit } = roundIntegers(before, after, 1, { ...small, f: 2 }) ?? expect.fail();
    expect(unit).toBe(5);
    expect(values.every((value, k) => Math.abs(value - (after[k] as number)) < unit)).toBe(true);
    expect(roundIntegers(before, before, 1, small)).toBeUndefined();
  });
});

describe('roundOntoGrid', () => {
  const build = (weights: Float32Array<ArrayBuffer>): Uint8Array<ArrayBuffer> =>
    constants({
      w: new Tensor('float32', [rows, size / rows], weights),
      norm: new Tensor('float32', [size], weights),
      few: new Tensor('float32', [rows, rows - 1], weights.slice(rows)),
    });

  it('keeps tensors of one axis, small ones and everything between them exact', () => {
    const file = build(next);
    const { bytes, steps, tensors } = roundOntoGrid(build(base), file, small);
    expect([...steps.keys()]).toEqual(['w']);
    expect(tensors.map(({ name, isRounded }) => [name, isRounded])).toEqual([
      ['w', true],
      ['norm', false],
      ['few', false],
    ]);
    const differing = [...bytes.keys()].filter((at) => bytes[at] !== file[at]);
    const { offset = 0, sizeBytes = 0 } = weightsOf(file).find(({ name }) => name === 'w') ?? {};
    expect(differing.length).toBeGreaterThan(size);
    expect(differing.every((at) => at >= offset && at < offset + sizeBytes)).toBe(true);
  });

  it('gives the same file for the same seed, and another for another', () => {
    const rounded = (seed: number): Uint8Array =>
      roundOntoGrid(build(base), build(next), { ...small, seed }).bytes;
    expect(isSame(rounded(1), rounded(1))).toBe(true);
    expect(isSame(rounded(1), rounded(2))).toBe(false);
  });

  it('refuses steps at which its rounding is biased', () => {
    for (const rounding of [
      { ...near, f: 1 },
      { ...small, f: 0.5 },
    ]) {
      expect(() => roundOntoGrid(build(base), build(next), rounding)).toThrow(RangeError);
    }
  });
});

describe('createMetricGate', () => {
  it('tells whether high or low is good by the model that was trained, and refuses what loses more of the gain', async () => {
    const [a, b, good, bad] = [1, 2, 3, 4].map((byte) => Uint8Array.of(byte)) as [
      Uint8Array<ArrayBuffer>,
      Uint8Array<ArrayBuffer>,
      Uint8Array<ArrayBuffer>,
      Uint8Array<ArrayBuffer>,
    ];
    const losses = [0, 5, 3, 3.01, 3.2];
    for (const sign of [1, -1]) {
      const metric = async ([byte = 0]: Uint8Array): Promise<number> => sign * (losses[byte] as number);
      const gate = await createMetricGate({ base: a, next: b, metric, maxLoss: 0.01 });
      expect((await gate.judge(good)).isGood).toBe(true);
      expect((await gate.judge(bad)).isGood).toBe(false);
    }
  });
});

describe('createDivergence', () => {
  it('is zero for equal answers and that of the distributions otherwise, whether they come as logits or not', () => {
    const divergence = (right: number[], given: number[]): number | undefined => {
      const sum = createDivergence();
      sum.add(
        new Tensor('float32', [1, 2], Float32Array.from(right)),
        new Tensor('float32', [1, 2], Float32Array.from(given)),
      );
      return sum.mean;
    };
    const expected = 0.75 * Math.log(0.75 / 0.5) + 0.25 * Math.log(0.25 / 0.5);
    expect(divergence([1, 2], [1, 2])).toBe(0);
    expect(divergence([0.75, 0.25], [0.5, 0.5])).toBeCloseTo(expected, 5);
    expect(divergence([Math.log(3), 0], [7, 7])).toBeCloseTo(expected, 5);
    expect(divergence([1, 2], [Number.NaN, 1])).toBeNaN();
  });
});

describe('chooseAnchor', () => {
  const release = (seq: number, anchor?: number): Targets['targets'] => ({
    [`models/m/${seq}/m.onnx`]: {
      length: 1,
      hashes: { sha256: hashOf(seq) },
      custom: {
        model: 'm',
        version: String(seq),
        seq,
        ...(anchor !== undefined && {
          compact: { mode: 'small', step: '2', seed: 1, anchor: hashOf(anchor) },
        }),
      },
    },
  });
  const hashOf = (seq: number): string => String(seq).repeat(64);
  const targets = (...all: readonly Targets['targets'][]): Targets => ({
    _type: 'targets',
    spec_version: '1.0.31',
    version: 1,
    expires: '2030-01-01T00:00:00Z',
    targets: Object.assign({}, ...all) as Targets['targets'],
  });
  const choice = { model: 'm', version: '4' };
  const rounded = targets(release(1), release(2), release(3, 2));

  it('is the newest release that is whole, and then the same one for all that are rounded', () => {
    expect(chooseAnchor(targets(release(1), release(2)), choice).version).toBe('2');
    expect(chooseAnchor(rounded, choice).version).toBe('2');
    // Publishing the same version again has to give the same bytes.
    expect(chooseAnchor(rounded, { ...choice, version: '3' }).version).toBe('2');
    expect(chooseAnchor(rounded, { ...choice, from: '1' }).version).toBe('1');
  });

  it('is the newest that is whole where the one before is withdrawn', () => {
    const { targets: all } = targets(release(1), release(2), release(3, 2), release(4, 2));
    const custom = { models: { m: { revoked: [2] } } };
    const left = chooseAnchor({ ...targets(all), custom }, { ...choice, version: '5' });
    expect(left.version).toBe('1');
  });

  it('is never one that was rounded itself, unless training went on from its file', () => {
    expect(() => chooseAnchor(rounded, { ...choice, from: '3' })).toThrow(
      /more with each release; round around 2, its anchor/,
    );
    expect(chooseAnchor(rounded, { ...choice, isTrainedFromPublished: true }).version).toBe('3');
  });

  it('is none that is withdrawn, not there, or not earlier than what is published', () => {
    const custom = { models: { m: { revoked: [1] } } };
    const from = (version: string) => () =>
      chooseAnchor({ ...rounded, custom }, { ...choice, from: version });
    expect(from('1')).toThrow(/is withdrawn.*--compact-from/);
    expect(from('9')).toThrow(/no version 9/);
    expect(from('2')().version).toBe('2');
    for (const version of ['1', '2'])
      expect(() => chooseAnchor(rounded, { ...choice, version, from: '2' })).toThrow(/is not earlier than/);
  });

  it('says so where there is none', () => {
    expect(() => chooseAnchor(targets(), choice)).toThrow(/no release/);
  });
});
