import {
  NUMBER_KINDS,
  type NumberKind,
  type PatchContext,
  type PatchHead,
  type Segment,
} from '../../src/update/delta/head.ts';
import { pairOfBytes, pairOfFloats, seeded, sha256Of } from '../core/update/delta-fixture.ts';
import { floatOf, patternOf, type Plan } from './delta-encoder.ts';

/** Two files and how one becomes the other. */
export interface Case {
  readonly name: string;
  readonly base: Uint8Array<ArrayBuffer>;
  readonly target: Uint8Array<ArrayBuffer>;
  readonly plans: readonly Plan[];
  readonly isBased?: boolean;
}

const bitsOf: Readonly<Record<NumberKind, number>> = {
  float32: 32,
  float16: 16,
  bfloat16: 16,
  int8: 8,
  int4: 4,
};
const constant: PatchContext = { kind: 'constant', context: 0 };
const scales: PatchContext = { kind: 'scales', bias: 300, sideTable: 0 };

/** Patterns that are not like the others: zeros, infinities, quiet and signalling NaN, denormals, extremes. */
const odd = [
  0x80000000, 0x7f800000, 0xff800000, 0x7fc00001, 0xffa00000, 1, 0x80000001, 0x7f7fffff, 0xffffffff, 0,
];

const filled = (length: number, random: () => number): Uint8Array<ArrayBuffer> =>
  Uint8Array.from({ length }, () => Math.floor(random() * 256));

/** Numbers as models have them, some of them odd; and others near them. */
function pairOf(
  numbers: NumberKind,
  count: number,
  random: () => number,
): readonly [Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>] {
  if (numbers !== 'float32') {
    const old = filled((count * bitsOf[numbers]) / 8, random);
    return [old, old.map((byte) => (random() < 0.7 ? byte : byte + Math.floor(random() * 3)))];
  }
  const old = Float32Array.from({ length: count }, () => random() - 0.5);
  const next = old.map((value) => (random() < 0.2 ? value : value + (random() - 0.5) * 1e-4));
  for (const values of [old, next]) {
    const patterns = new Uint32Array(values.buffer);
    odd.forEach((pattern) => {
      patterns[Math.floor(random() * count)] = pattern;
    });
  }
  return [new Uint8Array(old.buffer), new Uint8Array(next.buffer)];
}

const list = (length: number, random: () => number, low: number, high: number): number[] =>
  Array.from({ length }, () => low + Math.floor(random() * (high - low + 1)));

function deltaCase(
  name: string,
  shape: { numbers: NumberKind; rows: number; columns: number },
  context: PatchContext,
  seed: number,
): Case {
  const random = seeded(seed);
  const { numbers, rows, columns } = shape;
  const [base, target] = pairOf(numbers, rows * columns, random);
  const segment: Segment = { mode: 'delta', ...shape, baseOffset: 0, predictor: 'same', context, table: 0 };
  const side = { rows: list(rows, random, -30, -20), columns: list(columns, random, -3, 3) };
  return { name, base, target, plans: [{ segment, ...side }] };
}

function selfCase(numbers: NumberKind, context: PatchContext, seed: number): Case {
  const random = seeded(seed);
  const [base, target] = pairOf(numbers, 12 * 10, random);
  const segment: Segment = { mode: 'self', numbers, rows: 12, columns: 10, context, table: 0 };
  const plans = [{ segment, rows: list(12, random, 0, 30), columns: list(10, random, -3, 3) }];
  return { name: `self ${numbers}, ${context.kind}`, base, target, plans, isBased: false };
}

/** Whole multiples of 2^(exponent - 127): small ones, 0, and the largest. */
function gridCase(exponent: number, context: PatchContext, seed: number): Case {
  const random = seeded(seed);
  const step = 2 ** (exponent - 127);
  const marked = [0, 1, -1, 2 ** 24 - 1, 1 - 2 ** 24];
  const target = Float32Array.from({ length: 120 }, () => {
    const multiple =
      random() < 0.2 ? marked[Math.floor(random() * marked.length)] : Math.floor(random() * 200) - 100;
    return step * (multiple ?? 0);
  });
  const segment: Segment = {
    mode: 'grid',
    numbers: 'float32',
    rows: 12,
    columns: 10,
    exponent,
    context,
    table: 0,
  };
  const plans = [{ segment, rows: list(12, random, 0, 30), columns: list(10, random, -3, 3) }];
  const bytes = new Uint8Array(target.buffer);
  return { name: `grid, ${context.kind}`, base: bytes, target: bytes, plans, isBased: false };
}

