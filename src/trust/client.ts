/** The trusted set of metadata and the one way into it: TUF 1.0 §5.3–5.6, without I/O. */

import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import { TrustError, isInlayError } from '../core/errors.ts';
import {
  assertBytesPinned,
  assertFresh,
  assertNotLower,
  assertPinned,
  invalid,
  isFresh,
  read,
  receive,
  show,
  type Held,
} from './checks.ts';
import { covers, delegationTo } from './delegations.ts';
import { identityOf } from './keys.ts';
import type { MetaFile, PublicKey, RoleKeys, Root, TopRole } from './metadata.ts';
import { isTime } from './parse.ts';
import type { TrustedMetadata, TrustedMetadataOptions } from './trusted-metadata.ts';
import { verifySignatures } from './verify.ts';

export { metadataCaps } from './checks.ts';
export type { TrustedMetadata, TrustedMetadataOptions } from './trusted-metadata.ts';

/** The key under which {@link TrustedMetadata.export} gives the metadata of a delegated role. */
export function keyOfDelegated(role: string): string {
  return role === 'rollout' ? role : `${delegatedPrefix}${role}`;
}

const delegatedPrefix = 'delegated/';

/** One file per role, as the snapshot pins one, and whose delegations it was verified by. */
interface HeldRole {
  readonly held: Held<'targets'>;
  readonly delegators: ReadonlySet<string>;
}

interface HeldSet {
  readonly timestamp?: Held<'timestamp'> | undefined;
  readonly snapshot?: Held<'snapshot'> | undefined;
  readonly targets?: Held<'targets'> | undefined;
  readonly delegated: ReadonlyMap<string, HeldRole>;
}

/**
 * Creates a trusted set from the app's root and from what was stored.
 * @throws {@link TrustError} if the app's own root is not intact and signed by itself.
 */
