/** Files of releases that a server has, read back and verified. */

import { ServerError, TrustError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { sha256Hex } from '../trust/keys.ts';
import type { ModelTarget, Targets } from '../trust/metadata.ts';
import { targetUrl } from '../update/download-file.ts';
import { readManifest, type FileRef, type ReleaseManifest } from '../update/manifest.ts';
import type { BaseFile } from './patches.ts';
import type { ReleaseServer } from './publisher.ts';
import { findRelease, isWithdrawn, listReleases, type ListedRelease } from './release.ts';

/** Where files are read from. */
export interface FileSource {
  readonly server: Pick<ReleaseServer, 'text'>;
  readonly platform: Pick<Platform, 'createSha256'>;
}

/**
 * Reads a target.
 * @throws {@link TrustError} `ERR_INLAY_LENGTH` or `ERR_INLAY_HASH` if it is not what was signed.
 */
export async function fetchTarget(
  { server, platform }: FileSource,
  ref: FileRef,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = await server.text(targetUrl('', ref));
  if (bytes.length !== ref.length) {
    throw new TrustError(
      'ERR_INLAY_LENGTH',
      `The file ${ref.path} has ${bytes.length} bytes instead of ${ref.length}; have the server's storage checked.`,
    );
  }
  if (sha256Hex(platform, bytes) !== ref.sha256) {
    throw new TrustError(
      'ERR_INLAY_HASH',
      `The file ${ref.path} is not the one that was signed; have the server's storage checked.`,
    );
  }
  return bytes;
}

/** Reads the manifest of a release that `targets` list; `undefined` if it has none. */
export async function fetchManifest(
  source: FileSource,
  targets: Targets,
  { path }: Pick<ListedRelease, 'path'>,
): Promise<ReleaseManifest | undefined> {
  const { manifest } = (targets.targets[path]?.custom ?? {}) as Partial<ModelTarget>;
  if (manifest === undefined) return undefined;
  return readManifest(await fetchTarget(source, manifest));
}

/** Which releases patches start from: versions, or the last three and the first one, the anchor of those who stay on it. */
export type PatchFrom = readonly string[] | 'auto';

const autoBases = 3;

/** What {@link readBases} goes by. */
export interface BaseChoice {
  readonly model: string;
  readonly from: PatchFrom;
  /** SHA-256 of the file that the new one was rounded around, whose release counts as well. */
  readonly anchor?: string | undefined;
}

/**
 * Reads the files that patches can start from, by variant.
 * @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` if there is no such version.
 */
export async function readBases(
  source: FileSource,
  targets: Targets,
  { model, from, anchor }: BaseChoice,
): Promise<ReadonlyMap<string, readonly BaseFile[]>> {
  const bases = new Map<string, BaseFile[]>();
  const around = listReleases(targets).filter((one) => one.model === model && one.sha256 === anchor);
  const chosen = [...around.slice(0, 1), ...releasesOf(targets, model, from)];
  for (const release of new Map(chosen.map((one) => [one.path, one])).values()) {
    const manifest = await fetchManifest(source, targets, release);
    for (const file of manifest?.files ?? [{ ...release, variant: 'fp32' }]) {
      const { sha256, variant } = file;
      const base = { seq: release.seq, sha256, bytes: await fetchTarget(source, file) };
      bases.set(variant, [...(bases.get(variant) ?? []), base]);
    }
  }
  return bases;
}

function releasesOf(targets: Targets, model: string, from: PatchFrom): readonly ListedRelease[] {
  if (from === 'auto') {
    const present = listReleases(targets)
      .filter((entry) => entry.model === model && !isWithdrawn(targets, model, entry.seq))
      .sort((a, b) => b.seq - a.seq);
    return [...present.slice(0, autoBases), ...present.slice(autoBases).slice(-1)];
  }
  return [...new Set(from)].map((version) => requireRelease(targets, model, version));
}

function noVersion(model: string, version: string): never {
  throw new ServerError(
    'ERR_INLAY_NOT_FOUND',
    `Model ${model} has no version ${version}; \`inlay status\` lists the versions that there are.`,
    { details: { model, version } },
  );
}

/**
 * Finds a release.
 * @throws {@link ServerError} `ERR_INLAY_NOT_FOUND`
 */
export function requireRelease(targets: Targets, model: string, version: string): ListedRelease {
  return findRelease(targets, model, version) ?? noVersion(model, version);
}
