import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { concatBytes, toUtf8 } from '../../src/core/bytes.ts';
import { toFloat16Array } from '../../src/core/float.ts';
import type { Blob } from '../../src/core/store.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { encodePatch, type EncodeOptions } from '../../src/publish/delta/encode.ts';
import { createDeltaEncoder } from '../../src/publish/delta/encoder.ts';
import { explainPatch, type ExplainedSegment } from '../../src/publish/delta/explain.ts';
import { snapToGrid } from '../../src/publish/delta/snap.ts';
import type { Span } from '../../src/publish/delta/spans.ts';
import { sha256Hex } from '../../src/trust/keys.ts';
import { createDeltaPatcher } from '../../src/update/delta/patcher.ts';

const platform = nodePlatform();

interface TestTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

function safetensors(tensors: readonly TestTensor[], note = ''): Uint8Array<ArrayBuffer> {
  let at = 0;
  const header: Record<string, unknown> = { __metadata__: { note } };
  for (const { name, dtype, shape, bytes } of tensors) {
    header[name] = { dtype, shape, data_offsets: [at, (at += bytes.length)] };
  }
  const text = toUtf8(JSON.stringify(header));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setUint32(0, text.length, true);
  return concatBytes([length, text, ...tensors.map(({ bytes }) => bytes)]);
}

function toBlob(bytes: Uint8Array): Blob {
  return {
    sha256: sha256Hex(platform, bytes),
    sizeBytes: bytes.length,
    bytes: async () => new Uint8Array(bytes),
    read: async (offset, length) => new Uint8Array(bytes.subarray(offset, offset + length)),
  };
}

async function apply(base: Uint8Array, patch: Uint8Array, sizeBytes: number): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  const patcher = createDeltaPatcher(platform);
  for await (const piece of patcher.apply(toBlob(base), toBlob(patch), sizeBytes)) {
    pieces.push(new Uint8Array(piece));
  }
  return concatBytes(pieces);
}

/** Makes a patch and proves that it gives the file. */
async function encode(
  base: Uint8Array | undefined,
  next: Uint8Array,
  options: Omit<EncodeOptions, 'platform'> = {},
): Promise<{
  readonly patch: Uint8Array;
  readonly ratio: number;
  readonly segments: readonly ExplainedSegment[];
}> {
  const patch = encodePatch(base, next, { platform, ...options });
  const made = await apply(base ?? new Uint8Array(0), patch, next.length);
  expect(Buffer.compare(made, next)).toBe(0);
  const { ratio, segments } = explainPatch(patch, next);
  return { patch, ratio, segments };
}

/** mulberry32. */
function createRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b_79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const [rows, columns] = [128, 96];
const random = createRandom(7);
const normal = (): number => [...Array(12)].reduce((sum: number) => sum + random(), -6);
const weights = Float32Array.from({ length: rows * columns }, () => normal() / 10);
/** What moves a weight: rows move by different amounts. */
const moves = Float64Array.from(weights, (_, k) => normal() * 1e-4 * 2 ** (Math.floor(k / columns) % 5));
const tuned = weights.map((weight, k) => weight + (moves[k] ?? 0));

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array | Uint16Array | Int8Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);
const tensor = (
  name: string,
  values: Float32Array,
  shape: readonly number[] = [rows, columns],
): TestTensor => ({
  name,
  dtype: 'F32',
  shape,
  bytes: bytesOf(values),
});
const modesOf = (segments: readonly ExplainedSegment[], name: string) =>
  segments.filter(({ names }) => names.includes(name)).map(({ mode, predictor }) => `${mode} ${predictor}`);

const [before, after] = [safetensors([tensor('w', weights)]), safetensors([tensor('w', tuned)])];

