/** What is installed on the server: changed by one writer at a time, re-signed in time. */

import { fromUtf8, toHex } from '../core/bytes.ts';
import { ServerError, StoreError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import {
  changeRollout,
  noticesOf,
  setRollout,
  type RolloutAction,
  type RolloutOptions,
} from '../publish/rollout.ts';
import type { Signer } from '../publish/signer.ts';
import type { NamedKey } from '../trust/keys.ts';
import type { Targets } from '../trust/metadata.ts';
import { parseEnvelope } from '../trust/parse.ts';
import { verifySignatures } from '../trust/verify.ts';
import type { SignedPlan } from '../update/plan.ts';
import { assertReleases, assertValid, assertVersion } from './admission.ts';
import { createStateReader, type CatalogState, type Published, type Release } from './catalog-state.ts';
import { plansOf, type Channels } from './channels.ts';
import type { Heads, NewMetadata, Repository } from './db/repository.ts';
import { changesBetween, isSame, withdrawn, withSoundBase } from './plan-changes.ts';
import { assertPolicy } from './policy.ts';
import type { ArmBody } from './rollout-body.ts';
import { assertOnlineDelegation, assertOnlineRoot } from './signer/delegation.ts';
import { assertPlans } from './signer/invariants.ts';
import { createOnlineSigner } from './signer/online-signer.ts';
import { validity, type OnlineRole, type OnlineSigner, type SignedSet } from './signer/port.ts';
import type { BlobStorage } from './storage/blobs.ts';

/** Why something is done, and whether it is only to be shown. */
export interface ChangeOptions {
  /** For the audit log. */
  readonly reason?: string;
  /** Answers what would be signed, and signs nothing. Default false. */
  readonly dryRun?: boolean;
}

/** On what a change rests. */
export interface ChangeCondition {
  /** The plan that it was decided on: if another one is in force by then, the change is refused. */
  readonly decidedOn?: SignedPlan;
}

/** What was asked to be rolled out. */
export interface RolloutRequest extends ChangeOptions, ChangeCondition, Omit<RolloutOptions, 'now' | 'arms'> {
  readonly channel: string;
  readonly model: string;
  readonly version: string;
  /** Share in (0, 100], or 0 with a shadow. */
  readonly percent: number;
  readonly arms?: readonly ArmBody[];
}

/** The plan in force. */
export type RolloutAnswer = SignedPlan & {
  /** What should be known of the step, one sentence each; not a part of the plan. */
  readonly notices?: readonly string[];
};

/** What was asked to be done to a rollout. */
export interface ActionRequest extends ChangeOptions, ChangeCondition {
  readonly channel: string;
  readonly model: string;
  readonly action: RolloutAction;
}

/** The installed metadata and the ways to change it. */
export interface Catalog {
  /** The server's own key. */
  readonly onlineKey: NamedKey;
  /** Reads the present state; cheap while nothing changes. */
  state(): Promise<CatalogState>;
  /**
   * Signs online metadata again that nears its expiry.
   * @returns the state afterwards.
   */
  renew(): Promise<CatalogState>;
  /**
   * Installs the first root or the next one.
   * @param actor for the audit log, here and below.
   * @returns the version that is in force; installing the same bytes again changes nothing.
   * @throws {@link TrustError}, {@link ServerError} `ERR_INLAY_CONFLICT` or `ERR_INLAY_REFUSED`; nothing is changed then.
   */
  installRoot(bytes: Uint8Array, actor: string): Promise<number>;
  /**
   * Installs the next targets; otherwise as {@link Catalog.installRoot}. Rollouts of releases that they withdraw are
   * rolled back in the same step.
   */
  installTargets(bytes: Uint8Array, actor: string): Promise<number>;
  /**
   * Starts, raises or completes a rollout.
   * @returns the plan in force, with notices such as that it takes the place of another rollout.
   * @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` if there is no such release, `ERR_INLAY_CONFLICT` or
   * `ERR_INLAY_REFUSED`.
   */
  setRollout(request: RolloutRequest, actor: string): Promise<RolloutAnswer>;
  /** Pauses a rollout, takes it back and so on; otherwise as {@link Catalog.setRollout}, without notices. */
  changeRollout(request: ActionRequest, actor: string): Promise<SignedPlan>;
}

/** Options of {@link createCatalog}. */
export interface CatalogOptions {
  readonly repository: Repository;
  readonly blobs: Pick<BlobStorage, 'size'>;
  /** The server's own key, or the signer that holds it. A bare key is used in this process, and forgets what it signed. */
  readonly signer: Signer | OnlineSigner;
  readonly platform: Platform;
}

type Texts = Readonly<Record<'targets' | 'rollout', string>>;

/** Creates the catalog over a repository. */
export function createCatalog(options: CatalogOptions): Catalog {
  const { repository, blobs, platform } = options;
  const signer =
    'timestamp' in options.signer ? options.signer : createOnlineSigner({ signer: options.signer, platform });
  const onlineKey: NamedKey = { keyid: signer.keyid, key: signer.key };
  const state = createStateReader(repository);
  /** What the signer has signed; unknown at first, and when something has failed. */
  let signedVersions: Readonly<Record<OnlineRole, number>> | undefined;
  /** Whether something may have been signed that the database lacks. */
  let isSigning = false;
  let lastWrite: Promise<unknown> = Promise.resolve();
  let renewal: Promise<CatalogState> | undefined;

  /** Runs one writer after the other, each on what is in force. */
  const inTurn = <Result>(write: (before: CatalogState) => Promise<Result>): Promise<Result> => {
    const turn = lastWrite.then(async () => {
      try {
        if (!signedVersions) {
          const facts = await signer.public();
          if (facts.inForce) await recover(facts.inForce);
          signedVersions = facts.versions;
        }
        isSigning = false;
        return await write(await state());
      } catch (error) {
        if (isSigning) signedVersions = undefined;
        throw error;
      }
    });
    lastWrite = turn.catch(() => undefined);
    return turn;
  };

  /** Adds what was signed, and did not get into the database: devices may have it, so nothing may contradict it. */
  const recover = async (inForce: SignedSet): Promise<void> => {
    const { roots, targets, rollout, snapshot, timestamp } = inForce;
    const { heads, published } = await state();
    const texts = [
      ...roots.map((text) => ['root', text] as const),
      ...([
        ['targets', targets],
        ['rollout', rollout],
        ['snapshot', snapshot],
        ['timestamp', timestamp],
      ] as const),
    ];
    const files = texts.flatMap(([role, text]): NewMetadata[] => {
      const version = versionOf(text);
      return version > (heads[role] ?? 0) ? [{ role, version, text }] : [];
    });
    if (!files.some(({ role }) => role === 'timestamp')) {
      const isSigned = heads.timestamp !== versionOf(timestamp) || isSameSet(published, inForce);
      if (!isSigned) throw tamperedWith();
      return;
    }
    await repository.add(files, { actor: 'server', action: 'recover', details: versions(files) });
  };

  const sign = async (
    role: OnlineRole,
    heads: Heads,
    ask: (version: number) => Promise<string>,
  ): Promise<NewMetadata> => {
    const signed = signedVersions ?? { timestamp: 0, snapshot: 0, rollout: 0 };
    const version = Math.max(heads[role] ?? 0, signed[role]) + 1;
    isSigning = true;
    const text = await ask(version);
    signedVersions = { ...signed, [role]: version };
    return { role, version, text };
  };

  const signRollout = (
    heads: Heads,
    roots: readonly string[],
    targets: string,
    channels: Channels,
    before = '',
  ): Promise<NewMetadata> =>
    sign('rollout', heads, (version) => signer.rollout({ version, roots, targets, channels, before }));

  /** Signs the snapshot and timestamp over texts. */
  const seal = async (
    heads: Heads,
    roots: readonly string[],
    // What is published has more texts, and the signer takes no field that it does not know.
    { targets, rollout }: Texts,
  ): Promise<readonly NewMetadata[]> => {
    const snapshot = await sign('snapshot', heads, (version) =>
      signer.snapshot({ version, roots, targets, rollout }),
    );
    return [snapshot, await stamp(heads, roots, { targets, rollout, snapshot: snapshot.text })];
  };

  const stamp = (
    heads: Heads,
    roots: readonly string[],
    { targets, rollout, snapshot }: Texts & { readonly snapshot: string },
  ): Promise<NewMetadata> =>
    sign('timestamp', heads, (version) => signer.timestamp({ version, roots, targets, rollout, snapshot }));

  /** Near its expiry, or signed by a key that this server had before. */
  const isDue = (role: OnlineRole, { expiresMs, keyids, targets }: Published): boolean =>
    expiresMs[role] - platform.now() < validity[role].renewBelowMs ||
    (!keyids[role].includes(signer.keyid) && (role !== 'rollout' || delegates(targets, signer.keyid)));

  const isAnyDue = (published: Published): boolean =>
    (['timestamp', 'snapshot', 'rollout'] as const).some((role) => isDue(role, published));

  const renew = async (): Promise<CatalogState> => {
    const present = await state();
    if (signedVersions && !(present.published && isAnyDue(present.published))) return present;
    renewal ??= renewDue().finally(() => {
      renewal = undefined;
    });
    return renewal;
  };

  const renewDue = (): Promise<CatalogState> =>
    inTurn(async (before) => {
      const { heads, roots, published } = before;
      if (!published || !isAnyDue(published)) return before;
      const { channels, texts } = published;
      let files: readonly NewMetadata[];
      if (isDue('rollout', published)) {
        const rollout = await signRollout(heads, roots, texts.targets, channels, texts.rollout);
        files = [rollout, ...(await seal(heads, roots, { ...texts, rollout: rollout.text }))];
      } else if (isDue('snapshot', published)) {
        files = await seal(heads, roots, texts);
      } else {
        files = [await stamp(heads, roots, texts)];
      }
      await repository.add(files, { actor: 'server', action: 'renew', details: versions(files) });
      return state();
    });

  const installRoot = (bytes: Uint8Array, actor: string): Promise<number> =>
    inTurn(async ({ heads, roots: present, root: before, published }) => {
      const envelope = parseEnvelope(bytes, 'root');
      const root = envelope.signed;
      const text = fromUtf8(bytes);
      if (text === present.at(-1)) return root.version;
      assertVersion('root', root.version, heads.root);
      if (before) await verifySignatures(platform, envelope, 'root', before.keys, before.roles.root);
      await verifySignatures(platform, envelope, 'root', root.keys, root.roles.root);
      assertValid('root', root.expires, platform.now());
      assertOnlineRoot(root, onlineKey);
      const files: NewMetadata[] = [{ role: 'root', version: root.version, text }];
      const roots = [...present, text];
      // Every change makes a new timestamp, so that two writers on one database cannot both win.
      if (published) {
        const { texts, keyids } = published;
        files.push(
          ...(keyids.snapshot.includes(signer.keyid)
            ? [await stamp(heads, roots, texts)]
            : await seal(heads, roots, texts)),
        );
      }
      await repository.add(files, { actor, action: 'root', details: versions(files) });
      return root.version;
    });

  const installTargets = (bytes: Uint8Array, actor: string): Promise<number> =>
    inTurn(async ({ heads, roots, root, published }) => {
      const envelope = parseEnvelope(bytes, 'targets');
      const targets = envelope.signed;
      const text = fromUtf8(bytes);
      if (!root) {
        throw new ServerError(
          'ERR_INLAY_CONFLICT',
          'There is no root yet; install it with `inlay keys init`.',
        );
      }
      if (text === published?.texts.targets) return targets.version;
      assertVersion('targets', targets.version, heads.targets);
      await verifySignatures(platform, envelope, 'targets', root.keys, root.roles.targets);
      assertValid('targets', targets.expires, platform.now());
      assertOnlineDelegation(targets, onlineKey);
      assertPolicy(targets, published?.targets);
      await assertReleases(targets, blobs);
      const channels = published?.channels ?? { stable: [] };
      const next = withdrawn(channels, targets);
      assertPlans(channels, next, targets);

      const files: NewMetadata[] = [{ role: 'targets', version: targets.version, text }];
      let rollout = published?.texts.rollout;
      const takenBack = changesBetween(channels, next);
      const isForeign = published && !published.keyids.rollout.includes(signer.keyid);
      if (
        !published ||
        rollout === undefined ||
        takenBack.length > 0 ||
        isForeign ||
        isDue('rollout', published)
      ) {
        const signed = await signRollout(heads, roots, text, next, rollout);
        files.push(signed);
        rollout = signed.text;
      }
      files.push(...(await seal(heads, roots, { targets: text, rollout })));
      const details = { ...versions(files), ...(takenBack.length > 0 && { rolledback: takenBack }) };
      await repository.add(files, { actor, action: 'targets', details });
      return targets.version;
    });

  /** Signs the plans of a channel anew, unless they stay as they are. */
  const changePlans = (
    {
      channel,
      model,
      reason,
      dryRun = false,
      decidedOn,
    }: ChangeOptions & ChangeCondition & { channel: string; model: string },
    actor: string,
    action: string,
    change: (current: readonly SignedPlan[], published: Published) => readonly SignedPlan[],
  ): Promise<SignedPlan> =>
    inTurn(async ({ heads, roots, published }) => {
      if (!published) throw nothingInstalled();
      const { channels, targets, texts } = published;
      const current = plansOf(channels, channel);
      const before = current.find((candidate) => candidate.model === model);
      if (decidedOn && !(before && isSame(before, decidedOn))) throw changedMeanwhile(channel, model);
      const plans = change(current, published);
      const plan = plans.find((candidate) => candidate.model === model) as SignedPlan;
      if (before && isSame(plan, before)) return before;
      const after = { ...channels, [channel]: plans };
      assertPlans(channels, after, targets);
      if (dryRun) return plan;
      const rollout = await signRollout(heads, roots, texts.targets, after, texts.rollout);
      const sealed = await seal(heads, roots, { targets: texts.targets, rollout: rollout.text });
      const details = {
        channel,
        model,
        version: plan.cand.version,
        percent: plan.bp / 100,
        rollout: plan.id,
        state: plan.state,
        ...(before && { before: { rollout: before.id, version: before.cand.version, state: before.state } }),
        ...(reason !== undefined && { reason }),
      };
      await repository.add([rollout, ...sealed], { actor, action, details });
      return plan;
    });

  return {
    onlineKey,
    state,
    renew,
    installRoot,
    installTargets,
    setRollout: async (request, actor) => {
      const { model, version, percent } = request;
      let before: SignedPlan | undefined;
      const plan = await changePlans(request, actor, 'rollout', (current, { releases: all, targets }) => {
        const releases = [...all.values()].filter((release) => release.model === model);
        const releaseOf = (wanted: string): Release => {
          const found = releases.find((candidate) => candidate.version === wanted);
          if (!found) throw noSuchRelease(model, wanted, releases);
          return found;
        };
        before = current.find((candidate) => candidate.model === model);
        const newSalt = (): string => toHex(platform.randomBytes(8));
        const { arms, decidedOn: _, ...others } = request;
        const plans = setRollout(current, releaseOf(version), percent, newSalt, {
          ...others,
          ...(arms && { arms: arms.map((arm) => ({ ...arm, entry: releaseOf(arm.version) })) }),
          now: platform.now(),
        });
        return plans.map((next) =>
          current.some(({ id }) => id === next.id) ? next : withSoundBase(next, targets),
        );
      });
      const notices = noticesOf(before, plan, platform.now());
      return notices.length > 0 ? { ...plan, notices } : plan;
    },
    changeRollout: (request, actor) => {
      const { model, action } = request;
      return changePlans(request, actor, action, (current) =>
        changeRollout(current, model, action, platform.now()),
      );
    },
  };
}

function delegates({ delegations }: Targets, keyid: string): boolean {
  return delegations?.roles.some(({ name, keyids }) => name === 'rollout' && keyids.includes(keyid)) === true;
}

function versions(files: readonly NewMetadata[]): Readonly<Record<string, number>> {
  return Object.fromEntries(files.map(({ role, version }) => [role, version]));
}

function versionOf(text: string): number {
  return (JSON.parse(text) as { signed: { version: number } }).signed.version;
}

function isSameSet(published: Published | undefined, inForce: SignedSet): boolean {
  const roles = ['targets', 'rollout', 'snapshot', 'timestamp'] as const;
  return roles.every((role) => published?.texts[role] === inForce[role]);
}

function tamperedWith(): StoreError {
  return new StoreError(
    'ERR_INLAY_STORE_IO',
    'The database has other metadata than was signed; restore it from a backup.',
  );
}

function changedMeanwhile(channel: string, model: string): ServerError {
  return new ServerError(
    'ERR_INLAY_CONFLICT',
    `The rollout of ${model} in channel ${channel} was changed meanwhile; look at it again with \`inlay rollout show\`.`,
    { details: { channel, model } },
  );
}

function nothingInstalled(): ServerError {
  return new ServerError('ERR_INLAY_NOT_FOUND', 'Nothing is installed yet; run `inlay keys init`.');
}

function noSuchRelease(model: string, version: string, releases: readonly Release[]): ServerError {
  const published = releases.map((release) => release.version).join(', ');
  return new ServerError(
    'ERR_INLAY_NOT_FOUND',
    `Model ${model} has no version ${version}; ` +
      (published === '' ? 'publish it with `inlay publish` first.' : `it has ${published}.`),
    { details: { model, version } },
  );
}
