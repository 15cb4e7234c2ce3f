import { expect, it } from 'vitest';
import { foreseeEnd } from '../../../src/engine/follow.ts';
import { testPlatform } from '../platform.ts';

const megabyte = 1_000_000;

/** Plays a download at a speed. @returns what was loaded when it was time to prepare, and what the listener heard. */
function play(
  bytesPerMs: number,
  totalBytes: number,
  first = 0,
): { readonly at: number[]; readonly heard: number[] } {
  const platform = testPlatform();
  const at: number[] = [];
  const heard: number[] = [];
  let loaded = first;
  const listener = foreseeEnd({
    platform,
    prepare: () => at.push(loaded),
    onDownload: (loadedBytes) => heard.push(loadedBytes),
  });
  for (; loaded < totalBytes; loaded = Math.min(totalBytes, loaded + 100_000)) {
    listener(loaded, totalBytes);
    platform.advance(100_000 / bytesPerMs);
  }
  listener(loaded, totalBytes);
  return { at, heard };
}

it('prepares once, two seconds before a slow download ends', () => {
  const { at } = play(2500, 20 * megabyte);
  expect(at).toHaveLength(1);
  expect(at[0]).toBeGreaterThanOrEqual(15 * megabyte);
  expect(at[0]).toBeLessThan(15.2 * megabyte);
});

it('prepares at once for a fast download, though not before its first bytes', () => {
  expect(play(500_000, 20 * megabyte).at).toEqual([100_000]);
});

it('does not count what was there before', () => {
  const { at } = play(1000, 20 * megabyte, 10 * megabyte);
  expect(at[0]).toBeGreaterThanOrEqual(18 * megabyte);
});

it('tells all of the progress', () => {
  expect(play(500_000, 300_000).heard).toEqual([0, 100_000, 200_000, 300_000]);
});