/** The target of an update is what the specification says that it is. */
function updateCase(
  name: string,
  numbers: NumberKind,
  layers: number,
  isGained: boolean,
  seed: number,
): Case {
  const random = seeded(seed);
  const [rows, columns] = [12, 10];
  const count = rows * columns;
  const bits = (values: readonly number[]): Uint8Array<ArrayBuffer> => {
    const patterns = values.map((value) => patternOf(numbers, value));
    return new Uint8Array(
      (bitsOf[numbers] === 32 ? Uint32Array.from(patterns) : Uint16Array.from(patterns)).buffer,
    );
  };
  // Of 16 bits, some overflow, some are denormal, and steps are near the spacing of others.
  const far = numbers === 'float32' ? [] : [65_504, -65_488, 3e38, 2 ** -24, -(2 ** -15), 1, -0, 1e-40];
  const old = Array.from({ length: count }, (_, k) =>
    floatOf(numbers, patternOf(numbers, Math.fround(far[k] ?? random() - 0.5))),
  );
  const gains = Array.from(Float32Array.from({ length: rows }, () => 0.9 + 0.2 * random()));
  const steps = Array.from(
    { length: layers },
    (_, layer) => (far.length > 0 ? 2 ** -11 : 0.001) / (layer + 1),
  );
  const multiples = steps.map(() =>
    Array.from({ length: count }, () => (random() < 0.01 ? 127 : Math.floor(random() * 5) - 2)),
  );
  const next = old.map((before, k) => {
    let value = before * (isGained ? (gains[Math.floor(k / columns)] as number) : 1);
    steps.forEach((step, layer) => {
      value = Math.fround(value + (multiples[layer]?.[k] as number) * step);
    });
    return value;
  });
  const segment: Segment = {
    mode: 'update',
    numbers,
    rows,
    columns,
    baseOffset: 0,
    predictor: isGained ? 'gain' : 'same',
    context: isGained ? constant : { kind: 'scales', bias: 30, sideTable: 0 },
    layers: steps.map((step) => ({ step, table: 0 })),
  };
  const side = { rows: list(rows, random, -30, -20), columns: list(columns, random, -3, 3) };
  const plan: Plan = { segment, multiples, ...side, ...(isGained && { gains }) };
  return { name, base: bits(old), target: bits(next), plans: [plan] };
}

function gainCase(
  numbers: NumberKind,
  predictor: 'gain' | 'requantized' | 'requantized-unsigned',
  seed: number,
): Case {
  const random = seeded(seed);
  const [base, target] = pairOf(numbers, 6 * 20, random);
  const context: PatchContext = predictor === 'gain' ? scales : { kind: 'fraction' };
  const segment: Segment = {
    mode: 'delta',
    numbers,
    rows: 6,
    columns: 20,
    baseOffset: 0,
    predictor,
    context,
    table: 0,
  };
  const gains = Array.from(Float32Array.of(1, 1.01, 0.5, 1.75, -1, 0));
  const side = { rows: list(6, random, -30, -20), columns: list(20, random, -3, 3) };
  return { name: `${predictor} ${numbers}`, base, target, plans: [{ segment, gains, ...side }] };
}

function lowRankCase(
  width: number,
  context: PatchContext,
  seed: number,
  numbers: NumberKind = 'float32',
): Case {
  const random = seeded(seed);
  const [rows, columns, rank] = [9, 14, width + 1];
  const [base, target] = pairOf(numbers, rows * columns, random);
  const segment: Segment = {
    mode: 'delta',
    numbers,
    rows,
    columns,
    baseOffset: 0,
    predictor: 'low-rank',
    factors: { rank, width, table: 0 },
    context,
    table: 0,
  };
  const half = 2 ** (8 * width - 1);
  const factors = list(rank * (rows + columns), random, -half, half - 1);
  const scaled = list(rank, random, -5, 5).map((scale) => Math.fround((scale / 1000 / half) * (1 / half)));
  const side = { rows: list(rows, random, -30, -20), columns: list(columns, random, -3, 3) };
  const plans = [{ segment, ...side, product: { scales: scaled, factors } }];
  return { name: `low rank ${numbers}, ${width} bytes, ${context.kind}`, base, target, plans };
}

function copiedCase(): Case {
  const random = seeded(9);
  const base = filled(300, random);
  const text = Uint8Array.from({ length: 200 }, () => 97 + Math.floor(random() * 4));
  const target = new Uint8Array([
    ...base.subarray(200, 300),
    ...base.subarray(0, 50),
    ...filled(40, random),
    ...text,
  ]);
  const plans: readonly Plan[] = [
    { segment: { mode: 'same', baseOffset: 200, sizeBytes: 100 } },
    { segment: { mode: 'same', baseOffset: 0, sizeBytes: 50 } },
    { segment: { mode: 'raw', sizeBytes: 40 } },
    { segment: { mode: 'packed', sizeBytes: 200, table: 0 } },
  ];
  return { name: 'same, raw and packed', base, target, plans };
}

