/** What else than whole files a release offers: compressed files, and patches from earlier ones. */

import type { Platform } from '../core/platform.ts';
import { sha256Hex } from '../trust/keys.ts';
import { maxItems } from '../update/manifest.ts';
import { nameLength } from './release.ts';

/** Makes patches of one format; the counterpart of a `Patcher`. The same files give the same patch. */
export interface PatchEncoder {
  /** Name of the format, as manifests have it: `[a-z0-9][a-z0-9._-]*`. */
  readonly codec: string;
  /** Makes the patch that turns `base` into `next`. */
  encode(
    base: Uint8Array<ArrayBuffer>,
    next: Uint8Array<ArrayBuffer>,
  ): Uint8Array<ArrayBuffer> | Promise<Uint8Array<ArrayBuffer>>;
  /** Makes a patch that starts from nothing, for first installs; devices know those of `idp` alone. Absent: there are none. */
  readonly encodeAlone?: Gzip;
}

/** Compresses a file as RFC 1952 says. The same file gives the same bytes. */
export type Gzip = (bytes: Uint8Array<ArrayBuffer>) => Promise<Uint8Array<ArrayBuffer>>;

/** A file that patches can start from. */
export interface BaseFile {
  readonly seq: number;
  readonly sha256: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** One way to have a file, ready to be uploaded. */
export type PreparedWay = WayFile & { readonly sha256: string };

/** What a way is, and its bytes. */
type WayFile = {
  /** Name of the file, without a folder. */
  readonly file: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
} & (
  | { readonly kind: 'compressed'; readonly codec: 'gzip' | 'idp' }
  | {
      readonly kind: 'patch';
      readonly codec: string;
      /** SHA-256 of the file that it starts from. */
      readonly from: string;
    }
);

/** Largest share of the whole file at which a way is worth having, per cent. */
export const worthPercent: Readonly<Record<WayFile['kind'], number>> = { compressed: 95, patch: 90 };

/** What {@link prepareWays} works with. */
export interface WayOptions {
  readonly platform: Pick<Platform, 'createSha256'>;
  /** Absent: nothing is compressed. */
  readonly gzip?: Gzip | undefined;
  readonly encoders: readonly PatchEncoder[];
  readonly bases: readonly BaseFile[];
}

/**
 * Makes the ways in which a file can be had besides the whole of it. Those that save little are left out, and so is
 * what is no smaller than the compressed file: devices take the cheapest path over what they can use. Of more than a
 * manifest may name, it is the first.
 */
export async function prepareWays(
  options: WayOptions,
  file: string,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<readonly PreparedWay[]> {
  const { platform, gzip, encoders, bases } = options;
  // Bytes of the smallest that needs no base.
  let compressedBytes = Infinity;
  const ways: PreparedWay[] = [];
  const keep = (way: WayFile): void => {
    if (way.bytes.length * 100 > bytes.length * worthPercent[way.kind]) return;
    if (way.bytes.length >= compressedBytes || ways.length === maxItems) return;
    if (way.kind === 'compressed') compressedBytes = way.bytes.length;
    ways.push({ ...way, sha256: sha256Hex(platform, way.bytes) });
  };
  if (gzip) keep({ kind: 'compressed', codec: 'gzip', file: besides(file, '.gz'), bytes: await gzip(bytes) });
  // Devices that do not know the format leave it out, and take gzip.
  for (const { codec, encodeAlone } of encoders) {
    if (encodeAlone && codec === 'idp')
      keep({ kind: 'compressed', codec, file: besides(file, `.${codec}`), bytes: await encodeAlone(bytes) });
  }
  // Several releases may have the same file.
  const done = new Set([sha256Hex(platform, bytes)]);
  for (const base of bases) {
    if (done.has(base.sha256)) continue;
    done.add(base.sha256);
    for (const { codec, encode } of encoders) {
      const patch = await encode(base.bytes, bytes);
      const name = besides(file, `.from-${base.seq}.${codec}`);
      keep({ kind: 'patch', codec, from: base.sha256, file: name, bytes: patch });
    }
  }
  return ways;
}

function besides(file: string, ending: string): string {
  return `${file.slice(0, nameLength - ending.length)}${ending}`;
}