export async function createTrustedMetadata(options: TrustedMetadataOptions): Promise<TrustedMetadata> {
  const { platform, stored = {} } = options;
  const startMs = platform.now();
  /** What was verified by which delegator, both as they are held, so that nothing is verified twice. */
  const verified = new WeakMap<object, WeakSet<object>>();
  const verify = async <Type extends TopRole>(
    held: Held<Type>,
    roleName: string,
    delegator: Held<TopRole>,
    keys: Readonly<Record<string, PublicKey>>,
    role: RoleKeys,
  ): Promise<Held<Type>> => {
    const by = verified.get(held) ?? new WeakSet();
    if (by.has(delegator)) return held;
    await verifySignatures(platform, held.envelope, roleName, keys, role);
    verified.set(held, by.add(delegator));
    return held;
  };
  const readRoot = (bytes: Uint8Array): Held<'root'> => read('root', 'root', receive(platform, bytes));
  const verifyRoot = (next: Held<'root'>, { envelope }: Held<'root'>): Promise<void> =>
    verifySignatures(platform, next.envelope, 'root', envelope.signed.keys, envelope.signed.roles.root);

  let root = readRoot(options.root);
  await verifyRoot(root, root);
  const laterRoots: Held<'root'>[] = [];
  let held: HeldSet = { delegated: new Map() };

  /** The time that expiries are measured against. */
  const timeOf = (timestamp: Held<'timestamp'> | undefined, atMs: number): number => {
    const { issued } = timestamp?.envelope.signed ?? {};
    // Other repositories may mean something else by it.
    return isTime(issued) ? Math.max(atMs, Date.parse(issued)) : atMs;
  };
  const now = (): number => timeOf(held.timestamp, startMs);

  const byRoot = <Type extends Exclude<TopRole, 'root'>>(
    type: Type,
    next: Held<Type>,
  ): Promise<Held<Type>> => {
    const { keys, roles } = root.envelope.signed;
    return verify(next, type, root, keys, roles[type]);
  };

  const byDelegator = async (
    delegator: string,
    delegating: Held<'targets'>,
    name: string,
    next: Held<'targets'>,
  ): Promise<Held<'targets'>> => {
    const delegation = delegationTo(delegating.envelope.signed, name);
    if (!delegation) throw invalid(`${show(delegator)} does not delegate to the role ${show(name)}`);
    const { keys, role } = delegation;
    await verify(next, name, delegating, keys, role);
    if (delegator === 'targets' && name === 'rollout') {
      const stray = Object.keys(next.envelope.signed.targets).find(
        (path) => !/^rollout\/[^/]+$/.test(path) || !covers(platform, role, path),
      );
      if (stray !== undefined) {
        throw invalid(
          `the role rollout lists ${JSON.stringify(stray.slice(0, 80))}, which is not delegated to it`,
        );
      }
    }
    return next;
  };

  const acceptRoot = async (bytes: Uint8Array): Promise<void> => {
    const next = readRoot(bytes);
    const present = root.envelope.signed;
    const { version } = next.envelope.signed;
    if (version !== present.version + 1) {
      throw new TrustError(
        'ERR_INLAY_ROLLBACK',
        `Root version ${version} does not follow version ${present.version}; serve every root in order.`,
        { details: { role: 'root', version, trusted: present.version } },
      );
    }
    // TUF 1.0 §5.3.4: the old threshold and the new one.
    await verifyRoot(next, root);
    await verifyRoot(next, next);
    root = next;
    laterRoots.push(root);
    // TUF 1.0 §5.3.11: rotated online keys end a fast-forward attack, since their versions may start again.
    if (rotated(present, next.envelope.signed)) held = { ...held, timestamp: undefined, snapshot: undefined };
  };

  /** Keeps of a set what the root and what it holds itself still vouch for; expiry is checked when it is used. */
  const prove = async (from: HeldSet): Promise<HeldSet> => {
    const timestamp = await orDropped(from.timestamp, (one) => byRoot('timestamp', one));
    const snapshot = await orDropped(from.snapshot, (one) => byRoot('snapshot', one));
    const targets = await orDropped(from.targets, (one) => {
      assertPinned('targets', one, pinOf(snapshot, 'targets'));
      return byRoot('targets', one);
    });
    const delegated = new Map<string, { held: Held<'targets'>; delegators: Set<string> }>();
    const reached = targets ? [{ delegator: 'targets', delegating: targets }] : [];
    for (const { delegator, delegating } of reached) {
      for (const [name, { held: one }] of from.delegated) {
        if (!delegationTo(delegating.envelope.signed, name)) continue;
        const found = await orDropped(one, () => {
          assertPinned(name, one, pinOf(snapshot, name));
          return byDelegator(delegator, delegating, name, one);
        });
        const known = delegated.get(name);
        if (found && known) known.delegators.add(delegator);
        else if (found) {
          delegated.set(name, { held: found, delegators: new Set([delegator]) });
          reached.push({ delegator: name, delegating: found });
        }
      }
    }
    return { timestamp, snapshot, targets, delegated };
  };

  const currentSnapshot = (atMs: number): Held<'snapshot'> => {
    const { timestamp, snapshot } = held;
    if (!timestamp || !snapshot) throw invalid('there is no timestamp or no snapshot yet');
    assertFresh('root', root, atMs);
    assertFresh('timestamp', timestamp, atMs);
    assertPinned('snapshot', snapshot, timestamp.envelope.signed.meta['snapshot.json']);
    assertFresh('snapshot', snapshot, atMs);
    return snapshot;
  };

  const currentTargets = (atMs: number): Held<'targets'> => {
    currentSnapshot(atMs);
    if (!held.targets) throw invalid('there is no targets that belongs to the snapshot');
    assertFresh('targets', held.targets, atMs);
    return held.targets;
  };

  const roleOf = (delegator: string, name: string): Held<'targets'> | undefined => {
    const role = held.delegated.get(name);
    return role?.delegators.has(delegator) ? role.held : undefined;
  };

  const updateDelegated = async (delegator: string, name: string, bytes: Uint8Array): Promise<void> => {
    const targets = currentTargets(now());
    const delegating = delegator === 'targets' ? targets : held.delegated.get(delegator)?.held;
    if (!delegating)
      throw invalid(`there is no metadata of ${show(delegator)}, which delegates to ${show(name)}`);
    assertFresh(delegator, delegating, now());
    const pin = pinOf(held.snapshot, name);
    const received = receive(platform, bytes);
    assertBytesPinned(name, received, pin);
    const present = held.delegated.get(name);
    const isSame = present?.held.hash('sha256') === received.hash('sha256');
    const next = isSame && present ? present.held : read(name, 'targets', received);
    await byDelegator(delegator, delegating, name, next);
    assertPinned(name, next, pin);
    assertFresh(name, next, now());
    const delegators = new Set(isSame ? present?.delegators : []).add(delegator);
    const delegated = new Map(held.delegated).set(name, { held: next, delegators });
    held = { ...held, delegated };
    // What was verified by the file that this one replaces has to be verified by this one.
    if (present && !isSame) held = await prove(held);
  };

  for (let version = root.envelope.signed.version + 1; ; version += 1) {
    const accepted = await orDropped(stored[`root.${version}`], async (text) => {
      await acceptRoot(toUtf8(text));
      return true;
    });
    if (!accepted) break;
  }
  const readStored = <Type extends TopRole>(
    key: string,
    role: string,
    type: Type,
  ): Promise<Held<Type> | undefined> =>
    orDropped(Object.hasOwn(stored, key) ? stored[key] : undefined, async (text) =>
      read(role, type, receive(platform, toUtf8(text))),
    );
  const storedRoles = new Map<string, HeldRole>();
  for (const key of Object.keys(stored)) {
    if (key !== 'rollout' && !key.startsWith(delegatedPrefix)) continue;
    const name = key === 'rollout' ? key : key.slice(delegatedPrefix.length);
    const one = await readStored(key, name, 'targets');
    if (one) storedRoles.set(name, { held: one, delegators: new Set() });
  }
  held = await prove({
    timestamp: await readStored('timestamp', 'timestamp', 'timestamp'),
    snapshot: await readStored('snapshot', 'snapshot', 'snapshot'),
    targets: await readStored('targets', 'targets', 'targets'),
    delegated: storedRoles,
  });

  return {
    get root() {
      return root.envelope.signed;
    },
    get timestamp() {
      return held.timestamp?.envelope.signed;
    },
    get snapshot() {
      return held.snapshot?.envelope.signed;
    },
    get targets() {
      return held.targets?.envelope.signed;
    },
    get rollout() {
      return roleOf('targets', 'rollout')?.envelope.signed;
    },

    delegated: (delegator, name) => {
      const role = roleOf(delegator, name);
      return role && isFresh(role, now()) ? role.envelope.signed : undefined;
    },

    isCurrent: (role) => {
      try {
        (role === 'snapshot' ? currentSnapshot : currentTargets)(now());
        return true;
      } catch {
        return false;
      }
    },

    updateRoot: async (bytes) => {
      await acceptRoot(bytes);
      held = await prove(held);
    },

    updateTimestamp: async (bytes) => {
      assertFresh('root', root, now());
      const next = await byRoot('timestamp', read('timestamp', 'timestamp', receive(platform, bytes)));
      const present = held.timestamp;
      if (present) {
        const before = present.envelope.signed;
        const after = next.envelope.signed;
        assertNotLower('timestamp', after.version, before.version);
        assertNotLower('snapshot', after.meta['snapshot.json'].version, before.meta['snapshot.json'].version);
        if (after.version === before.version) {
          assertFresh('timestamp', present, now());
          return false;
        }
      }
      assertFresh('timestamp', next, timeOf(next, now()));
      held = { ...held, timestamp: next };
      return true;
    },

    updateSnapshot: async (bytes) => {
      const { timestamp } = held;
      if (!timestamp) throw invalid('there is no timestamp to check the snapshot by');
      assertFresh('timestamp', timestamp, now());
      const pin = timestamp.envelope.signed.meta['snapshot.json'];
      const received = receive(platform, bytes);
      assertBytesPinned('snapshot', received, pin);
      const next = await byRoot('snapshot', read('snapshot', 'snapshot', received));
      assertPinned('snapshot', next, pin);
      const after = next.envelope.signed.meta;
      for (const [name, { version }] of Object.entries(held.snapshot?.envelope.signed.meta ?? {})) {
        assertNotLower(name, Object.hasOwn(after, name) ? (after[name]?.version ?? 0) : 0, version);
      }
      assertFresh('snapshot', next, now());
      held = await prove({ ...held, snapshot: next });
    },

    updateTargets: async (bytes) => {
      const pin = pinOf(currentSnapshot(now()), 'targets');
      const received = receive(platform, bytes);
      assertBytesPinned('targets', received, pin);
      const next = await byRoot('targets', read('targets', 'targets', received));
      assertPinned('targets', next, pin);
      assertFresh('targets', next, now());
      // Whoever signs delegated roles may have changed.
      held = await prove({ ...held, targets: next });
    },

    updateDelegated,
    updateRollout: (bytes) => updateDelegated('targets', 'rollout', bytes),

    assertCurrent: (atMs = startMs) => {
      const time = timeOf(held.timestamp, atMs);
      currentTargets(time);
      const rollout = roleOf('targets', 'rollout');
      if (rollout) assertFresh('rollout', rollout, time);
      else if (held.snapshot?.envelope.signed.meta['rollout.json']) throw invalid('rollout is missing');
    },

    export: () => {
      const texts: Record<string, string> = {};
      for (const { bytes, envelope } of laterRoots)
        texts[`root.${envelope.signed.version}`] = fromUtf8(bytes);
      for (const role of ['timestamp', 'snapshot', 'targets'] as const) {
        const one = held[role];
        if (one) texts[role] = fromUtf8(one.bytes);
      }
      for (const [name, role] of held.delegated) texts[keyOfDelegated(name)] = fromUtf8(role.held.bytes);
      return texts;
    },
  };
}

