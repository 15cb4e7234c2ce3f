import { describe, expect, it } from 'vitest';
import { concatBytes, toUtf8 } from '../../src/core/bytes.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { encodePatch } from '../../src/publish/delta/encode.ts';
import { explainPatch, type ExplainedSegment } from '../../src/publish/delta/explain.ts';
import { createRandom } from '../../src/stats/random.ts';
import { createMemoryStore } from '../../src/stores/memory.ts';
import { sha256Hex } from '../../src/trust/keys.ts';
import { halves } from '../../src/update/delta/halves.ts';
import { createDeltaPatcher } from '../../src/update/delta/patcher.ts';

const platform = nodePlatform();

function safetensors(
  values: Float32Array | Uint16Array,
  shape: readonly number[],
  dtype = 'F32',
): Uint8Array<ArrayBuffer> {
  const header = toUtf8(JSON.stringify({ w: { dtype, shape, data_offsets: [0, values.byteLength] } }));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setUint32(0, header.length, true);
  return concatBytes([length, header, new Uint8Array(values.buffer as ArrayBuffer)]);
}

/** About normal numbers. */
function draw(count: number, scale: number, seed: number): Float32Array {
  const random = createRandom(seed);
  return Float32Array.from({ length: count }, () => (random() + random() + random() + random() - 2) * scale);
}

/** What a product of two thin matrices adds, rounded as trainers round it. */
function adapter(rows: number, columns: number, rank: number, share: number): Float32Array {
  const [left, right] = [draw(rows * rank, 1, 5), draw(rank * columns, share / Math.sqrt(rank), 6)];
  return Float32Array.from({ length: rows * columns }, (_, k) => {
    const [i, j] = [Math.floor(k / columns), k % columns];
    let sum = 0;
    for (let l = 0; l < rank; l += 1) {
      sum = Math.fround(
        sum + Math.fround((left[i * rank + l] as number) * (right[l * columns + j] as number)),
      );
    }
    return sum;
  });
}

const sumOf = (base: Float32Array, update: Float32Array): Float32Array =>
  base.map((value, k) => value + (update[k] as number));

interface Outcome {
  readonly patch: Uint8Array;
  readonly ratio: number;
  readonly segment: ExplainedSegment;
}

/** Makes a patch and proves that it gives the file. */
async function encode(
  before: Float32Array,
  after: Float32Array,
  shape: readonly number[],
  dtype?: 'F16' | 'BF16',
): Promise<Outcome> {
  const half = dtype && halves[dtype === 'F16' ? 'float16' : 'bfloat16'];
  const file = (values: Float32Array): Uint8Array<ArrayBuffer> =>
    safetensors(half?.narrow(values) ?? values, shape, dtype);
  const [base, next] = [file(before), file(after)];
  const patch = encodePatch(base, next, { platform });
  const store = createMemoryStore();
  const put = (bytes: Uint8Array) => store.putBlob(sha256Hex(platform, bytes), bytes);
  const pieces: Uint8Array[] = [];
  for await (const piece of createDeltaPatcher(platform).apply(
    await put(base),
    await put(patch),
    next.length,
  )) {
    pieces.push(new Uint8Array(piece));
  }
  expect(Buffer.compare(concatBytes(pieces), next)).toBe(0);
  const { ratio, segments } = explainPatch(patch, next);
  return { patch, ratio, segment: segments.find(({ names }) => names.length > 0) as ExplainedSegment };
}

const side = 256;
const square = [side, side];
const weights = draw(side * side, 0.1, 1);

