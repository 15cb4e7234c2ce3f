/** How a release reaches a server: everything the server says is verified before the offline key signs upon it. */

import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import { isInlayError, ServerError, TrustError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { addRelease, expiresIn, type NewRelease } from './release.ts';
import { signMetadata } from './sign.ts';
import { createTrustedMetadata } from '../trust/client.ts';
import { sha256Hex } from '../trust/keys.ts';
import type { Targets } from '../trust/metadata.ts';
import { parseEnvelope } from '../trust/parse.ts';
import { verifySignatures } from '../trust/verify.ts';
import type { Signer } from './signer.ts';

/** A release that the server has. */
export interface PublishedRelease {
  /** Target path, `models/<model>/<seq>/<file>`. */
  readonly path: string;
  readonly seq: number;
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Version of the targets that list it. */
  readonly targets: number;
}

/** The server that a release goes to, as calls of its wire protocol. */
export interface ReleaseServer {
  /** Reads the roots after `root` and the online metadata. */
  tip(root: number): Promise<Tip>;
  /** Reads a text of the device plane by its path. */
  text(path: string): Promise<Uint8Array<ArrayBuffer>>;
  hasBlob(sha256: string): Promise<boolean>;
  putBlob(sha256: string, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  putTargets(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
}

/** What a device would get in one poll. */
export interface Tip {
  readonly roots: readonly string[];
  readonly timestamp: string;
  readonly snapshot: string;
  readonly rollout: string;
}

/** Where a publisher keeps its key and what it saw last. */
export interface PublisherKeys {
  /** Where that is, for messages. */
  readonly path: string;
  signer(role: 'targets'): Promise<Signer>;
  /** The root that is trusted in advance. */
  root(): Promise<Uint8Array>;
  read(name: 'verified.json'): Promise<Uint8Array | undefined>;
  write(name: 'targets.json' | 'verified.json', bytes: Uint8Array): Promise<void>;
}

/** What {@link publishRelease} works with. */
export interface PublishOptions {
  readonly server: ReleaseServer;
  readonly keys: PublisherKeys;
  readonly platform: Platform;
}

/** Days for which the offline roles' signatures hold. */
export const offlineDays = { root: 365, targets: 180 } as const;

const maxAttempts = 10;

/**
 * Uploads a file and adds it to the targets as a release. When somebody else published meanwhile, it starts again
 * from their targets. Publishing the same file under the same version again changes nothing.
 * @throws {@link TrustError} if the server's metadata does not verify against `root.json`, is older than what was
 * seen before, or {@link ServerError} if the server refuses.
 */
export async function publishRelease(
  { server, keys, platform }: PublishOptions,
  bytes: Uint8Array<ArrayBuffer>,
  release: Omit<NewRelease, 'length' | 'sha256' | 'expires'>,
): Promise<PublishedRelease> {
  const signer = await keys.signer('targets');
  const sha256 = sha256Hex(platform, bytes);
  const sizeBytes = bytes.length;
  for (let attempt = 1; ; attempt += 1) {
    const present = await currentTargets({ server, keys, platform });
    const expires = expiresIn(platform.now(), offlineDays.targets);
    const { targets, path, seq } = addRelease(present, { ...release, length: sizeBytes, sha256, expires });
    if (targets === present) return { path, seq, sha256, sizeBytes, targets: targets.version };
    if (!(await server.hasBlob(sha256))) await server.putBlob(sha256, bytes);
    const signed = await signMetadata(targets, [signer]);
    try {
      await server.putTargets(signed);
    } catch (error) {
      const raced = isInlayError(error) && error.code === 'ERR_INLAY_CONFLICT';
      if (raced && attempt < maxAttempts) continue;
      throw error;
    }
    await keys.write('targets.json', signed);
    return { path, seq, sha256, sizeBytes, targets: targets.version };
  }
}

/**
 * Reads the targets in force and verifies them as a device would, from `root.json` on, except that they may have
 * expired: publishing is what renews them.
 */
async function currentTargets({ server, keys, platform }: PublishOptions): Promise<Targets> {
  const root = await keys.root();
  const trusted = await createTrustedMetadata({ platform, root, stored: await seenBefore(keys) });
  const tip = await server.tip(trusted.root.version);
  for (const text of tip.roots) await trusted.updateRoot(toUtf8(text));
  await trusted.updateTimestamp(toUtf8(tip.timestamp));
  await trusted.updateSnapshot(toUtf8(tip.snapshot));
  const pin = trusted.snapshot?.meta['targets.json'];
  if (!pin) throw new TrustError('ERR_INLAY_METADATA_INVALID', 'The snapshot does not list targets.json.');
  const bytes = await server.text(`/v1/metadata/${pin.version}.targets.json`);
  if (sha256Hex(platform, bytes) !== pin.hashes?.['sha256']) {
    throw new TrustError('ERR_INLAY_HASH', 'The targets are not those that the snapshot pins; try again.');
  }
  const envelope = parseEnvelope(bytes, 'targets');
  // Whoever holds the online key could call an old file the newest one (TUF 1.0 §5.6.4).
  if (envelope.signed.version !== pin.version) {
    throw new TrustError(
      'ERR_INLAY_ROLLBACK',
      `The targets are of version ${envelope.signed.version} where the snapshot pins ${pin.version}; restore the server.`,
    );
  }
  await verifySignatures(platform, envelope, 'targets', trusted.root.keys, trusted.root.roles.targets);
  await keys.write('verified.json', toUtf8(JSON.stringify(trusted.export())));
  return envelope.signed;
}

/** What was verified last time, so that a server cannot take the publisher back to an earlier state. */
async function seenBefore(keys: PublisherKeys): Promise<Readonly<Record<string, string>>> {
  const bytes = await keys.read('verified.json');
  if (!bytes) return {};
  try {
    const texts: unknown = JSON.parse(fromUtf8(bytes));
    if (typeof texts === 'object' && texts !== null) return texts as Record<string, string>;
  } catch {
    // Said below.
  }
  throw new ServerError(
    'ERR_INLAY_CONFLICT',
    `The file verified.json in ${keys.path} is damaged; delete it to trust what the server has now.`,
  );
}
