/** What a server has in force, verified as a device would before anything is signed upon it. */

import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import { isInlayError, ServerError, TrustError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { assertNotLower } from '../trust/checks.ts';
import { createTrustedMetadata, type TrustedMetadata } from '../trust/client.ts';
import { sha256Hex } from '../trust/keys.ts';
import type { Envelope, MetaFile, Root, Snapshot, Targets } from '../trust/metadata.ts';
import { parseEnvelope } from '../trust/parse.ts';
import { verifySignatures } from '../trust/verify.ts';
import type { PublisherKeys, ReleaseServer, Tip } from './publisher.ts';

/** What {@link readCurrent} works with. */
export interface CurrentOptions {
  readonly server: Pick<ReleaseServer, 'tip' | 'text'>;
  readonly keys: Pick<PublisherKeys, 'path' | 'root' | 'read' | 'write'>;
  readonly platform: Platform;
  /**
   * Goes on where the server's key is not the one that the root names, because it was lost or stolen: the targets then
   * only have to be signed, and not older than what was seen before. Default false.
   */
  readonly withoutOnlineKey?: boolean;
}

/** Metadata in force. Root and targets may have expired; everything else was checked. */
export interface Current {
  readonly root: Root;
  /** Roots after the one that is trusted in advance, oldest first. */
  readonly roots: readonly Uint8Array[];
  readonly targets: Envelope<Targets>;
  /** The targets as they were received. */
  readonly targetsBytes: Uint8Array;
  readonly tip: Tip;
}

/** Reads the targets in force; see {@link readCurrent}. */
export async function currentTargets(options: CurrentOptions): Promise<Targets> {
  return (await readCurrent(options)).targets.signed;
}

/**
 * Reads what is in force and verifies it as a device would, from `root.json` on, except that the offline roles may
 * have expired: whoever calls this is about to renew them.
 * @throws {@link TrustError} if something does not verify or is older than what was seen before.
 */
export async function readCurrent(options: CurrentOptions): Promise<Current> {
  const { server, keys, platform, withoutOnlineKey = false } = options;
  const trusted = await createTrustedMetadata({
    platform,
    root: await keys.root(),
    stored: await seenBefore(keys),
  });
  const tip = await server.tip(trusted.root.version);
  for (const text of tip.roots) await trusted.updateRoot(toUtf8(text));
  const hasExpired = Date.parse(trusted.root.expires) <= platform.now();
  const found = hasExpired ? pinDespiteExpiry(trusted, tip, platform) : pinOfTargets(trusted, tip);
  const pin = await found.catch((error: unknown) => {
    const isLost = isInlayError(error) && ['ERR_INLAY_SIGNATURE', 'ERR_INLAY_EXPIRED'].includes(error.code);
    if (withoutOnlineKey && isLost) return pinAsClaimed(trusted, tip);
    throw error;
  });
  const bytes = await server.text(`/v1/metadata/${pin.version}.targets.json`);
  assertHash(platform, 'targets', bytes, pin);
  const envelope = parseEnvelope(bytes, 'targets');
  // Whoever holds the online key could call an old file the newest one (TUF 1.0 §5.6.4).
  if (envelope.signed.version !== pin.version) {
    throw new TrustError(
      'ERR_INLAY_ROLLBACK',
      `The targets are of version ${envelope.signed.version} where the snapshot pins ${pin.version}; restore the server.`,
    );
  }
  await verifySignatures(platform, envelope, 'targets', trusted.root.keys, trusted.root.roles.targets);
  const texts = trusted.export();
  await keys.write('verified.json', toUtf8(JSON.stringify(texts)));
  return { root: trusted.root, roots: laterRoots(texts), targets: envelope, targetsBytes: bytes, tip };
}

/** What the online key says is the newest version of the targets. */
async function pinOfTargets(trusted: TrustedMetadata, tip: Tip): Promise<MetaFile> {
  await trusted.updateTimestamp(toUtf8(tip.timestamp));
  await trusted.updateSnapshot(toUtf8(tip.snapshot));
  return listed(trusted.snapshot);
}

/** The same below a root that has expired: it could not be renewed otherwise. Nothing else may have expired. */
async function pinDespiteExpiry(seen: TrustedMetadata, tip: Tip, platform: Platform): Promise<MetaFile> {
  const { keys, roles } = seen.root;
  const timestamp = parseEnvelope(toUtf8(tip.timestamp), 'timestamp');
  await verifySignatures(platform, timestamp, 'timestamp', keys, roles.timestamp);
  assertNotLower('timestamp', timestamp.signed.version, seen.timestamp?.version ?? 0);
  const bytes = toUtf8(tip.snapshot);
  assertHash(platform, 'snapshot', bytes, timestamp.signed.meta['snapshot.json']);
  const snapshot = parseEnvelope(bytes, 'snapshot');
  await verifySignatures(platform, snapshot, 'snapshot', keys, roles.snapshot);
  for (const [name, { version }] of Object.entries(seen.snapshot?.meta ?? {})) {
    assertNotLower(name, snapshot.signed.meta[name]?.version ?? 0, version);
  }
  for (const { _type: role, expires } of [timestamp.signed, snapshot.signed]) {
    if (Date.parse(expires) > platform.now()) continue;
    throw new TrustError(
      'ERR_INLAY_EXPIRED',
      `The server's ${role} expired at ${expires}; start the server that signs it, or correct this clock.`,
      { details: { role, expires } },
    );
  }
  return listed(snapshot.signed);
}

/** The same, when nobody can vouch for it any more. */
function pinAsClaimed(trusted: TrustedMetadata, tip: Tip): MetaFile {
  const pin = listed(parseEnvelope(toUtf8(tip.snapshot), 'snapshot').signed);
  const seen = trusted.snapshot?.meta['targets.json']?.version ?? 1;
  if (pin.version >= seen) return pin;
  throw new TrustError(
    'ERR_INLAY_ROLLBACK',
    `The server has targets ${pin.version} where ${seen} were seen before; restore the server.`,
    { details: { version: pin.version, trusted: seen } },
  );
}

function assertHash(platform: Platform, role: string, bytes: Uint8Array, pin: MetaFile): void {
  if (sha256Hex(platform, bytes) === pin.hashes?.['sha256']?.toLowerCase()) return;
  throw new TrustError(
    'ERR_INLAY_HASH',
    `The ${role} of the server is not what the metadata above it pins; try again.`,
    { details: { role } },
  );
}

function listed(snapshot: Snapshot | undefined): MetaFile {
  const pin = snapshot?.meta['targets.json'];
  if (pin) return pin;
  throw new TrustError('ERR_INLAY_METADATA_INVALID', 'The snapshot does not list targets.json.');
}

function laterRoots(texts: Readonly<Record<string, string>>): readonly Uint8Array[] {
  return Object.entries(texts)
    .flatMap(([name, text]) => {
      const [, version] = /^root\.(\d+)$/.exec(name) ?? [];
      return version === undefined ? [] : [{ version: Number(version), bytes: toUtf8(text) }];
    })
    .sort((a, b) => a.version - b.version)
    .map(({ bytes }) => bytes);
}

/** What was verified last time, so that a server cannot take the publisher back to an earlier state. */
async function seenBefore(keys: CurrentOptions['keys']): Promise<Readonly<Record<string, string>>> {
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
