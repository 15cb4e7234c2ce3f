import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import { concatBytes } from '../../src/core/bytes.ts';
import { isInlayError } from '../../src/core/errors.ts';
import type { DigestPlatform } from '../../src/core/digest.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { applyPatch } from '../../src/update/delta/apply.ts';
import { MAGIC } from '../../src/update/delta/bounds.ts';
import { encodeBlock } from '../../src/update/delta/encode-block.ts';
import type { PatchHead, Segment } from '../../src/update/delta/head.ts';
import { scriptLoops, type HotLoops } from '../../src/update/delta/hot.ts';
import { createDeltaPatcher } from '../../src/update/delta/patcher.ts';
import { createCoding, openBlock, type Cursor } from '../../src/update/delta/rans.ts';
import { parsePatch, readHead } from '../../src/update/delta/read-head.ts';
import { openLoops } from '../../src/update/delta/wasm.ts';
import { moduleSource } from '../../scripts/delta-wasm.mjs';
import { MODULE } from '../../src/update/delta/wasm-module.ts';
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
const bounds = { piece: 262_144, read: 524_300 };

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
    parsePatch(concatBytes([writeHead({ ...small, ...changes }), new Uint8Array(payload)])).head;
  const segment = (changes: object): Partial<PatchHead> => ({
    segments: [{ ...one, context: constant, table: 0, ...changes }],
  });
  const lowRank = (changes: object, shape = {}): Partial<PatchHead> => {
    const factors = { rank: 1, width: 1, table: 0, ...changes };
    const square = { numbers: 'float16', rows: 2, columns: 2, ...shape };
    return { ...segment({ predictor: 'low-rank', factors, ...square }), targetBytes: 8 };
  };

  it('comes back as it was written', () => {
    for (const each of cases) {
      const { head: again, payloadOffset } = parsePatch(each.sealed);
      expect(again).toEqual(each.head);
      expect(Buffer.compare(writeHead(again), each.sealed.subarray(0, payloadOffset))).toBe(0);
    }
  });

  it.each<[string, Partial<PatchHead>, RegExp]>([
    ['a base of some size without a hash', { base: zeros }, /size of the base is 8, not 0\./],
    [
      'frequencies of another sum',
      { tables: [{ symbols: 2, frequencies: Uint16Array.of(4095, 2) }] },
      /sum of frequencies is 4097, not 4096\./,
    ],
    [
      'frequencies beyond 4096',
      { tables: [{ symbols: 1, frequencies: Uint16Array.of(4097) }] },
      /frequency is 4097, not 0 to 4096/,
    ],
    [
      'a table without symbols',
      { tables: [{ symbols: 0, frequencies: new Uint16Array(0) }] },
      /number of symbols is 0/,
    ],
    ['65 tables', { tables: Array.from({ length: 65 }, () => flat) }, /65, not 0 to 64/],
    ['segments that make less', { targetBytes: 5 }, /all segments is 4, not 5/],
    ['segments that make more', { targetBytes: 3 }, /size of a segment is 4, not 1 to 3/],
    ['too few blocks', { blocks: [] }, /end of a field/],
    ['too many blocks', { blocks: [...small.blocks, ...small.blocks] }, /number of blocks is 2, not 1/],
    ['blocks of another size', { blocks: [{ sizeBytes: 13, sha256: zeros }] }, /all blocks is 13, not 12/],
    [
      'a block that is larger than its numbers may need',
      { blocks: [{ sizeBytes: 19, sha256: zeros }] },
      /a block is 19, not 0 to 18/,
    ],
    [
      'a segment of nothing',
      { segments: [{ mode: 'raw', sizeBytes: 0 }, ...small.segments] },
      /size of a segment is 0/,
    ],
    [
      'more factors than decoders hold',
      { ...lowRank({ rank: 64 }, { rows: 64, columns: 2048 }), baseBytes: 2 ** 18, targetBytes: 2 ** 18 },
      /number of factors is 135168, not 1 to 131072/,
    ],
    ['more factors than numbers', lowRank({ rank: 2 }), /number of factors is 8, not 1 to 4/],
    [
      'factors of an update',
      lowRank({}, { mode: 'update', layers: update.layers }),
      /predictor is 2, not 1\./,
    ],
    ['factors of integers', lowRank({}, { numbers: 'int8', columns: 4 }), /predictor is 2, not 3 to 4/],
    [
      'an update of integers',
      { segments: [{ ...update, rows: 1, columns: 4, numbers: 'int8' }] },
      /kind of numbers is 3, not 0 to 2/,
    ],
    [
      'a predictor of integers for floats',
      segment({ predictor: 'requantized', numbers: 'float16', columns: 2 }),
      /predictor is 3, not 1 to 2/,
    ],
    ['numbers beyond the base', segment({ baseOffset: 5 }), /end in the base is 9, not 0 to 8/],
    [
      'copies beyond the base',
      { segments: [{ mode: 'same', baseOffset: 5, sizeBytes: 4 }], blocks: [] },
      /end in the base is 9/,
    ],
    ['a table that is not there', segment({ table: 1 }), /table is 1, not 0/],
    [
      'a context that its table has not',
      segment({ context: { kind: 'constant', context: 1 } }),
      /contexts is 1, not 2 to 64/,
    ],
    ['a predictor of other numbers', segment({ predictor: 'requantized' }), /predictor is 3, not 1 to 2/],
    [
      'fractions without their predictor',
      segment({ context: { kind: 'fraction' } }),
      /kind of context is 2, not 0 to 1/,
    ],
    ['no rows', segment({ rows: 0 }), /number of rows is 0/],
    ['a grid of no number', segment({ mode: 'grid', exponent: 255 }), /exponent is 255, not 1 to 254/],
    ['a grid of denormals', segment({ mode: 'grid', exponent: 0 }), /exponent is 0/],
    [
      'a grid of other numbers',
      segment({ mode: 'grid', exponent: 127, numbers: 'float16', columns: 2 }),
      /kind of numbers is 1, not 0/,
    ],
    [
      'multiples of more than 24 bits',
      {
        ...segment({ mode: 'grid', exponent: 127 }),
        tables: [{ symbols: 49, frequencies: new Uint16Array(49).fill(4096, 48) }],
      },
      /symbols is 49, not 1 to 48/,
    ],
    ['half a byte', segment({ numbers: 'int4', columns: 1 }), /rest of columns is 1/],
    [
      'more symbols than numbers have',
      {
        ...segment({ numbers: 'int4', columns: 8 }),
        tables: [
          { symbols: 17, frequencies: Uint16Array.from({ length: 17 }, (_, i) => (i === 0 ? 4096 : 0)) },
        ],
      },
      /symbols is 17, not 1 to 16/,
    ],
    [
      'a step of nothing',
      { segments: [{ ...update, rows: 1, columns: 1, context: constant, layers: [{ step: 0, table: 0 }] }] },
      /step is (0|Infinity), not 5e-324 to/,
    ],
    [
      'a step without end',
      {
        segments: [
          { ...update, rows: 1, columns: 1, context: constant, layers: [{ step: Infinity, table: 0 }] },
        ],
      },
      /step is (0|Infinity), not 5e-324 to/,
    ],
    [
      'an update without layers',
      { segments: [{ ...update, rows: 1, columns: 1, context: constant, layers: [] }] },
      /layers is 0, not 1 to 16/,
    ],
    [
      'an update of -128 steps',
      { segments: [{ ...update, rows: 1, columns: 1, context: constant, layers: [{ step: 1, table: 0 }] }] },
      /symbol 0 is \d+, not 0\./,
    ],
    [
      'too many rows to describe',
      {
        ...segment({ rows: 2 ** 20, context: { kind: 'scales', bias: 0, sideTable: 0 } }),
        baseBytes: 2 ** 23,
        targetBytes: 2 ** 22,
      },
      /rows and columns is 1048577/,
    ],
  ])('with %s is refused', (_name, changes, message) => {
    expect(() => read(changes)).toThrow(expect.objectContaining({ code: 'ERR_INLAY_PATCH' }) as Error);
    expect(() => read(changes)).toThrow(message);
  });

  it('whose numbers are written longer than need be is refused', () => {
    const bytes = writeHead(small).subarray(8);
    const longer = concatBytes([bytes.subarray(0, 64), Uint8Array.of(0x88, 0), bytes.subarray(65)]);
    expect(() => [...readHead(longer, 12)]).toThrow(/last byte of the size of the base is 0/);
    const endless = concatBytes([bytes.subarray(0, 64), new Uint8Array(9).fill(255), bytes.subarray(65)]);
    expect(() => [...readHead(endless, 12)]).toThrow(
      /last byte of the size of the base is 255, not 1 to 127/,
    );
  });

  it('that promises much sets nothing aside for what is not there', () => {
    const bytes = concatBytes([new Uint8Array(66), Uint8Array.of(0, 255, 255, 63)]);
    expect(() => [...readHead(bytes, 0)]).toThrow(/number of segments is 1048575, not 0 to 65536/);
  });

  it('is read in as many steps as it has tables, segments and blocks', () => {
    const count = 2 ** 16;
    const bytes = writeHead({
      ...small,
      targetBytes: count,
      segments: Array.from({ length: count }, () => ({ mode: 'same', baseOffset: 0, sizeBytes: 1 })),
      blocks: [],
    }).subarray(8);
    expect([...readHead(bytes, 0)].length).toBe(count + 1);
  });

  it('of more than a megabyte is refused before it is read', async () => {
    const prefix = concatBytes([MAGIC, Uint8Array.of(1, 0, 16, 0), new Uint8Array(2 ** 14)]);
    const patch = { ...blobOf(zeros), sizeBytes: 2 ** 22, read: readerOf(prefix) };
    const parts = { platform: blind, loops: scriptLoops, base: blobOf(zeros), patch, sizeBytes: 4 };
    await expect(applyPatch(parts, async () => {})).rejects.toThrow(/no head of 1048577/);
  });
});