async function orDropped<Raw, Result>(
  raw: Raw | undefined,
  accept: (raw: Raw) => Promise<Result>,
): Promise<Result | undefined> {
  if (raw === undefined) return undefined;
  try {
    return await accept(raw);
  } catch (error) {
    if (isInlayError(error) && error.name === 'TrustError') return undefined;
    throw error;
  }
}

function pinOf(snapshot: Held<'snapshot'> | undefined, role: string): MetaFile {
  const file = `${role}.json`;
  const { meta = {} } = snapshot?.envelope.signed ?? {};
  const pin = Object.hasOwn(meta, file) ? meta[file] : undefined;
  if (!pin) throw invalid(`the snapshot does not list ${show(file)}`);
  return pin;
}

function rotated(before: Root, after: Root): boolean {
  return (['timestamp', 'snapshot'] as const).some(
    (role) => signersOf(before, role) !== signersOf(after, role),
  );
}

/** By public key, since a keyid can be given to another key. */
function signersOf({ keys, roles }: Root, role: TopRole): string {
  const publicKeys = roles[role].keyids.map((keyid) => {
    const key = Object.hasOwn(keys, keyid) ? keys[keyid] : undefined;
    return (key && identityOf(key)) ?? '';
  });
  return publicKeys.sort().join(' ');
}
