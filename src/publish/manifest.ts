/** Release manifests: written once, byte for byte the same for the same release. */

import { toHex } from '../core/bytes.ts';
import type { Platform } from '../core/platform.ts';
import { canonicalJson } from '../trust/canonical-json.ts';
import { sha256Hex } from '../trust/keys.ts';
import type {
  FileContent,
  FileRef,
  GoldenTolerance,
  ReleaseFile,
  ReleaseManifest,
  Way,
} from '../update/manifest.ts';
import type { Hop } from './hops.ts';
import type { PreparedWay } from './patches.ts';
import { releasePath, type NewCompanion } from './release.ts';

/** Size of the pieces of a file that have a hash each, bytes. */
export const chunkBytes = 1_048_576;

/** File name of the manifest in a release. */
export const manifestFile = 'release.json';
/** File name of the golden inputs in a release. */
export const goldenFile = 'golden.json';
/** File name of the reference profile in a release. */
export const profileFile = 'profile.json';

/** A variant of the model, ready to be uploaded. */
export interface PreparedFile {
  /** Name of the file, without a folder. */
  readonly file: string;
  readonly variant: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly sha256: string;
  readonly requires?: ReleaseFile['requires'] | undefined;
  readonly tolerance?: GoldenTolerance | undefined;
  readonly chunks: ReleaseFile['chunks'];
  readonly ways: readonly PreparedWay[];
  /** Patches of earlier releases, which are there already. Default: none. */
  readonly hops?: readonly Hop[];
  /** The file that it was rounded around. */
  readonly anchor?: FileContent | undefined;
}

/** Everything that a release consists of, before it has a sequence number. */
export interface PreparedRelease {
  /** The reference first. */
  readonly files: readonly [PreparedFile, ...PreparedFile[]];
  readonly golden?:
    | { readonly bytes: Uint8Array<ArrayBuffer>; readonly tolerance: GoldenTolerance }
    | undefined;
  readonly profile?: Uint8Array<ArrayBuffer> | undefined;
}

/** A manifest and what stands beside the model. */
export interface WrittenManifest {
  readonly manifest: ReleaseManifest;
  /** The manifest as it is signed: canonical JSON. */
  readonly ref: FileRef;
  /** All files of the release but the reference. */
  readonly companions: readonly (NewCompanion & { readonly bytes: Uint8Array<ArrayBuffer> })[];
}

/** Hashes each piece of a file. */
export function describeChunks(
  platform: Pick<Platform, 'createSha256'>,
  bytes: Uint8Array,
): ReleaseFile['chunks'] {
  let sha256 = '';
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    const hash = platform.createSha256();
    hash.update(bytes.subarray(at, at + chunkBytes));
    sha256 += toHex(hash.digest());
  }
  return { size: chunkBytes, sha256 };
}

/** Writes the manifest of a release. Pure: the same release and sequence number give the same bytes. */
export function writeManifest(
  platform: Pick<Platform, 'createSha256'>,
  { files, golden, profile }: PreparedRelease,
  { model, version, seq }: { readonly model: string; readonly version: string; readonly seq: number },
): WrittenManifest {
  const companions: WrittenManifest['companions'][number][] = [];
  const refOf = (file: string, sha256: string, length: number): FileRef => ({
    path: releasePath(model, seq, file),
    sha256,
    length,
  });
  const add = (
    role: NewCompanion['role'],
    file: string,
    bytes: Uint8Array<ArrayBuffer>,
    sha256: string = sha256Hex(platform, bytes),
  ): FileRef => {
    companions.push({ role, file, length: bytes.length, sha256, bytes });
    return refOf(file, sha256, bytes.length);
  };

  const [reference, ...others] = files;
  const describe = (prepared: PreparedFile, ref: FileRef): ReleaseFile => ({
    ...ref,
    variant: prepared.variant,
    ...(prepared.requires && { requires: prepared.requires }),
    ...(prepared.tolerance && { tolerance: prepared.tolerance }),
    chunks: prepared.chunks,
    ...(prepared.ways.length > 0 && {
      ways: [
        ...prepared.ways.map(({ file, bytes, sha256, ...way }): Way => {
          return { ...add(way.kind, file, bytes, sha256), ...way };
        }),
        ...(prepared.hops ?? []),
      ],
    }),
    ...(prepared.anchor && { anchor: prepared.anchor }),
  });
  const manifest: ReleaseManifest = {
    v: 1,
    model,
    version,
    seq,
    files: [
      describe(reference, refOf(reference.file, reference.sha256, reference.bytes.length)),
      ...others.map((other) => describe(other, add('variant', other.file, other.bytes, other.sha256))),
    ],
    ...(golden && {
      golden: { ...add('golden', goldenFile, golden.bytes), tolerance: golden.tolerance },
    }),
    ...(profile && { profile: add('profile', profileFile, profile) }),
  };
  const ref = add('manifest', manifestFile, canonicalJson(manifest));
  return { manifest, ref, companions };
}
