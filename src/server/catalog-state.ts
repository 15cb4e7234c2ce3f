/** What is installed, read in one piece. */

import { toUtf8 } from '../core/bytes.ts';
import { StoreError } from '../core/errors.ts';
import { listReleases } from '../publish/release.ts';
import type { Envelope, Root, Targets } from '../trust/metadata.ts';
import { parseEnvelope } from '../trust/parse.ts';
import type { PlanEntry } from '../update/plan.ts';
import { channelsOf, type Channels } from './channels.ts';
import { listCompanions } from './companions.ts';
import type { Heads, Repository, Role } from './db/repository.ts';
import type { OnlineRole } from './signer/port.ts';

/** A release as plans name it, with its model. */
export type Release = PlanEntry & { readonly model: string };

/** Everything that belongs to the first installed targets. */
export interface Published {
  readonly texts: Readonly<Record<OnlineRole | 'targets', string>>;
  readonly targets: Targets;
  readonly rollout: Targets;
  /** By target path. */
  readonly releases: ReadonlyMap<string, Release>;
  /** SHA-256 and length of everything that devices may download, by target path. */
  readonly files: ReadonlyMap<string, { readonly sha256: string; readonly length: number }>;
  readonly channels: Channels;
  /** Expiry by role, milliseconds since 1970. */
  readonly expiresMs: Readonly<Record<OnlineRole, number>>;
  /** Keys that signed, by role. */
  readonly keyids: Readonly<Record<OnlineRole, readonly string[]>>;
}

/** One consistent view of the catalog. A new one stands for each change. */
export interface CatalogState {
  readonly heads: Heads;
  /** Texts of all roots, oldest first. */
  readonly roots: readonly string[];
  /** The newest root. */
  readonly root: Root | undefined;
  readonly published: Published | undefined;
}

/**
 * Creates the reader of a repository; it is cheap while nothing changes.
 * @throws {@link StoreError} `ERR_INLAY_STORE_IO` from the reader if metadata is missing.
 */
export function createStateReader(repository: Repository): () => Promise<CatalogState> {
  let known: CatalogState | undefined;

  const read = async (attempts: number): Promise<CatalogState> => {
    const heads = await repository.heads();
    if (known && sameHeads(known.heads, heads)) return known;
    const text = (role: Role): Promise<string | undefined> => repository.text(role, heads[role] ?? 0);
    const [roots, targets, rollout, snapshot, timestamp] = await Promise.all([
      repository.textsAfter('root', 0),
      text('targets'),
      text('rollout'),
      text('snapshot'),
      text('timestamp'),
    ]);
    const texts = { targets, rollout, snapshot, timestamp };
    if (roots.length !== (heads.root ?? 0) || (heads.timestamp !== undefined && !isComplete(texts))) {
      // A change between the queries; its timestamp replaced the one that was looked for.
      if (attempts > 1) return read(attempts - 1);
      throw new StoreError(
        'ERR_INLAY_STORE_IO',
        'The database lacks metadata that it had; restore it from a backup.',
      );
    }
    known = {
      heads,
      roots,
      root: roots.length === 0 ? undefined : parseEnvelope(toUtf8(roots.at(-1) ?? ''), 'root').signed,
      published: isComplete(texts) ? parsePublished(texts) : undefined,
    };
    return known;
  };
  return () => read(5);
}

function isComplete(
  texts: Readonly<Record<keyof Published['texts'], string | undefined>>,
): texts is Published['texts'] {
  return Object.values(texts).every((text) => text !== undefined);
}

function parsePublished(texts: Published['texts']): Published {
  const targets = parseEnvelope(toUtf8(texts.targets), 'targets').signed;
  const online: Readonly<Record<OnlineRole, Envelope>> = {
    rollout: parseEnvelope(toUtf8(texts.rollout), 'targets'),
    snapshot: parseEnvelope(toUtf8(texts.snapshot), 'snapshot'),
    timestamp: parseEnvelope(toUtf8(texts.timestamp), 'timestamp'),
  };
  const rollout = online.rollout.signed as Targets;
  const releases = listReleases(targets);
  return {
    texts,
    targets,
    rollout,
    releases: new Map(releases.map((release) => [release.path, release])),
    files: new Map([...releases, ...listCompanions(targets)].map((file) => [file.path, file])),
    channels: channelsOf(rollout),
    expiresMs: ofRoles((role) => Date.parse(online[role].signed.expires)),
    keyids: ofRoles((role) => online[role].signatures.map(({ keyid }) => keyid)),
  };
}

function ofRoles<Value>(value: (role: OnlineRole) => Value): Record<OnlineRole, Value> {
  return { timestamp: value('timestamp'), snapshot: value('snapshot'), rollout: value('rollout') };
}

function sameHeads(a: Heads, b: Heads): boolean {
  return a.root === b.root && a.targets === b.targets && a.timestamp === b.timestamp;
}
