import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import { concatBytes } from '../../src/core/bytes.ts';
import { isInlayError } from '../../src/core/errors.ts';
import type { DigestPlatform } from '../../src/core/digest.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { applyPatch } from '../../src/update/delta/apply.ts';
import { encodeBlock } from '../../src/update/delta/encode-block.ts';
import type { PatchHead, Segment } from '../../src/update/delta/head.ts';
import { scriptLoops, type HotLoops } from '../../src/update/delta/hot.ts';
import { createDeltaPatcher } from '../../src/update/delta/patcher.ts';
import { createCoding, openBlock, type Cursor } from '../../src/update/delta/rans.ts';
import { parsePatch, readHead } from '../../src/update/delta/read-head.ts';
import { openLoops } from '../../src/update/delta/wasm.ts';
import { moduleSource } from '../../scripts/delta-wasm.mjs';
import { MODULE, PLACES } from '../../src/update/delta/wasm-module.ts';
import { writeHead } from '../../src/update/delta/write-head.ts';
import { blobOf, seeded, sha256Of } from '../core/update/delta-fixture.ts';
import { makePatch } from './delta-encoder.ts';
import { smallCases } from './delta-plans.ts';

const zeros = new Uint8Array(32);
/** Takes every block for the one that its head names, so that what is in it gets to be decoded. */
const blind: DigestPlatform = { ...nodePlatform(), digest: async () => zeros };

const cases = smallCases().map((one) => {
  const sealed = makePatch(one.base, one.target, one.plans, { isBased: one.isBased ?? true });
  const { head, payloadOffset } = parsePatch(sealed);
  const blocks = head.blocks.map(({ sizeBytes }) => ({ sizeBytes, sha256: zeros }));
  const open = concatBytes([writeHead({ ...head, blocks }), sealed.subarray(payloadOffset)]);
  return { name: one.name, base: blobOf(one.base), sizeBytes: one.target.length, head, sealed, open };
});
type Fuzzed = (typeof cases)[number];
const light = cases.filter(({ open }) => open.length < 500);

/** Largest piece, and largest read. */
const bounds = { piece: 262_144, read: 1_048_576 };

/** What becomes of a patch: the bytes that came out, or that it was refused. Anything else is thrown. */
async function outcomeOf(
  platform: DigestPlatform,
  { base, sizeBytes }: Fuzzed,
  bytes: Uint8Array,
): Promise<number | 'refused'> {
  let made = 0;
  const patch = { ...base, sizeBytes: bytes.length, read: readerOf(bytes) };
  try {
    await applyPatch({ platform, loops: scriptLoops, base, patch, sizeBytes }, async (piece) => {
      if (piece.length > bounds.piece) throw new Error('A piece is too large.');
      made += piece.length;
    });
  } catch (error) {
    if (isInlayError(error) && error.code === 'ERR_INLAY_PATCH') return 'refused';
    throw error;
  }
  return made;
}