/** One small patch of every mode, kind of numbers, predictor and kind of context. */
export const smallCases = (): readonly Case[] => [
  { name: 'nothing', base: Uint8Array.of(1), target: new Uint8Array(0), plans: [] },
  copiedCase(),
  ...NUMBER_KINDS.flatMap((numbers, index) => [
    selfCase(numbers, constant, 10 + index),
    selfCase(numbers, { ...scales, bias: 0 }, 20 + index),
    deltaCase(`delta ${numbers}, constant`, { numbers, rows: 3, columns: 30 }, constant, 30 + index),
    deltaCase(`delta ${numbers}, scales`, { numbers, rows: 15, columns: 6 }, scales, 40 + index),
  ]),
  gainCase('float32', 'gain', 50),
  lowRankCase(1, constant, 51),
  lowRankCase(2, scales, 52),
  lowRankCase(3, scales, 53),
  lowRankCase(4, scales, 54),
  ...(['float16', 'bfloat16'] as const).flatMap((numbers, index) => [
    gainCase(numbers, 'gain', 55 + index),
    lowRankCase(2, scales, 57 + index, numbers),
    updateCase(`update ${numbers}`, numbers, 1, false, 84 + index),
    updateCase(`update ${numbers} with gains, three layers`, numbers, 3, true, 86 + index),
  ]),
  ...(['int8', 'int4'] as const).flatMap((numbers, index) => [
    gainCase(numbers, 'requantized', 60 + index),
    gainCase(numbers, 'requantized-unsigned', 70 + index),
  ]),
  updateCase('update', 'float32', 1, false, 80),
  updateCase('update with gains, three layers', 'float32', 3, true, 81),
  gridCase(118, constant, 90),
  gridCase(1, { ...scales, bias: 5 }, 91),
];

/** Patches of more than a block, each with a last block that is not full. */
export const largeCases = (): readonly Case[] => {
  const shaped = { rows: 1, baseOffset: 0, predictor: 'same', context: constant } as const;
  const steps = [0.001, 1 / 4096];
  const every = (value: number): number[] =>
    Array.from({ length: 270_000 }, (_, i) => (i % 1000 === 999 ? value : 0));
  return [
    {
      name: 'bytes',
      ...pairOfBytes(),
      plans: [{ segment: { ...shaped, mode: 'delta', numbers: 'int8', columns: 70_000, table: 0 } }],
    },
    {
      name: 'floats',
      ...pairOfFloats(),
      plans: [
        {
          segment: {
            ...shaped,
            mode: 'update',
            numbers: 'float32',
            columns: 270_000,
            layers: steps.map((step) => ({ step, table: 0 })),
          },
          multiples: [every(3), every(-1)],
        },
      ],
    },
  ];
};

/** Heads that decoders refuse, each for what it asks of them. The base is 8 zeros, the target has 4 or 8 bytes. */
export function refusedHeads(): readonly { readonly why: string; readonly head: PatchHead }[] {
  const sha256 = new Uint8Array(32);
  const table = { symbols: 2, frequencies: Uint16Array.of(4095, 1) };
  const segment = {
    mode: 'delta',
    numbers: 'float32',
    rows: 1,
    columns: 1,
    baseOffset: 0,
    predictor: 'same',
    context: constant,
    table: 0,
  } as const;
  const good: PatchHead = {
    base: sha256Of(new Uint8Array(8)),
    target: sha256,
    baseBytes: 8,
    targetBytes: 4,
    tables: [table],
    segments: [segment],
    blocks: [{ sizeBytes: 12, sha256 }],
  };
  const lowRank = (changes: object): Partial<PatchHead> => {
    const factors = { rank: 1, width: 1, table: 0, ...changes };
    // Of no fewer numbers there may be factors.
    const shape = { numbers: 'float16', rows: 2, columns: 2 } as const;
    return {
      targetBytes: 8,
      segments: [{ ...segment, ...shape, predictor: 'low-rank', factors }],
      blocks: [{ sizeBytes: 12, sha256 }, ...good.blocks],
    };
  };
  const full = { symbols: 256, frequencies: new Uint16Array(2 ** 14) };
  const faults: Readonly<Record<string, Partial<PatchHead>>> = {
    'a segment is empty': { segments: [{ mode: 'same', baseOffset: 0, sizeBytes: 0 }, segment] },
    'a block is longer than one number may take': { blocks: [{ sizeBytes: 19, sha256 }] },
    'a raw block is longer than what it makes': {
      segments: [{ mode: 'raw', sizeBytes: 4 }],
      blocks: [{ sizeBytes: 5, sha256 }],
    },
    'the tables have more than 2^18 frequencies': {
      tables: [table, ...Array.from({ length: 16 }, () => full)],
    },
    'the rank is 0': lowRank({ rank: 0 }),
    'there are more factors than numbers': lowRank({ rank: 2 }),
    'the factors have 5 bytes': lowRank({ width: 5 }),
    'the table of the factors has one context for 2 bytes': lowRank({ width: 2 }),
  };
  return Object.entries(faults).map(([why, changes]) => ({ why, head: { ...good, ...changes } }));
}
