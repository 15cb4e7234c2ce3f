/** What is installed on the server: read in one piece, changed by one writer at a time, re-signed in time. */

import { fromUtf8, toHex, toUtf8 } from '../core/bytes.ts';
import { ServerError, StoreError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { describeFile, listReleases } from '../publish/release.ts';
import { setRollout } from '../publish/rollout.ts';
import type { Signer } from '../publish/signer.ts';
import { createTrustedMetadata } from '../trust/client.ts';
import type { Root, Targets } from '../trust/metadata.ts';
import { parseEnvelope } from '../trust/parse.ts';
import { verifySignatures } from '../trust/verify.ts';
import type { Plan, PlanEntry } from '../update/plan.ts';
import { assertReleases, assertVersion, assertValid } from './admission.ts';
import type { Heads, NewMetadata, Repository, Role } from './db/repository.ts';
import {
  assertOnlineDelegation,
  assertOnlineRoot,
  assertPlans,
  channelsOf,
  createOnlineSigning,
  plansOf,
  validity,
  type Channels,
  type OnlineRole,
} from './signing.ts';
import type { BlobStorage } from './storage/blobs.ts';

/** A release as plans name it, with its model. */
export type Release = PlanEntry & { readonly model: string };

/** Everything that belongs to the first installed targets. */
export interface Published {
  readonly texts: Readonly<Record<OnlineRole | 'targets', string>>;
  readonly targets: Targets;
  readonly rollout: Targets;
  /** By target path. */
  readonly releases: ReadonlyMap<string, Release>;
  readonly channels: Channels;
  /** Expiry by role, milliseconds since 1970. */
  readonly expiresMs: Readonly<Record<OnlineRole, number>>;
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

/** What was asked to be rolled out. */
export interface RolloutRequest {
  readonly channel: string;
  readonly model: string;
  readonly version: string;
  /** Share in (0, 100]. */
  readonly percent: number;
}

/** The installed metadata and the ways to change it. */
export interface Catalog {
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
  /** Installs the next targets; otherwise as {@link Catalog.installRoot}. */
  installTargets(bytes: Uint8Array, actor: string): Promise<number>;
  /**
   * Starts, raises or completes a rollout.
   * @returns the plan in force.
   * @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` if there is no such release, `ERR_INLAY_CONFLICT` or
   * `ERR_INLAY_REFUSED`.
   */
  setRollout(request: RolloutRequest, actor: string): Promise<Plan>;
}

/** Options of {@link createCatalog}. */
export interface CatalogOptions {
  readonly repository: Repository;
  readonly blobs: BlobStorage;
  /** The server's own key. */
  readonly signer: Signer;
  readonly platform: Platform;
}

/** Creates the catalog over a repository. */
export function createCatalog(options: CatalogOptions): Catalog {
  const { repository, blobs, signer, platform } = options;
  const signing = createOnlineSigning({ signer, platform });
  let known: CatalogState | undefined;
  let lastWrite: Promise<unknown> = Promise.resolve();

  /** Runs one writer after the other. */
  const inTurn = <Result>(write: () => Promise<Result>): Promise<Result> => {
    const turn = lastWrite.then(write);
    lastWrite = turn.catch(() => undefined);
    return turn;
  };

  const state = async (attempts = 5): Promise<CatalogState> => {
    const heads = await repository.heads();
    if (known && sameHeads(known.heads, heads)) return known;
    const read = (role: Role): Promise<string | undefined> => repository.text(role, heads[role] ?? 0);
    const [roots, targets, rollout, snapshot, timestamp] = await Promise.all([
      repository.textsAfter('root', 0),
      read('targets'),
      read('rollout'),
      read('snapshot'),
      read('timestamp'),
    ]);
    const texts = { targets, rollout, snapshot, timestamp };
    if (roots.length !== (heads.root ?? 0) || (heads.timestamp !== undefined && !isComplete(texts))) {
      // A change between the queries; its timestamp replaced the one that was looked for.
      if (attempts > 1) return state(attempts - 1);
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

  const describe = (version: number, text: string): ReturnType<typeof describeFile> =>
    describeFile(platform, version, toUtf8(text));

  /** Signs the snapshot and timestamp over new or present metadata. */
  const seal = async (
    { heads, published }: CatalogState,
    changed: readonly NewMetadata[],
  ): Promise<readonly NewMetadata[]> => {
    const pin = (role: 'targets' | 'rollout'): ReturnType<typeof describe> => {
      const file = changed.find((candidate) => candidate.role === role);
      return file
        ? describe(file.version, file.text)
        : describe(heads[role] ?? 0, published?.texts[role] ?? '');
    };
    const snapshot = await signed('snapshot', heads, (version) =>
      signing.snapshot(version, { 'targets.json': pin('targets'), 'rollout.json': pin('rollout') }),
    );
    return [...changed, snapshot, await stamp(heads, snapshot)];
  };

  /** Goes the way of a device, so that nothing is installed that devices would refuse. */
  const assertTrusted = async (
    { roots, published }: CatalogState,
    files: readonly NewMetadata[],
  ): Promise<void> => {
    const bytesOf = (role: OnlineRole | 'targets'): Uint8Array =>
      toUtf8(files.find((file) => file.role === role)?.text ?? published?.texts[role] ?? '');
    const trusted = await createTrustedMetadata({ platform, root: toUtf8(roots.at(-1) ?? '') });
    await trusted.updateTimestamp(bytesOf('timestamp'));
    await trusted.updateSnapshot(bytesOf('snapshot'));
    await trusted.updateTargets(bytesOf('targets'));
    await trusted.updateRollout(bytesOf('rollout'));
  };

  const stamp = (heads: Heads, snapshot: Omit<NewMetadata, 'role'>): Promise<NewMetadata> =>
    signed('timestamp', heads, (version) =>
      signing.timestamp(version, describe(snapshot.version, snapshot.text)),
    );

  const isDue = (role: OnlineRole, { expiresMs }: Published): boolean =>
    expiresMs[role] - platform.now() < validity[role].renewBelowMs;

  const isAnyDue = (published: Published): boolean =>
    (['timestamp', 'snapshot', 'rollout'] as const).some((role) => isDue(role, published));

  const renew = async (): Promise<CatalogState> => {
    const present = await state();
    if (!present.published || !isAnyDue(present.published)) return present;
    return inTurn(async () => {
      const before = await state();
      const { heads, published } = before;
      if (!published || !isAnyDue(published)) return before;
      const { channels, targets, texts } = published;
      let files: readonly NewMetadata[];
      if (isDue('rollout', published)) {
        const rollout = await signed('rollout', heads, (version) =>
          signing.rollout(version, channels, channels, targets),
        );
        files = await seal(before, [rollout]);
      } else if (isDue('snapshot', published)) {
        files = await seal(before, []);
      } else {
        files = [await stamp(heads, { version: heads.snapshot ?? 0, text: texts.snapshot })];
      }
      await repository.add(files, { actor: 'server', action: 'renew', details: versions(files) });
      return state();
    });
  };

  const installRoot = (bytes: Uint8Array, actor: string): Promise<number> =>
    inTurn(async () => {
      const envelope = parseEnvelope(bytes, 'root');
      const root = envelope.signed;
      const text = fromUtf8(bytes);
      const { heads, roots, root: present, published } = await state();
      if (text === roots.at(-1)) return root.version;
      assertVersion('root', root.version, heads.root);
      if (present) await verifySignatures(platform, envelope, 'root', present.keys, present.roles.root);
      await verifySignatures(platform, envelope, 'root', root.keys, root.roles.root);
      assertValid('root', root.expires, platform.now());
      assertOnlineRoot(root, signer);
      const files: NewMetadata[] = [{ role: 'root', version: root.version, text }];
      // Every change makes a new timestamp, so that two writers on one database cannot both win.
      if (published) {
        files.push(await stamp(heads, { version: heads.snapshot ?? 0, text: published.texts.snapshot }));
      }
      await repository.add(files, { actor, action: 'root', details: versions(files) });
      return root.version;
    });

  const installTargets = (bytes: Uint8Array, actor: string): Promise<number> =>
    inTurn(async () => {
      const envelope = parseEnvelope(bytes, 'targets');
      const targets = envelope.signed;
      const text = fromUtf8(bytes);
      const before = await state();
      const { heads, root, published } = before;
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
      assertOnlineDelegation(targets, signer);
      await assertReleases(targets, blobs);
      const changed: NewMetadata[] = [{ role: 'targets', version: targets.version, text }];
      const channels = published?.channels ?? { stable: [] };
      assertPlans(channels, channels, targets);
      if (!published || isDue('rollout', published)) {
        const rollout = await signed('rollout', heads, (version) =>
          signing.rollout(version, channels, channels, targets),
        );
        changed.push(rollout);
      }
      const files = await seal(before, changed);
      await assertTrusted(before, files);
      await repository.add(files, { actor, action: 'targets', details: versions(files) });
      return targets.version;
    });

  const changeRollout = (request: RolloutRequest, actor: string): Promise<Plan> =>
    inTurn(async () => {
      const { channel, model, version, percent } = request;
      const before = await state();
      const { heads, published } = before;
      const releases = [...(published?.releases.values() ?? [])].filter((release) => release.model === model);
      const release = releases.find((candidate) => candidate.version === version);
      if (!published || !release) throw noSuchRelease(model, version, releases);
      const { channels, targets } = published;
      const current = plansOf(channels, channel);
      const plans = setRollout(current, release, percent, () => toHex(platform.randomBytes(8)));
      const plan = plans.find((candidate) => candidate.model === model) as Plan;
      const present = current.find((candidate) => candidate.model === model);
      if (present?.id === plan.id && present.bp === plan.bp) return present;
      const after = { ...channels, [channel]: plans };
      const rollout = await signed('rollout', heads, (next) =>
        signing.rollout(next, channels, after, targets),
      );
      const files = await seal(before, [rollout]);
      const details = { channel, model, version, percent, rollout: plan.id };
      await repository.add(files, { actor, action: 'rollout', details });
      return plan;
    });

  return { state: () => state(), renew, installRoot, installTargets, setRollout: changeRollout };
}

async function signed(
  role: Role,
  heads: Heads,
  sign: (version: number) => Promise<Uint8Array>,
): Promise<NewMetadata> {
  const version = (heads[role] ?? 0) + 1;
  return { role, version, text: fromUtf8(await sign(version)) };
}

function isComplete(
  texts: Readonly<Record<keyof Published['texts'], string | undefined>>,
): texts is Published['texts'] {
  return Object.values(texts).every((text) => text !== undefined);
}

function parsePublished(texts: Published['texts']): Published {
  const targets = parseEnvelope(toUtf8(texts.targets), 'targets').signed;
  const rollout = parseEnvelope(toUtf8(texts.rollout), 'targets').signed;
  return {
    texts,
    targets,
    rollout,
    releases: new Map(listReleases(targets).map((release) => [release.path, release])),
    channels: channelsOf(rollout),
    expiresMs: {
      rollout: Date.parse(rollout.expires),
      snapshot: Date.parse(parseEnvelope(toUtf8(texts.snapshot), 'snapshot').signed.expires),
      timestamp: Date.parse(parseEnvelope(toUtf8(texts.timestamp), 'timestamp').signed.expires),
    },
  };
}

function sameHeads(a: Heads, b: Heads): boolean {
  return a.root === b.root && a.targets === b.targets && a.timestamp === b.timestamp;
}

function versions(files: readonly NewMetadata[]): Readonly<Record<string, number>> {
  return Object.fromEntries(files.map(({ role, version }) => [role, version]));
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
