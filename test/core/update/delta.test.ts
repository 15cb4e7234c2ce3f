import { describe, expect, it } from 'vitest';
import { concatBytes, equalBytes, fromHex, toHex } from '../../../src/core/bytes.ts';
import { applyPatch } from '../../../src/update/delta/apply.ts';
import { scriptLoops } from '../../../src/update/delta/hot.ts';
import { createDeltaPatcher } from '../../../src/update/delta/patcher.ts';
import { piecesOf } from '../../../src/update/delta/pieces.ts';
import large from '../../vectors/idp/large.json' with { type: 'json' };
import refusals from '../../vectors/idp/refused.json' with { type: 'json' };
import small from '../../vectors/idp/small.json' with { type: 'json' };
import { testPlatform } from '../platform.ts';
import { blobOf, joined, pairOfBytes, pairOfFloats } from './delta-fixture.ts';

const platform = testPlatform();
const patcher = createDeltaPatcher(platform);

/** Applies a patch as a device does; and with the loops in JavaScript, whatever the runtime has. */
async function both(base: Uint8Array, patch: Uint8Array, sizeBytes: number): Promise<readonly Uint8Array[]> {
  const files = { base: blobOf(base), patch: blobOf(patch), sizeBytes };
  const scripted = piecesOf<Uint8Array>((give) =>
    applyPatch({ platform, loops: scriptLoops, ...files }, give),
  );
  return [await joined(patcher.apply(files.base, files.patch, sizeBytes)), await joined(scripted)];
}

describe('a patch', () => {
  it.each(small)('makes the target: $name', async ({ base, target, patch }) => {
    for (const made of await both(fromHex(base), fromHex(patch), target.length / 2))
      expect(toHex(made)).toBe(target);
  });

  it.each([
    { name: 'bytes', ...pairOfBytes(), patch: large.bytes },
    { name: 'floats', ...pairOfFloats(), patch: large.floats },
  ])('makes a target of several blocks: $name', async ({ base, target, patch }) => {
    const bytes = fromHex(patch);
    for (const made of await both(base, bytes, target.length)) expect(equalBytes(made, target)).toBe(true);
  });

  const { base, target, patch } = small.find(
    ({ name }) => name === 'delta float32, scales',
  ) as (typeof small)[number];
  const [old, good] = [fromHex(base), fromHex(patch)];
  const refused = expect.objectContaining({ name: 'UpdateError', code: 'ERR_INLAY_PATCH' }) as unknown;
  const apply = (bytes: Uint8Array, from = old, sizeBytes = target.length / 2): Promise<Uint8Array> =>
    joined(patcher.apply(blobOf(from), blobOf(bytes), sizeBytes));

  it('is refused before anything comes out when it starts from another file', async () => {
    const other = old.slice();
    other[0] = (other[0] as number) ^ 1;
    const pieces: Uint8Array[] = [];
    await expect(async () => {
      for await (const piece of patcher.apply(blobOf(other), blobOf(good), target.length / 2))
        pieces.push(piece);
    }).rejects.toEqual(refused);
    expect(pieces).toEqual([]);
    await expect(apply(good, old.subarray(4))).rejects.toEqual(refused);
  });

  it.each(refusals)('is refused when $why', async ({ patch: bad }) => {
    await expect(apply(fromHex(bad), new Uint8Array(8), 4)).rejects.toThrow(/head of the patch is invalid/);
  });

  it('is refused when it makes a file of another size', async () => {
    await expect(apply(good, old, target.length / 2 + 1)).rejects.toThrow(
      /makes \d+ bytes, the file has \d+\. The whole/,
    );
  });

  it('is refused when it ends early, goes on after its end, or is none', async () => {
    for (const length of [0, 3, 7, 8, 50, good.length - 1]) {
      await expect(apply(good.subarray(0, length))).rejects.toEqual(refused);
    }
    await expect(apply(concatBytes([good, Uint8Array.of(0)]))).rejects.toEqual(refused);
    await expect(apply(good.map((byte, i) => (i === 3 ? byte + 1 : byte)))).rejects.toThrow(
      /no patch of version 1/,
    );
  });

  it('is refused when a block is not the one that its head names', async () => {
    const flipped = good.map((byte, i) => (i === good.length - 1 ? byte ^ 1 : byte));
    await expect(apply(flipped)).rejects.toThrow('Block 1 of the patch is not the one that its head names.');
  });
});
