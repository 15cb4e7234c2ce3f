import type { ModelSource } from '../core/backend.ts';
import { digestHex } from '../core/digest.ts';
import { ModelError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import type { Slot } from '../update/slot.ts';
import type { Embedded } from '../update/follower.ts';
import type { EmbeddedRelease, FileReference } from './reference.ts';

/**
 * Reads what came with the app. A file without what `inlay embed` wrote about it has no version, and comes before every
 * release.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_NOT_FOUND`; `ERR_INLAY_MODEL_INVALID` if it is not the file that was signed.
 */
export async function readEmbedded(
  platform: Platform,
  embedded: FileReference | EmbeddedRelease,
  locate: (reference: FileReference) => Promise<ModelSource>,
): Promise<Embedded> {
  const isFile = typeof embedded === 'string' || !('release' in embedded);
  const source = await locate(isFile ? embedded : embedded.file);
  const file = await identify(platform, source);
  const facts = isFile ? undefined : embedded.release;
  if (facts !== undefined && facts.file.sha256 !== file.sha256) {
    throw new ModelError(
      'ERR_INLAY_MODEL_INVALID',
      `The embedded file of ${file.length} bytes is not the one that its release names; run \`inlay embed\` again.`,
      { details: { sha256: file.sha256, expected: facts.file.sha256 } },
    );
  }
  const slot: Slot = {
    release: facts?.release ?? { ...file, path: '', seq: 0, version: '' },
    file,
    ...(facts?.variant !== undefined && { variant: facts.variant }),
    ...(facts?.manifest?.profile && { profile: facts.manifest.profile }),
  };
  return {
    slot,
    source: async () => source,
    bytes: async () => source.bytes ?? (await platform.files?.read(source.path)) ?? new Uint8Array(),
  };
}

async function identify(
  platform: Platform,
  source: ModelSource,
): Promise<{ readonly sha256: string; readonly length: number }> {
  if (source.bytes !== undefined)
    return { sha256: await digestHex(platform, source.bytes), length: source.bytes.length };
  const { files } = platform;
  return {
    sha256: (await files?.sha256(source.path)) ?? '',
    length: (await files?.size(source.path)) ?? 0,
  };
}
