import { fromUtf8, toUtf8 } from '../../core/bytes.ts';
import { ServerError, StoreError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import {
  createRolloutTargets,
  createSnapshot,
  createTimestamp,
  describeFile,
  expiresIn,
} from '../../publish/release.ts';
import { signMetadata } from '../../publish/sign.ts';
import type { Signer } from '../../publish/signer.ts';
import { createTrustedMetadata, metadataCaps } from '../../trust/client.ts';
import type { MetaFile, Root, Snapshot, Targets } from '../../trust/metadata.ts';
import { parseEnvelope } from '../../trust/parse.ts';
import { verifySignatures } from '../../trust/verify.ts';
import { channelsOf, readChannels, type Channels } from '../channels.ts';
import { assertPolicy } from '../policy.ts';
import { assertOnlineDelegation, assertOnlineRoot } from './delegation.ts';
import { assertPlans, endedIn } from './invariants.ts';
import { emptyNotes, readNotes, type SignerNotes } from './notes.ts';
import {
  validity,
  type OnlineRole,
  type OnlineSigner,
  type SignedSet,
  type SignerMemory,
  type TimestampSignRequest,
} from './port.ts';

/** Options of {@link createOnlineSigner}. */
export interface OnlineSignerOptions {
  /** The online key. */
  readonly signer: Signer;
  readonly platform: Platform;
  /** Default: it forgets everything when it ends. */
  readonly memory?: SignerMemory;
}

/** Most identifiers of ended rollouts that are remembered. */
const maxEnded = 20_000;

/** Creates the signer of one online key, in this process. */
export function createOnlineSigner(options: OnlineSignerOptions): OnlineSigner {
  const { signer, platform, memory } = options;
  let notes: SignerNotes | undefined;
  let lastRequest: Promise<unknown> = Promise.resolve();

  const open = async (): Promise<SignerNotes> =>
    (notes ??= memory ? readNotes(await memory.read()) : emptyNotes);

  /** One request after the other, each from the notes of the one before. */
  const inTurn = <Result>(request: (notes: SignerNotes) => Promise<Result>): Promise<Result> => {
    const turn = lastRequest.then(async () => request(await open()));
    lastRequest = turn.catch(() => undefined);
    return turn;
  };

  /** Counts a version as used, whatever becomes of what was signed under it. */
  const use = (role: OnlineRole, version: number): void => {
    const { versions, ...rest } = notes ?? emptyNotes;
    notes = { ...rest, versions: { ...versions, [role]: version } };
  };

  const sign = async (
    role: OnlineRole,
    version: number,
    body: (expires: string) => Parameters<typeof signMetadata>[0],
  ): Promise<string> => {
    const bytes = await signMetadata(body(expiresIn(platform.now(), validity[role].days)), [signer]);
    if (bytes.length > metadataCaps[role]) {
      throw refused(
        `The ${role} would have ${bytes.length} bytes, and devices read ${metadataCaps[role]}; use fewer plans`,
      );
    }
    use(role, version);
    return fromUtf8(bytes);
  };

  const describe = (version: number, text: string): MetaFile => describeFile(platform, version, toUtf8(text));

  /** Follows the roots from the first one that was ever seen here. */
  const proveRoot = async ({ inForce }: SignerNotes, roots: readonly string[]): Promise<Root> => {
    const known = inForce?.roots ?? [];
    if (roots.length === 0 || known.some((text, at) => roots[at] !== text)) {
      throw refused('The roots are not those that were signed upon before; restore the database');
    }
    const [first = '', ...later] = roots;
    const trusted = await createTrustedMetadata({ platform, root: toUtf8(first) });
    for (const text of later) await trusted.updateRoot(toUtf8(text));
    assertOnlineRoot(trusted.root, signer);
    return trusted.root;
  };

  const proveTargets = async ({ inForce }: SignerNotes, root: Root, text: string): Promise<Targets> => {
    const envelope = parseEnvelope(toUtf8(text), 'targets');
    // Keys may have been rotated since; who is to sign them anew needs a fresh timestamp until then.
    if (text === inForce?.targets) return envelope.signed;
    await verifySignatures(platform, envelope, 'targets', root.keys, root.roles.targets);
    const before = inForce && parseEnvelope(toUtf8(inForce.targets), 'targets').signed;
    assertNewer('targets', envelope.signed.version, before?.version);
    assertPolicy(envelope.signed, before);
    assertOnlineDelegation(envelope.signed, signer);
    return envelope.signed;
  };

  /** The plans that others are to follow; who changes plans that were never signed has been deceived. */
  const plansBefore = async ({ inForce }: SignerNotes, targets: Targets, text: string): Promise<Channels> => {
    if (!inForce) return {};
    if (text !== inForce.rollout) {
      await verifyRollout(targets, text).catch((cause: unknown) => {
        throw new StoreError(
          'ERR_INLAY_STORE_IO',
          'The plans in the database are not those that were signed; restore it from a backup.',
          { cause },
        );
      });
    }
    return channelsOf(parseEnvelope(toUtf8(inForce.rollout), 'targets').signed);
  };

  const verifyRollout = async ({ delegations }: Targets, text: string): Promise<void> => {
    const role = delegations?.roles.find(({ name }) => name === 'rollout');
    if (!role) throw refused('The targets do not delegate to the role rollout; sign them anew');
    const envelope = parseEnvelope(toUtf8(text), 'targets');
    await verifySignatures(platform, envelope, 'rollout', delegations?.keys ?? {}, role);
  };

  const proveRollout = async (
    { inForce, ended }: SignerNotes,
    targets: Targets,
    text: string,
  ): Promise<{ readonly rollout: Targets; readonly before: Channels; readonly after: Channels }> => {
    const rollout = parseEnvelope(toUtf8(text), 'targets').signed;
    const present = inForce && parseEnvelope(toUtf8(inForce.rollout), 'targets').signed;
    const after = channelsOf(rollout);
    const before = present ? channelsOf(present) : {};
    if (text !== inForce?.rollout) {
      await verifyRollout(targets, text);
      assertNewer('rollout', rollout.version, present?.version);
    }
    assertPlans(before, after, targets, new Set(ended));
    return { rollout, before, after };
  };

  const proveSnapshot = async (
    { inForce }: SignerNotes,
    root: Root,
    { snapshot: text, targets, rollout }: TimestampSignRequest,
  ): Promise<Snapshot> => {
    const envelope = parseEnvelope(toUtf8(text), 'snapshot');
    const { version, meta } = envelope.signed;
    if (text !== inForce?.snapshot) {
      await verifySignatures(platform, envelope, 'snapshot', root.keys, root.roles.snapshot);
      const present = inForce && parseEnvelope(toUtf8(inForce.snapshot), 'snapshot').signed;
      assertNewer('snapshot', version, present?.version);
    }
    for (const [role, content] of [
      ['targets', targets],
      ['rollout', rollout],
    ] as const) {
      if (meta[`${role}.json`]?.hashes?.['sha256'] !== describe(1, content).hashes?.['sha256']) {
        throw refused(`The snapshot does not pin this ${role}; sign a new one`);
      }
    }
    return envelope.signed;
  };

  return {
    keyid: signer.keyid,
    key: signer.key,

    public: () =>
      inTurn(({ versions, inForce }) =>
        Promise.resolve({ keyid: signer.keyid, key: signer.key, versions, inForce }),
      ),

    rollout: ({ version, roots, targets, channels: given, before: text }) =>
      inTurn(async (known) => {
        assertUnused(known, 'rollout', version);
        const root = await proveRoot(known, roots);
        const proven = await proveTargets(known, root, targets);
        assertOnlineDelegation(proven, signer);
        const channels = readChannels(given);
        const before = await plansBefore(known, proven, text);
        assertPlans(before, channels, proven, new Set(known.ended));
        return sign('rollout', version, (expires) =>
          createRolloutTargets(platform, { version, expires, channels }),
        );
      }),

    snapshot: ({ version, roots, targets: targetsText, rollout: rolloutText }) =>
      inTurn(async (known) => {
        assertUnused(known, 'snapshot', version);
        const root = await proveRoot(known, roots);
        const targets = await proveTargets(known, root, targetsText);
        const { rollout } = await proveRollout(known, targets, rolloutText);
        const meta = {
          'targets.json': describe(targets.version, targetsText),
          'rollout.json': describe(rollout.version, rolloutText),
        };
        return sign('snapshot', version, (expires) => createSnapshot({ version, expires, meta }));
      }),

    timestamp: (request) =>
      inTurn(async (known) => {
        const { version, roots } = request;
        assertUnused(known, 'timestamp', version);
        const root = await proveRoot(known, roots);
        const targets = await proveTargets(known, root, request.targets);
        const { before, after } = await proveRollout(known, targets, request.rollout);
        const snapshot = await proveSnapshot(known, root, request);
        const issued = expiresIn(platform.now(), 0);
        const timestamp = await sign('timestamp', version, (expires) => ({
          ...createTimestamp({ version, expires, snapshot: describe(snapshot.version, request.snapshot) }),
          issued,
        }));
        const inForce: SignedSet = {
          roots,
          targets: request.targets,
          rollout: request.rollout,
          snapshot: request.snapshot,
          timestamp,
        };
        // What was in force may have expired, and is renewed all the same.
        if (request.targets !== known.inForce?.targets) await assertTrusted(platform, inForce);
        const { versions } = notes ?? known;
        const next = {
          versions,
          inForce,
          ended: [...known.ended, ...endedIn(before, after)].slice(-maxEnded),
        };
        // What nobody has is not in force, so it is kept before it is given out.
        await memory?.write(next);
        notes = next;
        return timestamp;
      }),

    close: async () => {
      await lastRequest;
    },
  };
}

/** Goes the way of a device, so that nothing comes into force that devices would refuse. */
async function assertTrusted(
  platform: Platform,
  { roots, timestamp, snapshot, targets, rollout }: SignedSet,
): Promise<void> {
  const [first = '', ...later] = roots;
  const trusted = await createTrustedMetadata({ platform, root: toUtf8(first) });
  for (const text of later) await trusted.updateRoot(toUtf8(text));
  await trusted.updateTimestamp(toUtf8(timestamp));
  await trusted.updateSnapshot(toUtf8(snapshot));
  await trusted.updateTargets(toUtf8(targets));
  await trusted.updateRollout(toUtf8(rollout));
}

function assertUnused({ versions }: SignerNotes, role: OnlineRole, version: number): void {
  if (Number.isSafeInteger(version) && version > versions[role]) return;
  throw new ServerError(
    'ERR_INLAY_CONFLICT',
    `Version ${version} of ${role} does not come after version ${versions[role]}, which was signed; use a higher one.`,
    { details: { role, version, signed: versions[role] } },
  );
}

/** Other content has another version, so the same one does not come again. */
function assertNewer(role: string, version: number, present = 0): void {
  if (version > present) return;
  throw refused(
    `Version ${version} of ${role} does not come after version ${present}, which is in force; restore the database`,
  );
}

function refused(problem: string): ServerError {
  return new ServerError('ERR_INLAY_REFUSED', `${problem}.`);
}
