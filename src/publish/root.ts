/** The root of trust from one state to the next: who may sign what. Nothing is signed or written here. */

import { ServerError } from '../core/errors.ts';
import type { NamedKey } from '../trust/keys.ts';
import type { PublicKey, RoleKeys, Root, Targets } from '../trust/metadata.ts';

/** Version of the specification that metadata names. */
export const specVersion = '1.0.31';

/** Roles whose keys stay off the server. */
export type OfflineRole = 'root' | 'targets';

/** What a root is made of. */
export interface RootOptions {
  readonly rootKeys: readonly NamedKey[];
  readonly targetsKeys: readonly NamedKey[];
  /** Signs `timestamp` and `snapshot`. */
  readonly onlineKey: NamedKey;
  readonly expires: string;
  /** Default 1. The next root has the present one's version + 1. */
  readonly version?: number;
  /** How many of the root keys sign; default: more than half. */
  readonly rootThreshold?: number;
  /** How many of the targets keys sign; default 1. */
  readonly targetsThreshold?: number;
}

/** Creates a root that trusts the given keys. @throws `RangeError` if a threshold cannot be met. */
export function createRoot(options: RootOptions): Root {
  const { rootKeys, targetsKeys, onlineKey, expires, version = 1 } = options;
  const { rootThreshold = moreThanHalf(rootKeys.length), targetsThreshold = 1 } = options;
  const online = toRole([onlineKey], 1);
  return {
    _type: 'root',
    spec_version: specVersion,
    version,
    expires,
    consistent_snapshot: true,
    keys: keysById([...rootKeys, ...targetsKeys, onlineKey]),
    roles: {
      root: toRole(rootKeys, rootThreshold),
      timestamp: online,
      snapshot: online,
      targets: toRole(targetsKeys, targetsThreshold),
    },
  };
}

/** How the next root differs from the present one. */
export interface RootChange {
  readonly expires: string;
  readonly addRoot?: readonly NamedKey[];
  readonly addTargets?: readonly NamedKey[];
  /** Identifiers of keys that lose whatever offline role they have. */
  readonly remove?: readonly string[];
  /** Default: as before, or more than half of the root keys if their number changes. */
  readonly rootThreshold?: number;
  /** Default: as before, as far as the keys suffice. */
  readonly targetsThreshold?: number;
  /** Default: as before. */
  readonly onlineKey?: NamedKey;
}

/**
 * Creates the root that follows `present`. Keys that no role names any more are left out.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` if a removed key is in no offline role, or if a threshold cannot be
 * met.
 */
export function nextRoot(present: Root, change: RootChange): Root {
  const { expires, addRoot = [], addTargets = [], remove = [], onlineKey } = change;
  const stray = remove.find((id) => !offlineRoles.some((role) => present.roles[role].keyids.includes(id)));
  if (stray !== undefined) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `The key ${stray} has no offline role in root ${present.version}; see \`inlay keys status\` for those that have.`,
    );
  }
  const keep = (role: OfflineRole): readonly NamedKey[] =>
    keysOf(present, role).filter(({ keyid }) => !remove.includes(keyid));
  const rootKeys = distinct([...keep('root'), ...addRoot]);
  const targetsKeys = distinct([...keep('targets'), ...addTargets]);
  const before = present.roles;
  const {
    rootThreshold = rootKeys.length === before.root.keyids.length
      ? before.root.threshold
      : moreThanHalf(rootKeys.length),
    targetsThreshold = Math.min(before.targets.threshold, Math.max(1, targetsKeys.length)),
  } = change;
  try {
    const next = createRoot({
      rootKeys,
      targetsKeys,
      onlineKey: onlineKey ?? onlineKeyOf(present),
      expires,
      version: present.version + 1,
      rootThreshold,
      targetsThreshold,
    });
    // Without a new online key, those roles stay as they are, whatever they are.
    return onlineKey ? next : withRoles(present, next);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new ServerError('ERR_INLAY_REFUSED', `The next root cannot be made: ${cause.message}`, { cause });
  }
}

/**
 * Creates the targets that follow `present` with the same releases.
 * @param change.onlineKey gets the delegation of `rollout/*`; default: whoever has it.
 */
export function nextTargets(
  present: Targets,
  { expires, onlineKey }: { readonly expires: string; readonly onlineKey?: NamedKey | undefined },
): Targets {
  return {
    ...present,
    version: present.version + 1,
    expires,
    ...(onlineKey && { delegations: delegateRollout(onlineKey) }),
  };
}

/** Delegates `rollout/*` to the online key (`docs/protocol.md`). */
export function delegateRollout(onlineKey: NamedKey): NonNullable<Targets['delegations']> {
  return {
    keys: keysById([onlineKey]),
    roles: [{ name: 'rollout', ...toRole([onlineKey], 1), paths: ['rollout/*'], terminating: true }],
  };
}

/** Lists the keys of a role. */
export function keysOf({ keys, roles }: Root, role: keyof Root['roles']): readonly NamedKey[] {
  return roles[role].keyids.flatMap((keyid) => {
    const key = Object.hasOwn(keys, keyid) ? keys[keyid] : undefined;
    return key === undefined ? [] : [{ keyid, key }];
  });
}

/** Gives the key that a root lets sign online metadata. */
export function onlineKeyOf(root: Root): NamedKey {
  const [first] = keysOf(root, 'timestamp');
  if (first) return first;
  throw new ServerError('ERR_INLAY_REFUSED', 'The root names no online key; rotate with --online-key.');
}

/** Gives keys a role. @throws `RangeError` if the threshold cannot be met. */
function toRole(keys: readonly NamedKey[], threshold: number): RoleKeys {
  const keyids = [...new Set(keys.map(({ keyid }) => keyid))];
  if (!Number.isSafeInteger(threshold) || threshold < 1 || threshold > keyids.length) {
    throw new RangeError(
      `A threshold of ${threshold} cannot be met with ${keyids.length} keys; use 1 to that number.`,
    );
  }
  return { keyids, threshold };
}

/** Gives keys the form in which metadata lists them. */
function keysById(keys: readonly NamedKey[]): Record<string, PublicKey> {
  return Object.fromEntries(keys.map(({ keyid, key }) => [keyid, key]));
}

const offlineRoles: readonly OfflineRole[] = ['root', 'targets'];

function moreThanHalf(count: number): number {
  return Math.floor(count / 2) + 1;
}

function distinct(keys: readonly NamedKey[]): readonly NamedKey[] {
  return [...new Map(keys.map((key) => [key.keyid, key])).values()];
}

function withRoles(present: Root, next: Root): Root {
  const { timestamp, snapshot } = present.roles;
  const online = [...keysOf(present, 'timestamp'), ...keysOf(present, 'snapshot')];
  return {
    ...next,
    keys: { ...next.keys, ...keysById(online) },
    roles: { ...next.roles, timestamp, snapshot },
  };
}
