/** The trusted set of metadata and the one way into it: TUF 1.0 §5.3–5.6, without I/O. */

import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import { TrustError, isInlayError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import {
  assertBytesPinned,
  assertFresh,
  assertNotLower,
  assertPinned,
  invalid,
  matches,
  read,
  type Held,
  type TrustedRole,
} from './checks.ts';
import type {
  MetaFile,
  PublicKey,
  RoleKeys,
  Root,
  Snapshot,
  Targets,
  Timestamp,
  TopRole,
} from './metadata.ts';
import { verifySignatures } from './verify.ts';

export { metadataCaps } from './checks.ts';

/** What a trusted set is made of. */
export interface TrustedMetadataOptions {
  readonly platform: Pick<Platform, 'now' | 'createSha256' | 'verifyEd25519'>;
  /** The root that came with the app; everything else is trusted because of it. */
  readonly root: Uint8Array;
  /** What {@link TrustedMetadata.export} gave earlier. What no longer verifies is dropped. */
  readonly stored?: Readonly<Record<string, string>>;
}

/**
 * Metadata that was verified. A failing update throws and leaves the set as it was. All expiries of one set are
 * measured against the time at which it was created (TUF 1.0 §5.1), so a set serves one update cycle.
 */
export interface TrustedMetadata {
  readonly root: Root;
  readonly timestamp: Timestamp | undefined;
  /** May be older than what `timestamp` pins, between the two updates. */
  readonly snapshot: Snapshot | undefined;
  /** Present only while it is the one that `snapshot` pins. */
  readonly targets: Targets | undefined;
  /** Present only while it is the one that `snapshot` pins and `targets` delegates to its signers. */
  readonly rollout: Targets | undefined;
  /** Takes the next root: signed by the present threshold and by its own, version exactly one higher. */
  updateRoot(bytes: Uint8Array): Promise<void>;
  /** Takes a timestamp. @returns whether it is newer; the same version again changes nothing. */
  updateTimestamp(bytes: Uint8Array): Promise<boolean>;
  /** Takes the snapshot that `timestamp` pins. */
  updateSnapshot(bytes: Uint8Array): Promise<void>;
  /** Takes the targets that `snapshot` pins. */
  updateTargets(bytes: Uint8Array): Promise<void>;
  /** Takes the `rollout` role's metadata that `snapshot` pins; it may only list `rollout/*`. */
  updateRollout(bytes: Uint8Array): Promise<void>;
  /**
   * Checks that root, timestamp, snapshot, targets and, if the snapshot lists it, rollout are present, belong together
   * and have not expired.
   * @param atMs milliseconds since 1970; default: the set's own time.
   * @throws {@link TrustError} `ERR_INLAY_EXPIRED` or `ERR_INLAY_METADATA_INVALID`
   */
  assertCurrent(atMs?: number): void;
  /** Texts as they were received, to be stored and passed as `stored` later. */
  export(): Record<string, string>;
}

interface HeldSet {
  timestamp?: Held<'timestamp'> | undefined;
  snapshot?: Held<'snapshot'> | undefined;
  targets?: Held<'targets'> | undefined;
  rollout?: Held<'targets'> | undefined;
}

/**
 * Creates a trusted set from the app's root and from what was stored.
 * @throws {@link TrustError} if the app's own root is not intact and signed by itself.
 */
export async function createTrustedMetadata(options: TrustedMetadataOptions): Promise<TrustedMetadata> {
  const { platform, stored = {} } = options;
  const startMs = platform.now();
  const verify = async <Type extends TopRole>(
    { bytes, envelope }: Held<Type>,
    roleName: string,
    keys: Readonly<Record<string, PublicKey>>,
    role: RoleKeys,
  ): Promise<Held<Type>> => {
    await verifySignatures(platform, envelope, roleName, keys, role);
    return { bytes, envelope };
  };

  let root = read('root', 'root', options.root);
  root = await verify(root, 'root', root.envelope.signed.keys, root.envelope.signed.roles.root);
  const laterRoots: Held<'root'>[] = [];
  let held: HeldSet = {};

  const byRoot = <Type extends Exclude<TopRole, 'root'>>(
    type: Type,
    bytes: Uint8Array,
  ): Promise<Held<Type>> => {
    const { keys, roles } = root.envelope.signed;
    return verify(read(type, type, bytes), type, keys, roles[type]);
  };

  const byTargets = async (targets: Held<'targets'>, bytes: Uint8Array): Promise<Held<'targets'>> => {
    const { delegations } = targets.envelope.signed;
    const role = delegations?.roles.find(({ name }) => name === 'rollout');
    if (!delegations || !role) throw invalid('targets does not delegate to the role rollout');
    const rollout = await verify(read('rollout', 'targets', bytes), 'rollout', delegations.keys, role);
    const stray = Object.keys(rollout.envelope.signed.targets).find(
      (path) => !/^rollout\/[^/]+$/.test(path) || !role.paths.some((pattern) => matches(pattern, path)),
    );
    if (stray !== undefined) {
      throw invalid(
        `the role rollout lists ${JSON.stringify(stray.slice(0, 80))}, which is not delegated to it`,
      );
    }
    return rollout;
  };

  const acceptRoot = async (bytes: Uint8Array): Promise<void> => {
    const next = read('root', 'root', bytes);
    const present = root.envelope.signed;
    const { version, keys, roles } = next.envelope.signed;
    if (version !== present.version + 1) {
      throw new TrustError(
        'ERR_INLAY_ROLLBACK',
        `Root version ${version} does not follow version ${present.version}; serve every root in order.`,
        { details: { role: 'root', version, trusted: present.version } },
      );
    }
    // TUF 1.0 §5.3.4: the old threshold and the new one.
    await verify(next, 'root', present.keys, present.roles.root);
    root = await verify(next, 'root', keys, roles.root);
    laterRoots.push(root);
    // TUF 1.0 §5.3.11: rotated online keys end a fast-forward attack, since their versions may start again.
    if (rotated(present, root.envelope.signed)) held = { ...held, timestamp: undefined, snapshot: undefined };
  };

  /** Proves everything below root again from raw bytes; expiry is checked when it is used. */
  const prove = async (raw: Partial<Record<TrustedRole, Uint8Array>>): Promise<HeldSet> => {
    const timestamp = await orDropped(raw.timestamp, (bytes) => byRoot('timestamp', bytes));
    const snapshot = await orDropped(raw.snapshot, (bytes) => byRoot('snapshot', bytes));
    const targets = await orDropped(raw.targets, async (bytes) => {
      const found = await byRoot('targets', bytes);
      assertPinned(platform, 'targets', found, pinOf(snapshot, 'targets'));
      return found;
    });
    const rollout = await orDropped(raw.rollout, async (bytes) => {
      if (!targets) throw invalid('rollout is stored without targets');
      const found = await byTargets(targets, bytes);
      assertPinned(platform, 'rollout', found, pinOf(snapshot, 'rollout'));
      return found;
    });
    return { timestamp, snapshot, targets, rollout };
  };

  const proveAgain = async (from: HeldSet): Promise<void> => {
    held = await prove({
      ...(from.timestamp && { timestamp: from.timestamp.bytes }),
      ...(from.snapshot && { snapshot: from.snapshot.bytes }),
      ...(from.targets && { targets: from.targets.bytes }),
      ...(from.rollout && { rollout: from.rollout.bytes }),
    });
  };

  const currentSnapshot = (atMs: number): Held<'snapshot'> => {
    const { timestamp, snapshot } = held;
    if (!timestamp || !snapshot) throw invalid('there is no timestamp or no snapshot yet');
    assertFresh('root', root, atMs);
    assertFresh('timestamp', timestamp, atMs);
    assertPinned(platform, 'snapshot', snapshot, timestamp.envelope.signed.meta['snapshot.json']);
    assertFresh('snapshot', snapshot, atMs);
    return snapshot;
  };

  const currentTargets = (atMs: number): Held<'targets'> => {
    currentSnapshot(atMs);
    if (!held.targets) throw invalid('there is no targets that belongs to the snapshot');
    assertFresh('targets', held.targets, atMs);
    return held.targets;
  };

  for (let version = root.envelope.signed.version + 1; ; version += 1) {
    const text = stored[`root.${version}`];
    const accepted = await orDropped(text, async (next) => {
      await acceptRoot(toUtf8(next));
      return true;
    });
    if (!accepted) break;
  }
  held = await prove(
    Object.fromEntries(
      (['timestamp', 'snapshot', 'targets', 'rollout'] as const).flatMap((role) => {
        const text = stored[role];
        return text === undefined ? [] : [[role, toUtf8(text)]];
      }),
    ),
  );

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
      return held.rollout?.envelope.signed;
    },

    updateRoot: async (bytes) => {
      await acceptRoot(bytes);
      await proveAgain(held);
    },

    updateTimestamp: async (bytes) => {
      assertFresh('root', root, startMs);
      const next = await byRoot('timestamp', bytes);
      const present = held.timestamp;
      if (present) {
        const before = present.envelope.signed;
        const after = next.envelope.signed;
        assertNotLower('timestamp', after.version, before.version);
        assertNotLower('snapshot', after.meta['snapshot.json'].version, before.meta['snapshot.json'].version);
        if (after.version === before.version) {
          assertFresh('timestamp', present, startMs);
          return false;
        }
      }
      assertFresh('timestamp', next, startMs);
      held = { ...held, timestamp: next };
      return true;
    },

    updateSnapshot: async (bytes) => {
      const { timestamp } = held;
      if (!timestamp) throw invalid('there is no timestamp to check the snapshot by');
      assertFresh('timestamp', timestamp, startMs);
      assertBytesPinned(platform, 'snapshot', bytes, timestamp.envelope.signed.meta['snapshot.json']);
      const next = await byRoot('snapshot', bytes);
      assertPinned(platform, 'snapshot', next, timestamp.envelope.signed.meta['snapshot.json']);
      const after = next.envelope.signed.meta;
      for (const [name, { version }] of Object.entries(held.snapshot?.envelope.signed.meta ?? {})) {
        assertNotLower(name, after[name]?.version ?? 0, version);
      }
      assertFresh('snapshot', next, startMs);
      await proveAgain({ ...held, snapshot: next });
    },

    updateTargets: async (bytes) => {
      const pin = pinOf(currentSnapshot(startMs), 'targets');
      assertBytesPinned(platform, 'targets', bytes, pin);
      const next = await byRoot('targets', bytes);
      assertPinned(platform, 'targets', next, pin);
      assertFresh('targets', next, startMs);
      // Whoever signs `rollout` may have changed.
      held = { ...held, targets: next, rollout: undefined };
    },

    updateRollout: async (bytes) => {
      const targets = currentTargets(startMs);
      const pin = pinOf(held.snapshot, 'rollout');
      assertBytesPinned(platform, 'rollout', bytes, pin);
      const next = await byTargets(targets, bytes);
      assertPinned(platform, 'rollout', next, pin);
      assertFresh('rollout', next, startMs);
      held = { ...held, rollout: next };
    },

    assertCurrent: (atMs = startMs) => {
      currentTargets(atMs);
      if (held.rollout) assertFresh('rollout', held.rollout, atMs);
      else if (held.snapshot?.envelope.signed.meta['rollout.json']) throw invalid('rollout is missing');
    },

    export: () => {
      const texts: Record<string, string> = {};
      for (const { bytes, envelope } of laterRoots)
        texts[`root.${envelope.signed.version}`] = fromUtf8(bytes);
      for (const role of ['timestamp', 'snapshot', 'targets', 'rollout'] as const) {
        const one = held[role];
        if (one) texts[role] = fromUtf8(one.bytes);
      }
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

function pinOf(snapshot: Held<'snapshot'> | undefined, role: 'targets' | 'rollout'): MetaFile {
  const pin = snapshot?.envelope.signed.meta[`${role}.json`];
  if (!pin) throw invalid(`the snapshot does not list ${role}.json`);
  return pin;
}

function rotated(before: Root, after: Root): boolean {
  return (['timestamp', 'snapshot'] as const).some(
    (role) => signersOf(before, role) !== signersOf(after, role),
  );
}

/** By public key, since a keyid can be given to another key. */
function signersOf({ keys, roles }: Root, role: TopRole): string {
  const publicKeys = roles[role].keyids.map((keyid) => keys[keyid]?.keyval.public.toLowerCase());
  return publicKeys.sort((a = '', b = '') => (a < b ? -1 : 1)).join(' ');
}
