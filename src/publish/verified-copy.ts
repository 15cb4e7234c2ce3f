/** Everything that a server has in force, verified as a device does it before it runs anything. */

import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import { TrustError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { createTrustedMetadata } from '../trust/client.ts';
import type { Root, Snapshot, Targets, Timestamp } from '../trust/metadata.ts';
import type { ReleaseServer, Tip } from './publisher.ts';

/** Metadata that was verified, with the texts that it came in. */
export interface VerifiedCopy {
  /** Every root, from version 1 on. */
  readonly roots: readonly string[];
  readonly tip: Tip;
  readonly targetsText: string;
  readonly root: Root;
  readonly timestamp: Timestamp;
  readonly snapshot: Snapshot;
  readonly targets: Targets;
  readonly rollout: Targets;
}

/** What {@link readVerified} works with. */
export interface VerifiedOptions {
  readonly server: Pick<ReleaseServer, 'tip' | 'text'>;
  readonly platform: Platform;
  /** The root that is trusted in advance. */
  readonly root: Uint8Array;
}

/**
 * Reads the metadata in force.
 * @throws {@link TrustError} if anything does not verify or has expired.
 */
export async function readVerified({ server, platform, root }: VerifiedOptions): Promise<VerifiedCopy> {
  const trusted = await createTrustedMetadata({ platform, root });
  const first = trusted.root.version;
  const tip = await server.tip(0);
  for (const text of tip.roots.slice(first)) await trusted.updateRoot(toUtf8(text));
  await trusted.updateTimestamp(toUtf8(tip.timestamp));
  await trusted.updateSnapshot(toUtf8(tip.snapshot));
  const version = trusted.snapshot?.meta['targets.json']?.version ?? 0;
  const targetsText = await server.text(`/v1/metadata/${version}.targets.json`);
  await trusted.updateTargets(targetsText);
  await trusted.updateRollout(toUtf8(tip.rollout));
  trusted.assertCurrent();
  const { timestamp, snapshot, targets, rollout } = trusted;
  if (!timestamp || !snapshot || !targets || !rollout)
    throw new TrustError('ERR_INLAY_METADATA_INVALID', 'The server lacks metadata; have it published anew.');
  return {
    roots: tip.roots,
    tip,
    targetsText: fromUtf8(targetsText),
    root: trusted.root,
    timestamp,
    snapshot,
    targets,
    rollout,
  };
}