const readerOf =
  (bytes: Uint8Array) =>
  async (offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> => {
    if (offset + length > bytes.length || length > bounds.read) throw new Error('A read is too large.');
    return bytes.slice(offset, offset + length);
  };

function mutate(bytes: Uint8Array, other: Uint8Array, random: () => number): Uint8Array {
  const below = (limit: number): number => Math.floor(random() * limit);
  const at = below(bytes.length);
  const some = 1 + below(8);
  const changed = bytes.slice();
  switch (below(8)) {
    case 0:
    case 1:
      changed[at] = (bytes[at] as number) ^ (1 << below(8));
      return changed;
    case 2:
      changed[at] = [0, 1, 127, 128, 255][below(5)] as number;
      return changed;
    case 3:
      return bytes.slice(0, at);
    case 4:
      return concatBytes([bytes.subarray(0, at), bytes.subarray(at + some)]);
    case 5:
      return concatBytes([bytes.subarray(0, at + some), bytes.subarray(at)]);
    case 6:
      return concatBytes([bytes.subarray(0, at), other.subarray(below(other.length))]);
    default:
      // Somewhere in the payload of most, where the numbers are.
      for (let k = 0; k < some; k += 1)
        changed[bytes.length - 1 - below(Math.min(60, bytes.length))] = below(256);
      return changed;
  }
}

describe('a patch that was tampered with', () => {
  it('is refused, or makes as many bytes as it should, in 100,000 ways', async () => {
    const random = seeded(1);
    let refused = 0;
    const { stackTraceLimit } = Error;
    // Nobody looks at these errors, and stacks are what takes longest.
    Error.stackTraceLimit = 0;
    onTestFinished(() => {
      Error.stackTraceLimit = stackTraceLimit;
    });
    for (let run = 0; run < 100_000; run += 1) {
      // Tables of many contexts take long: they have a turn now and then.
      const from = run % 16 === 0 ? cases : light;
      const one = from[Math.floor(random() * from.length)] as Fuzzed;
      const other = from[Math.floor(random() * from.length)] as Fuzzed;
      const outcome = await outcomeOf(blind, one, mutate(one.open, other.open, random));
      if (outcome === 'refused') refused += 1;
      else if (outcome !== one.sizeBytes) throw new Error(`${one.name} makes ${outcome} bytes.`);
    }
    // Some flips change a number to another one: the hashes are there for those.
    expect(refused).toBeGreaterThan(80_000);
  });

  it('is refused whatever happens to its blocks, as hashes are looked at', async () => {
    const random = seeded(2);
    const platform = nodePlatform();
    for (let run = 0; run < 1000; run += 1) {
      const one = cases[run % cases.length] as Fuzzed;
      const { payloadOffset } = parsePatch(one.sealed);
      const [head, payload] = [one.sealed.subarray(0, payloadOffset), one.sealed.subarray(payloadOffset)];
      if (payload.length === 0) continue;
      const changed = mutate(payload, payload, random);
      if (Buffer.compare(changed, payload) === 0) continue;
      expect(await outcomeOf(platform, one, concatBytes([head, changed]))).toBe('refused');
    }
  });
});

describe('a head', () => {
  const { head } = cases.find(({ name }) => name === 'update, scales' || name === 'update') as Fuzzed;
  const update = head.segments[0] as Extract<Segment, { mode: 'update' }>;
  const one = {
    mode: 'delta',
    numbers: 'float32',
    rows: 1,
    columns: 1,
    baseOffset: 0,
    predictor: 'same',
  } as const;
  const constant = { kind: 'constant', context: 0 } as const;
  const flat = { symbols: 2, frequencies: Uint16Array.of(4095, 1) };
  const small: PatchHead = {
    base: sha256Of(zeros),
    target: zeros,
    baseBytes: 8,
    targetBytes: 4,
    tables: [flat],
    segments: [{ ...one, context: constant, table: 0 }],
    blocks: [{ sizeBytes: 12, sha256: zeros }],
  };
  const read = (changes: Partial<PatchHead>, payload = 12): PatchHead =>
    readHead(writeHead({ ...small, ...changes }).subarray(8), payload);
  const segment = (changes: object): Partial<PatchHead> => ({
    segments: [{ ...one, context: constant, table: 0, ...changes }],
  });

  it('comes back as it was written', () => {
    for (const each of cases) {
      const { head: again, payloadOffset } = parsePatch(each.sealed);
      expect(again).toEqual(each.head);
      expect(Buffer.compare(writeHead(again), each.sealed.subarray(0, payloadOffset))).toBe(0);
    }
  });

  it.each<[string, Partial<PatchHead>, RegExp]>([
    ['a base of some size without a hash', { base: zeros }, /without a base/],
    [
      'frequencies of another sum',
      { tables: [{ symbols: 2, frequencies: Uint16Array.of(4095, 2) }] },
      /add up to 4097/,
    ],
    [
      'frequencies beyond 4096',
      { tables: [{ symbols: 1, frequencies: Uint16Array.of(4097) }] },
      /more than 4096/,
    ],
    [
      'a table without symbols',
      { tables: [{ symbols: 0, frequencies: new Uint16Array(0) }] },
      /invalid|empty/,
    ],
    ['65 tables', { tables: Array.from({ length: 65 }, () => flat) }, /65 is more than 64/],
    ['segments that make less', { targetBytes: 5 }, /make 4 bytes/],
    ['segments that make more', { targetBytes: 3 }, /more than its target/],
    ['too few blocks', { blocks: [] }, /0 blocks, its segments take 1/],
    ['too many blocks', { blocks: [...small.blocks, ...small.blocks] }, /2 is more than 1/],
    ['blocks of another size', { blocks: [{ sizeBytes: 13, sha256: zeros }] }, /13 bytes, 12 are there/],
    ['numbers beyond the base', segment({ baseOffset: 5 }), /beyond the end/],
    [
      'copies beyond the base',
      { segments: [{ mode: 'same', baseOffset: 5, sizeBytes: 4 }], blocks: [] },
      /beyond the end/,
    ],
    ['a table that is not there', segment({ table: 1 }), /no table 1/],
    ['a context that its table has not', segment({ context: { kind: 'constant', context: 1 } }), /context 1/],
    ['a predictor of other numbers', segment({ predictor: 'requantized' }), /not for its numbers/],
    [
      'fractions without their predictor',
      segment({ context: { kind: 'fraction' } }),
      /no predictor that makes any/,
    ],
    ['no rows', segment({ rows: 0 }), /none/],
    ['a grid of no number', segment({ mode: 'grid', exponent: 255 }), /exponent 255/],
    ['a grid of denormals', segment({ mode: 'grid', exponent: 0 }), /exponent 0/],
    [
      'a grid of other numbers',
      segment({ mode: 'grid', exponent: 127, numbers: 'float16', columns: 2 }),
      /not of float32/,
    ],
    [
      'multiples of more than 24 bits',
      {
        ...segment({ mode: 'grid', exponent: 127 }),
        tables: [{ symbols: 49, frequencies: new Uint16Array(49).fill(4096, 48) }],
      },
      /49 symbols/,
    ],
    ['half a byte', segment({ numbers: 'int4', columns: 1 }), /half a byte/],
    [
      'more symbols than numbers have',
      {
        ...segment({ numbers: 'int4', columns: 8 }),
        tables: [
          { symbols: 17, frequencies: Uint16Array.from({ length: 17 }, (_, i) => (i === 0 ? 4096 : 0)) },
        ],
      },
      /17 symbols/,
    ],
    [
      'a step of nothing',
      { segments: [{ ...update, rows: 1, columns: 1, context: constant, layers: [{ step: 0, table: 0 }] }] },
      /above 0/,
    ],
    [
      'a step without end',
      {
        segments: [
          { ...update, rows: 1, columns: 1, context: constant, layers: [{ step: Infinity, table: 0 }] },
        ],
      },
      /above 0/,
    ],
    [
      'an update without layers',
      { segments: [{ ...update, rows: 1, columns: 1, context: constant, layers: [] }] },
      /no layer/,
    ],
    [
      'an update of -128 steps',
      { segments: [{ ...update, rows: 1, columns: 1, context: constant, layers: [{ step: 1, table: 0 }] }] },
      /symbol 0/,
    ],
    [
      'too many rows to describe',
      {
        ...segment({ rows: 2 ** 20, context: { kind: 'scales', bias: 0, sideTable: 0 } }),
        baseBytes: 2 ** 23,
        targetBytes: 2 ** 22,
      },
      /too many to describe/,
    ],
  ])('with %s is refused', (_name, changes, message) => {
    expect(() => read(changes)).toThrow(expect.objectContaining({ code: 'ERR_INLAY_PATCH' }) as Error);
    expect(() => read(changes)).toThrow(message);
  });

  it('whose numbers are written longer than need be is refused', () => {
    const bytes = writeHead(small).subarray(8);
    const longer = concatBytes([bytes.subarray(0, 64), Uint8Array.of(0x88, 0), bytes.subarray(65)]);
    expect(() => readHead(longer, 12)).toThrow(/longer than need be/);
    const endless = concatBytes([bytes.subarray(0, 64), new Uint8Array(9).fill(255), bytes.subarray(65)]);
    expect(() => readHead(endless, 12)).toThrow(/more than 8 bytes/);
  });

  it('that promises much sets nothing aside for what is not there', () => {
    const bytes = concatBytes([new Uint8Array(66), Uint8Array.of(0, 255, 255, 63)]);
    expect(() => readHead(bytes, 0)).toThrow(/ends too early|is more than/);
  });
});

describe('the loops in WebAssembly', () => {
  it('are what their script makes', () => {
    expect(moduleSource().replaceAll(/\s/g, '')).toContain(`'${MODULE}'`);
    for (const [name, at] of Object.entries(PLACES)) expect(moduleSource()).toContain(`${name}: ${at},`);
    expect(Buffer.from(MODULE, 'base64').length).toBeLessThan(1000);
  });

  it('give the same bits as those in JavaScript', () => {
    const twin = openLoops();
    expect(twin).not.toBe(scriptLoops);
    const byte = fc.integer({ min: -128, max: 127 });
    fc.assert(
      fc.property(
        fc.record({
          rows: fc.array(byte, { minLength: 1, maxLength: 9 }),
          columns: fc.array(byte, { minLength: 1, maxLength: 40 }),
          bias: fc.integer({ min: -400, max: 400 }),
          byExponent: fc.boolean(),
          isGained: fc.boolean(),
          seed: fc.integer(),
          cut: fc.double({ min: 0, max: 1, noNaN: true }),
        }),
        ({ rows, columns, bias, byExponent, isGained, seed, cut }) => {
          const random = seeded(seed);
          const count = rows.length * columns.length;
          const gains = isGained ? Float32Array.from(rows, () => random() * 2) : undefined;
          const layout = {
            rows: Int8Array.from(rows),
            columns: Int8Array.from(columns),
            bias,
            byExponent,
            gains,
            isShaped: true,
          };
          const bits = Int32Array.from({ length: count }, () => (random() * 2 ** 32) | 0);
          const floats = Float32Array.from({ length: count }, () => random() - 0.5);
          const products = Float64Array.from({ length: 256 }, (_, i) => (i - 128) * random());
          const first = Math.floor(cut * count);
          const runs = (loops: HotLoops): unknown => {
            const [left, right] = [fuzzedCursor(count, 64, seed), fuzzedCursor(count, 256, seed)];
            const values = bits.slice();
            const sums = floats.slice();
            const prediction = values.map((value) => value ^ 5);
            for (const [from, to] of [
              [0, first],
              [first, count],
            ] as const) {
              if (from === to) continue;
              const [own, sum] = [prediction.subarray(from, to), sums.subarray(from, to)];
              loops.differences(
                left.coding,
                left.cursor,
                layout,
                from,
                isGained ? values.subarray(from, to) : own,
                own,
              );
              loops.updates(right.coding, right.cursor, layout, from, products, gains, sum);
            }
            return [prediction, new Int32Array(sums.buffer), stateOf(left.cursor), stateOf(right.cursor)];
          };
          expect(runs(twin)).toEqual(runs(scriptLoops));
        },
      ),
      { numRuns: 60 },
    );
  });
});

/** A block of random symbols under a random table, and as many raw bits as they may take. */
function fuzzedCursor(
  count: number,
  symbols: number,
  seed: number,
): { coding: ReturnType<typeof createCoding>; cursor: Cursor } {
  const random = seeded(seed);
  const frequencies = new Uint16Array(64 * symbols).map((_, i) =>
    i % symbols === 0 ? 4096 - 3 * (symbols - 1) : 3,
  );
  const coding = createCoding({ symbols, frequencies });
  const any = Uint8Array.from({ length: count }, () => Math.floor(random() * symbols));
  const raw = Uint8Array.from({ length: 4 * count }, () => Math.floor(random() * 256));
  return { coding, cursor: openBlock(encodeBlock(coding, new Uint8Array(count), any, raw), count) };
}

const stateOf = ({ next, after, word, bit, fault }: Cursor): readonly unknown[] => [
  next,
  after,
  word,
  bit,
  fault < 0,
];

it('a patch is loaded, and applied, by its patcher in pieces of a quarter of a megabyte', async () => {
  const base = new Uint8Array(600_000);
  const target = base.slice();
  target[599_999] = 1;
  const patch = makePatch(base, target, [
    { segment: { mode: 'same', baseOffset: 0, sizeBytes: 599_000 } },
    { segment: { mode: 'raw', sizeBytes: 1000 } },
  ]);
  const sizes: number[] = [];
  for await (const piece of createDeltaPatcher(nodePlatform()).apply(blobOf(base), blobOf(patch), 600_000)) {
    sizes.push(piece.length);
  }
  expect(sizes).toEqual([262_144, 262_144, 74_712, 1000]);
});
