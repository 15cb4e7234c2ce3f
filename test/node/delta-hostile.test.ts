import { describe, expect, it } from 'vitest';
import { concatBytes } from '../../src/core/bytes.ts';
import type { DigestPlatform } from '../../src/core/digest.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { applyPatch } from '../../src/update/delta/apply.ts';
import type { PatchHead, Segment } from '../../src/update/delta/head.ts';
import { scriptLoops } from '../../src/update/delta/hot.ts';
import { openLoops } from '../../src/update/delta/wasm.ts';
import { writeHead } from '../../src/update/delta/write-head.ts';
import { blobOf, sha256Of } from '../core/update/delta-fixture.ts';

/** A block whose symbols are all certain: it has no words. */
const certain = new Uint8Array(Uint32Array.of(2 ** 15, 2 ** 15, 0).buffer);
const table = { symbols: 2, frequencies: Uint16Array.of(4096, 0) };

function patchOf(
  base: Uint8Array,
  segments: readonly Segment[],
  blocks: readonly Uint8Array[],
  parts: Pick<PatchHead, 'targetBytes' | 'tables'>,
): Uint8Array {
  const head = writeHead({
    ...parts,
    base: sha256Of(base),
    target: new Uint8Array(32),
    baseBytes: base.length,
    segments,
    blocks: blocks.map((block) => ({ sizeBytes: block.length, sha256: sha256Of(block) })),
  });
  return concatBytes([head, ...blocks]);
}

describe('others have the thread', () => {
  /** @returns the most times that the clock was looked at, a millisecond each, without a turn of others. */
  async function longestTurn(base: Uint8Array, patch: Uint8Array, sizeBytes: number): Promise<number> {
    let [now, since, longest] = [0, 0, 0];
    const platform: DigestPlatform = {
      ...nodePlatform(),
      monotonicMs: () => (now += 1),
      setTimer: (callback) => {
        since = now;
        queueMicrotask(callback);
        return () => {};
      },
    };
    let pieces = 0;
    const parts = { platform, loops: scriptLoops, base: blobOf(base), patch: blobOf(patch), sizeBytes };
    await applyPatch(parts, async () => {
      pieces += 1;
      // Each piece is work, too.
      now += 1;
      longest = Math.max(longest, now - since);
    });
    expect(pieces).toBeGreaterThan(0);
    return longest;
  }

  it('while much is copied in small pieces, or carried along', async () => {
    const base = new Uint8Array(64);
    const copies = Array.from({ length: 300 }, (): Segment => ({
      mode: 'same',
      baseOffset: 0,
      sizeBytes: 1,
    }));
    const raw = copies.map((): Segment => ({ mode: 'raw', sizeBytes: 1 }));
    const blocks = raw.map(() => new Uint8Array(1));
    const patch = patchOf(base, [...copies, ...raw], blocks, { targetBytes: 600, tables: [] });
    expect(await longestTurn(base, patch, 600)).toBeLessThan(10);
  });

  it('while the gains and scales of many rows are looked at', async () => {
    const rows = 2 ** 18;
    const base = new Uint8Array(4 * rows);
    const segment: Segment = {
      mode: 'delta',
      numbers: 'float32',
      rows,
      columns: 1,
      baseOffset: 0,
      predictor: 'gain',
      context: { kind: 'scales', bias: 0, sideTable: 0 },
      table: 0,
    };
    const side = concatBytes([new Uint8Array(4 * rows), certain]);
    const blocks = [side, certain, certain, certain, certain];
    const patch = patchOf(base, [segment], blocks, { targetBytes: base.length, tables: [table] });
    let looks = 0;
    const platform: DigestPlatform = { ...nodePlatform(), monotonicMs: () => (looks += 1) };
    const parts = { platform, loops: scriptLoops, base: blobOf(base), patch: blobOf(patch) };
    await applyPatch({ ...parts, sizeBytes: base.length }, async () => {});
    // Gains are read, scales are decoded and added up, and numbers decoded, 8,192 at a time.
    expect(looks).toBeGreaterThan((4 * rows) / 8192);
  });
});

it.each([
  { name: 'WebAssembly', open: openLoops },
  { name: 'JavaScript', open: () => scriptLoops },
])('nothing comes out of a symbol that does not occur, with loops in $name', async ({ open }) => {
  const columns = 2 ** 17;
  const base = new Uint8Array(4 * columns);
  const segment: Segment = {
    mode: 'update',
    numbers: 'float32',
    rows: 1,
    columns,
    baseOffset: 0,
    predictor: 'same',
    context: { kind: 'constant', context: 1 },
    layers: [{ step: 1, table: 0 }],
  };
  // Context 1 has no symbols; each of them takes a word, and there are as many.
  const empty = { symbols: 2, frequencies: Uint16Array.of(0, 4096, 0, 0) };
  const block = concatBytes([
    new Uint8Array(Uint32Array.of(2 ** 15, 2 ** 15, columns).buffer),
    new Uint8Array(2 * columns),
  ]);
  const patch = patchOf(base, [segment], [block], { targetBytes: base.length, tables: [empty] });
  let pieces = 0;
  const applied = applyPatch(
    {
      platform: nodePlatform(),
      loops: open(),
      base: blobOf(base),
      patch: blobOf(patch),
      sizeBytes: base.length,
    },
    async () => {
      pieces += 1;
    },
  );
  await expect(applied).rejects.toThrow(/symbols do, or has some that do not occur/);
  expect(pieces).toBe(0);
});