describe('a patch of a model', () => {
  it('makes any file out of any other: hostile numbers, other shapes, names and orders', async () => {
    const dtypes = { F32: 4, F16: 2, BF16: 2, I8: 1, U8: 1, I64: 8 } as const;
    const hostile = [
      0, 0x8000_0000, 0x7fc0_0001, 0xffff_ffff, 0x7f80_0000, 0xff80_0000, 1, 0x8000_0001, 0x3f80_0000,
    ];
    const numbers = (size: number, seed: number): Uint8Array => {
      const pick = createRandom(seed);
      const bytes = new Uint8Array(Math.ceil(size / 4) * 4);
      const view = new DataView(bytes.buffer);
      for (let at = 0; at < bytes.length; at += 4) {
        if (pick() < 0.2) view.setUint32(at, hostile[Math.floor(pick() * hostile.length)] ?? 0, true);
        else view.setFloat32(at, pick() - 0.5, true);
      }
      return bytes.subarray(0, size);
    };
    const change = (bytes: Uint8Array, how: number, seed: number): Uint8Array => {
      if (how === 0) return bytes;
      if (how === 1) return numbers(bytes.length, seed);
      const [pick, changed] = [createRandom(seed), bytes.slice()];
      const every = how === 2 ? 1 : 40;
      for (let at = 0; at < changed.length; at += 4 * every) changed[at] = Math.floor(pick() * 256);
      return changed;
    };
    const one = fc.record({
      dtype: fc.constantFrom(...(Object.keys(dtypes) as (keyof typeof dtypes)[])),
      shape: fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 3 }),
      seed: fc.nat(),
      how: fc.integer({ min: 0, max: 3 }),
      isRenamed: fc.boolean(),
      isKept: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(one, { maxLength: 5 }),
        fc.boolean(),
        fc.string(),
        async (tensors, isReversed, note) => {
          const base: TestTensor[] = [];
          const next: TestTensor[] = [];
          tensors.forEach(({ dtype, shape, seed, how, isRenamed, isKept }, i) => {
            const size = shape.reduce((product, length) => product * length, dtypes[dtype]);
            const bytes = numbers(size, seed);
            base.push({ name: `t${i}`, dtype, shape, bytes });
            const name = isRenamed ? `renamed ${i}` : `t${i}`;
            if (isKept || how > 0) next.push({ name, dtype, shape, bytes: change(bytes, how, seed + 1) });
          });
          if (isReversed) next.reverse();
          await encode(safetensors(base), safetensors(next, note));
          await encode(undefined, safetensors(next, note));
        },
      ),
      { numRuns: 30, seed: 4 },
    );
  });

  it('makes any bytes out of any others', async () => {
    const pieces = fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(pieces, fc.array(fc.nat(5), { maxLength: 8 }), async (parts, order) => {
        await encode(concatBytes(parts), concatBytes(order.map((i) => parts[i] ?? Uint8Array.of(i))));
      }),
      { numRuns: 40, seed: 4 },
    );
  });

  it('copies what lies around bytes that changed, the very first one among them', async () => {
    const base = Uint8Array.from({ length: 4000 }, () => 256 * random());
    const { patch } = await encode(
      base,
      base.map((byte, i) => (i % 1000 === 0 ? byte ^ 1 : byte)),
    );
    expect(patch.length).toBeLessThan(400);
  });

  it('carries along what is in more pieces than a head may name', async () => {
    const base = new Uint8Array(Uint32Array.from({ length: 450_000 }, () => 2 ** 32 * random()).buffer);
    const next = base.map((byte, i) => (i % 64 === 63 ? byte ^ 1 : byte));
    const { patch } = await encode(base, next);
    expect(patch.length).toBeLessThan(1.001 * next.length);
  });

  it('takes tensors in any order, tied ones, and such as the file does not have', async () => {
    const base = new Uint8Array(Float32Array.from({ length: 4096 }, (_, i) => Math.sin(i)).buffer);
    const next = new Uint8Array(Float32Array.from({ length: 4096 }, (_, i) => Math.sin(i + 1e-5)).buffer);
    const span = (name: string, offset: number, height: number): Span => {
      return { name, numbers: 'float32', shape: [height, 64], offset, sizeBytes: 256 * height };
    };
    const spans = [span('b', 8192, 32), span('a', 0, 32), span('tied', 0, 32), span('beyond', 8192, 64)];
    const { segments } = await encode(base, next, { spans: { base: spans, next: spans } });
    expect(segments.map(({ mode, sizeBytes }) => [mode, sizeBytes])).toEqual([
      ['delta', 8192],
      ['delta', 8192],
    ]);
  });

  it('is the same each time', async () => {
    const encoder = createDeltaEncoder({ platform });
    expect(encoder.codec).toBe('idp');
    const again = encodePatch(before, after);
    expect(Buffer.compare(await encoder.encode(before, after), again)).toBe(0);
  });

  it('takes next to nothing for the same file, and for tensors in another order under other names', async () => {
    const same = await encode(after, after);
    expect(same.patch.length).toBeLessThan(100);
    const [one, two] = [
      safetensors([tensor('a', weights), tensor('b', tuned)]),
      safetensors([tensor('x', tuned), tensor('y', weights)]),
    ];
    expect((await encode(one, two)).patch.length).toBeLessThan(500);
  });

  it('takes as many bytes of a fine-tune as its noise has, and fewer of narrower numbers', async () => {
    const { ratio, segments } = await encode(before, after);
    expect(modesOf(segments, 'w')).toEqual(['delta same']);
    expect(ratio).toBeLessThan(0.61);
    const half = (values: Float32Array) =>
      safetensors([
        { name: 'w', dtype: 'F16', shape: [rows, columns], bytes: bytesOf(toFloat16Array(values)) },
      ]);
    expect((await encode(half(weights), half(tuned))).ratio).toBeLessThan(0.5);
    const byte = (values: Float32Array) =>
      safetensors([
        {
          name: 'w',
          dtype: 'I8',
          shape: [rows, columns],
          bytes: bytesOf(Int8Array.from(values, (x) => x * 250)),
        },
      ]);
    expect((await encode(byte(weights), byte(tuned))).ratio).toBeLessThan(0.12);
  });

  it('goes on from block to block', async () => {
    const shape = [3, 90_001];
    const long = Float32Array.from(
      { length: 270_003 },
      (_, k) => (weights[k % weights.length] ?? 0) + k / 2 ** 20,
    );
    const base = safetensors([tensor('w', long, shape)]);
    const moved = (step: number) =>
      long.map((value, k) => value + Math.round((moves[k % moves.length] ?? 0) / step) * step);
    const update = await encode(base, safetensors([tensor('w', moved(0.001), shape)]));
    expect(modesOf(update.segments, 'w')).toEqual(['update same']);
    const delta = await encode(base, safetensors([tensor('w', moved(1e-7), shape)]));
    expect(modesOf(delta.segments, 'w')).toEqual(['delta same']);
  });

  it('scales rows that were scaled', async () => {
    const folded = tuned.map((weight, k) => weight * (1 + 0.1 * Math.sin(Math.floor(k / columns))));
    const { ratio, segments } = await encode(before, safetensors([tensor('w', folded)]));
    expect(modesOf(segments, 'w')).toEqual(['delta gain']);
    expect(ratio).toBeLessThan(0.62);
    const byte = (scale: (row: number) => number) =>
      safetensors([
        {
          name: 'w',
          dtype: 'U8',
          shape: [rows, columns],
          bytes: Uint8Array.from(weights, (x, k) => 128.5 + x * 250 * scale(Math.floor(k / columns))),
        },
      ]);
    const requantized = await encode(
      byte(() => 1),
      byte((row) => 1 - 0.3 * Math.abs(Math.sin(row))),
    );
    expect(modesOf(requantized.segments, 'w')).toEqual(['delta requantized-unsigned']);
    expect(requantized.ratio).toBeLessThan(0.3);
  });

  it('finds the grid that a release was rounded onto, and takes the steps that it is told', async () => {
    const step = 0.0007;
    const round = (gain: number) =>
      weights.map((weight, k) => weight * gain + Math.round((moves[k] ?? 0) / step) * step);
    const found = await encode(before, safetensors([tensor('w', round(1))]));
    expect(modesOf(found.segments, 'w')).toEqual(['update same']);
    expect(found.ratio).toBeLessThan(0.06);
    const gain = new Float32Array(rows).fill(1.25);
    const steps = new Map([['w', { step, gain }]]);
    const told = await encode(before, safetensors([tensor('w', round(1.25))]), { steps });
    expect(modesOf(told.segments, 'w')).toEqual(['update gain']);
    expect(told.ratio).toBeLessThan(0.08);
    const wrong = await encode(before, after, { steps });
    expect(modesOf(wrong.segments, 'w')).toEqual(['delta same']);
  });

  it('codes what has no base by itself: a new block, a model that has nothing to do with the old one', async () => {
    const other = tensor(
      'v',
      Float32Array.from(weights, () => normal() / 10),
    );
    const added = await encode(before, safetensors([tensor('w', weights), other]));
    expect(modesOf(added.segments, 'v')).toEqual(['self undefined']);
    expect(added.ratio).toBeLessThan(0.44);
    const scratch = await encode(before, safetensors([{ ...other, name: 'w' }]));
    expect(scratch.ratio).toBeGreaterThan(0.8);
    expect(scratch.ratio).toBeLessThan(0.9);
  });

  it('keeps the rows that are there when rows are added or taken away', async () => {
    const [few, many] = [weights.subarray(0, 100 * columns), weights];
    const [small, large] = [few, many].map((values) =>
      safetensors([tensor('w', values, [values.length / columns, columns])]),
    );
    if (!small || !large) throw new Error('There are two.');
    expect((await encode(small, large)).ratio).toBeLessThan(0.2);
    expect((await encode(large, small)).patch.length).toBeLessThan(300);
  });

  it('is explained byte by byte', async () => {
    const { patch, segments } = await encode(before, after);
    const { tableBytes } = explainPatch(patch, after);
    const explained = segments.reduce((sum, { patchBytes }) => sum + patchBytes, tableBytes);
    expect(Math.abs(explained - patch.length)).toBeLessThan(0.02 * patch.length);
    const [coded] = segments.filter(({ mode }) => mode === 'delta');
    expect(coded).toMatchObject({ names: ['w'], rows, columns, numbers: 'float32', dominant: 'noise' });
    expect(() => explainPatch(patch.subarray(1))).toThrow(
      expect.objectContaining({ code: 'ERR_INLAY_PATCH' }),
    );
  });
});

