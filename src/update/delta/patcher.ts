import type { DigestPlatform } from '../../core/digest.ts';
import type { Patcher } from '../patcher.ts';
import { piecesOf } from './pieces.ts';

/** Name of the format, as manifests have it. */
export const PATCH_CODEC = 'idp';

/**
 * Creates what applies Inlay's own patches (docs/spec/idp.md). The decoder is loaded with the first patch. Besides the
 * head it holds less than 2 MB, whatever the size of the files, and what the patch says of each row and column of the
 * tensor at hand. It gives pieces of at most 256 KiB, and lets others have the thread every few milliseconds.
 *
 * A block is verified before it is decoded. Pieces of good blocks come out before a bad one is reached: who takes them
 * keeps them only when all have come, and have the hash that was signed.
 */
export function createDeltaPatcher(platform: DigestPlatform): Patcher {
  return {
    codec: PATCH_CODEC,
    apply: (base, patch, sizeBytes) =>
      piecesOf(async (give) => {
        const { applyPatch, openLoops } = await import('./decoder.ts');
        await applyPatch({ platform, loops: openLoops(), base, patch, sizeBytes }, give);
      }),
  };
}
