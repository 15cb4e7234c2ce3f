/** A copy of the device plane as plain files, so that any static host can serve it. */

import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { equalBytes, toHex, toUtf8 } from '../core/bytes.ts';
import { TrustError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { fetchTarget } from '../publish/released-files.ts';
import type { ReleaseServer } from '../publish/publisher.ts';
import type { VerifiedCopy } from '../publish/verified-copy.ts';
import { canonicalJson } from '../trust/canonical-json.ts';
import { targetUrl } from '../update/download-file.ts';
import type { FileRef } from '../update/manifest.ts';

/** What an export did. */
export interface ExportSummary {
  readonly files: number;
  /** Those of them that were not there, or were other ones. */
  readonly written: number;
  readonly sizeBytes: number;
}

/** What {@link exportFiles} works with. */
export interface ExportOptions {
  readonly server: Pick<ReleaseServer, 'text'>;
  readonly platform: Platform;
  readonly directory: string;
}

/**
 * Writes everything that devices read. Each file appears at once, and the timestamp last: a host that serves the folder
 * meanwhile offers either the old state or the new one. Files of earlier states stay, for devices that are at them.
 * @throws {@link TrustError} if a file is not the one that was signed.
 */
export async function exportFiles(options: ExportOptions, copy: VerifiedCopy): Promise<ExportSummary> {
  const { server, platform, directory } = options;
  let files = 0;
  let written = 0;
  let sizeBytes = 0;
  const keep = async (path: string, bytes: Uint8Array): Promise<void> => {
    files += 1;
    sizeBytes += bytes.length;
    if (await replaceFile(join(directory, path), bytes, platform)) written += 1;
  };

  for (const ref of filesOf(copy)) {
    const path = targetUrl('', ref);
    if ((await shaOf(join(directory, path), ref.length, platform)) === ref.sha256) {
      files += 1;
      sizeBytes += ref.length;
    } else {
      await keep(path, await fetchTarget({ server, platform }, ref));
    }
  }
  for (const [path, { hashes, custom }] of Object.entries(copy.rollout.targets)) {
    await keep(targetUrl('', { path, sha256: hashes['sha256'] ?? '' }), canonicalJson(custom));
  }
  const { roots, tip, snapshot, targetsText } = copy;
  const metadata = (name: string, text: string): Promise<void> => keep(`/v1/metadata/${name}`, toUtf8(text));
  for (const [at, text] of roots.entries()) await metadata(`${at + 1}.root.json`, text);
  const texts: Readonly<Record<string, string>> = {
    'targets.json': targetsText,
    'rollout.json': tip.rollout,
  };
  for (const [name, { version }] of Object.entries(snapshot.meta)) {
    const text = texts[name];
    if (text !== undefined) await metadata(`${version}.${name}`, text);
  }
  await metadata(`${snapshot.version}.snapshot.json`, tip.snapshot);
  await keep('/v1/tip', toUtf8(JSON.stringify({ ...tip, roots })));
  await metadata('timestamp.json', tip.timestamp);
  return { files, written, sizeBytes };
}

/** Files that the offline key signed. */
function filesOf({ targets }: VerifiedCopy): readonly FileRef[] {
  return Object.entries(targets.targets).map(([path, { length, hashes }]) => {
    const sha256 = hashes['sha256'] ?? '';
    if (/^models\/[a-z0-9][a-z0-9._-]*\/\d+\/[a-z0-9][a-z0-9._-]*$/.test(path))
      return { path, sha256, length };
    throw new TrustError(
      'ERR_INLAY_METADATA_INVALID',
      `The target ${JSON.stringify(path.slice(0, 200))} is not at models/<model>/<seq>/<file>; have it published anew.`,
    );
  });
}

async function shaOf(path: string, length: number, { files }: Platform): Promise<string | undefined> {
  if (files === undefined || (await files.size(path)) !== length) return undefined;
  return files.sha256(path);
}

/** Writes a file, all or nothing. @returns false if it was so before. */
export async function replaceFile(path: string, bytes: Uint8Array, platform: Platform): Promise<boolean> {
  const present = await readFile(path).catch(() => undefined);
  if (present && equalBytes(present, bytes)) return false;
  await mkdir(dirname(path), { recursive: true });
  const part = `${path}.${toHex(platform.randomBytes(6))}.part`;
  try {
    const file = await open(part, 'wx', 0o644);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(part, path);
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
  return true;
}