describe('snapping to a grid', () => {
  it('takes the bits of the multiples, and none for numbers that lie on no grid', async () => {
    for (const [bits, most] of [
      [6, 0.25],
      [8, 0.32],
    ] as const) {
      const { ratio, segments } = await encode(undefined, snapToGrid(after, bits));
      expect(modesOf(segments, 'w')).toEqual(['grid undefined']);
      expect(ratio).toBeLessThan(most);
    }
    for (const odd of [-0, Number.NaN, Infinity, 2 ** -140, 2 ** 30 + 2 ** 7]) {
      const values = weights.map((value, k) => (k === 50 ? odd : Math.round(value * 64) / 64 + 0));
      const { segments } = await encode(undefined, safetensors([tensor('w', values)]));
      expect(modesOf(segments, 'w')).toEqual(['self undefined']);
    }
    const wide = weights.map((value, k) => (k === 50 ? 2 ** 17 : Math.round(value * 64) / 64 + 0));
    expect(modesOf((await encode(undefined, safetensors([tensor('w', wide)]))).segments, 'w')).toEqual([
      'grid undefined',
    ]);
  });

  it('moves no weight by more than half a step, and only weights of large tensors', () => {
    const bias = Float32Array.of(0.1, 0.2);
    const file = safetensors([tensor('w', weights), tensor('b', bias, [2])]);
    const snapped = snapToGrid(file, 6);
    expect(snapped.length).toBe(file.length);
    expect(snapped.subarray(-8)).toEqual(bytesOf(bias));
    const view = new DataView(snapped.buffer, file.length - 8 - 4 * weights.length);
    // The root mean square is about 0.1, so the grid has steps of 1/8 / 64.
    const step = 2 ** -9;
    const values = weights.map((_, k) => view.getFloat32(4 * k, true));
    expect(values.filter((value) => value % step !== 0)).toEqual(new Float32Array(0));
    const moved = values.map((value, k) => Math.abs(value - (weights[k] ?? 0)));
    expect(Math.max(...moved)).toBeLessThanOrEqual(step / 2);
    expect(() => snapToGrid(file, 0)).toThrow(RangeError);
  });

  it('keeps the largest numbers finite', () => {
    const large = weights.map((_, k) => (k % 2 === 0 ? 3.4028234e38 : -3.4028234e38));
    const snapped = snapToGrid(safetensors([tensor('w', large)]), 1).slice(-large.byteLength);
    const most = new Float32Array(snapped.buffer).reduce((top, value) => Math.max(top, Math.abs(value)), 0);
    expect(most).toBe(2 ** 127);
  });
});