describe('the loops in WebAssembly', () => {
  it('are what their script makes', () => {
    const source = readFileSync(new URL('../../src/update/delta/wasm-module.ts', import.meta.url), 'utf8');
    expect(source.replaceAll(/\s/g, '')).toBe(moduleSource().replaceAll(/\s/g, ''));
    expect(Buffer.from(MODULE, 'hex').length).toBeLessThan(1000);
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
            product: undefined,
            isShaped: true,
          };
          const bits = Int32Array.from({ length: count }, () => (random() * 2 ** 32) | 0);
          const floats = Float32Array.from({ length: count }, () => random() - 0.5);
          const products = Float64Array.from({ length: 256 }, (_, i) => (i - 128) * random());
          const first = Math.floor(cut * count);
          const runs = (loops: HotLoops): unknown => {
            const values = bits.slice();
            const sums = floats.slice();
            const prediction = values.map((value) => value ^ 5);
            const parts = [
              [0, first],
              [first, count],
            ].filter(([from, to]) => from !== to);
            // One block at a time lies where the loops are fast.
            const left = fuzzedCursor(count, 64, seed, loops.room);
            for (const [from = 0, to] of parts) {
              const own = prediction.subarray(from, to);
              const base = isGained ? values.subarray(from, to) : own;
              loops.differences(left.coding, left.cursor, layout, from, base, own);
            }
            const right = fuzzedCursor(count, 256, seed, loops.room);
            for (const [from = 0, to] of parts)
              loops.updates(
                right.coding,
                right.cursor,
                layout,
                from,
                products,
                gains,
                sums.subarray(from, to),
              );
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
  room: HotLoops['room'],
): { coding: ReturnType<typeof createCoding>; cursor: Cursor } {
  const random = seeded(seed);
  const frequencies = new Uint16Array(64 * symbols).map((_, i) =>
    i % symbols === 0 ? 4096 - 3 * (symbols - 1) : 3,
  );
  const coding = createCoding({ symbols, frequencies }, undefined, room);
  const any = Uint8Array.from({ length: count }, () => Math.floor(random() * symbols));
  const raw = Uint8Array.from({ length: 4 * count }, () => Math.floor(random() * 256));
  const block = encodeBlock(coding, new Uint8Array(count), any, raw);
  return { coding, cursor: openBlock(block, count, 0, room?.block) };
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