describe('a patch of a merged adapter', () => {
  it.each([
    [1, 0.018],
    [4, 0.038],
    [16, 0.112],
  ])('of rank %i takes little more than the adapter', async (rank, most) => {
    const { ratio, segment } = await encode(
      weights,
      sumOf(weights, adapter(side, side, rank, 0.001)),
      square,
    );
    expect([segment.mode, segment.predictor, segment.rank]).toEqual(['delta', 'low-rank', rank]);
    expect(ratio).toBeLessThan(most);
    // About 25 bits for each number of the factors, and no more.
    expect(segment.parts.factors).toBeLessThan(2 * side * rank * 3.25 + 200);
    expect(segment.parts.factors).toBeGreaterThan(2 * side * rank * 2);
  });

  it.each(['F16', 'BF16'] as const)('of %s takes little more than the adapter, rounded', async (dtype) => {
    const { widen, narrow } = halves[dtype === 'F16' ? 'float16' : 'bfloat16'];
    const old = widen(narrow(weights));
    const { ratio, segment } = await encode(old, sumOf(old, adapter(side, side, 4, 0.001)), square, dtype);
    expect([segment.mode, segment.predictor, segment.rank]).toEqual(['delta', 'low-rank', 4]);
    expect(ratio).toBeLessThan(0.08);
  });

  it('of large updates takes more, as their last places do', async () => {
    const { ratio, segment } = await encode(weights, sumOf(weights, adapter(side, side, 4, 0.01)), square);
    expect(segment.rank).toBe(4);
    expect(ratio).toBeLessThan(0.065);
  });

  it('of kernels has the first axis for rows, and goes on from block to block', async () => {
    const kernels = draw(160 * 513, 0.1, 1);
    const after = sumOf(kernels, adapter(160, 513, 2, 0.001));
    const { ratio, segment } = await encode(kernels, after, [160, 57, 3, 3]);
    expect([segment.rows, segment.columns, segment.rank]).toEqual([160, 513, 2]);
    expect(ratio).toBeLessThan(0.024);
  });

  it('that is all there is, and exact, takes less than a tenth', async () => {
    const after = weights.map((_, k) => (1 + Math.floor(k / side)) * (1 + (k % side)));
    const { ratio, segment } = await encode(new Float32Array(after.length), after, square);
    expect([segment.predictor, segment.rank]).toEqual(['low-rank', 1]);
    expect(ratio).toBeLessThan(0.1);
  });

  it('is the same each time', async () => {
    const after = sumOf(weights, adapter(side, side, 4, 0.001));
    const make = (): Uint8Array => encodePatch(safetensors(weights, square), safetensors(after, square));
    expect(Buffer.compare(make(), make())).toBe(0);
  });
});

describe('a patch of what is of no low rank', () => {
  const small = draw(side * side, 1e-4, 2);

  it('foretells nothing where an update has no directions, where there is none, or too few rows', async () => {
    const noise = await encode(weights, sumOf(weights, small), square);
    expect([noise.segment.mode, noise.segment.predictor]).toEqual(['delta', 'same']);
    expect(noise.segment.parts.factors).toBe(0);
    const same = await encode(weights, weights, square);
    expect(same.segment.mode).toBe('same');
    const few = [15, 4096];
    const flat = weights.slice(0, 15 * 4096);
    const narrow = await encode(flat, sumOf(flat, adapter(15, 4096, 1, 0.001)), few);
    expect(narrow.segment.predictor).toBe('same');
  });

  it.each([Number.NaN, -Infinity])('leaves adapters alone that were merged into %s', async (odd) => {
    const after = sumOf(weights, adapter(side, side, 1, 0.001));
    for (const [before, next] of [
      [weights.slice(), after.slice().fill(odd, 777, 778)],
      [weights.slice().fill(odd, 777, 778), after.slice()],
      [weights.slice().fill(odd, 777, 778), after.slice().fill(odd, 777, 778)],
    ] as const) {
      const { segment } = await encode(before, next, square);
      expect(segment.predictor).not.toBe('low-rank');
    }
  });

  it('takes factors for the directions of an update that has also others, where that is fewer bytes', async () => {
    const mixed = sumOf(sumOf(weights, adapter(side, side, 2, 0.02)), small);
    const plain = await encode(weights, sumOf(weights, small), square);
    const { ratio, segment } = await encode(weights, mixed, square);
    expect([segment.predictor, segment.rank]).toEqual(['low-rank', 2]);
    expect(ratio).toBeLessThan(plain.ratio + 0.03);
  });
});
