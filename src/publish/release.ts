/** Pure functions from one state of a repository's metadata to the next. Nothing is signed or written here. */

import { ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { canonicalJson } from '../trust/canonical-json.ts';
import { sha256Hex, type NamedKey } from '../trust/keys.ts';
import type {
  CompanionTarget,
  MetaFile,
  ModelTarget,
  Snapshot,
  TargetFile,
  Targets,
  Timestamp,
} from '../trust/metadata.ts';
import type { PlanEntry, RolloutPlans, SignedPlan } from '../update/plan.ts';
import { isWithdrawn as isOut, policyOf } from '../update/resolve.ts';
import { delegateRollout, specVersion } from './root.ts';

export { createRoot, type RootOptions } from './root.ts';

/** Formats the time that lies `days` after `now` (milliseconds since 1970) as metadata writes it. */
export function expiresIn(now: number, days: number): string {
  return `${new Date(now + days * 86_400_000).toISOString().slice(0, 19)}Z`;
}

/** Longest name of a model, a channel or a file, characters. */
export const nameLength = 128;

/** Tells whether a text can name a model, a channel or a model's file: `[a-z0-9][a-z0-9._-]*`, up to 128 characters. */
export function isName(text: string): boolean {
  return /^[a-z0-9][a-z0-9._-]{0,127}$/.test(text);
}

/** Creates the first `targets`: no releases yet, and the delegation of `rollout/*` to the online key. */
export function createTargets(options: { readonly onlineKey: NamedKey; readonly expires: string }): Targets {
  const { onlineKey, expires } = options;
  return {
    _type: 'targets',
    spec_version: specVersion,
    version: 1,
    expires,
    targets: {},
    delegations: delegateRollout(onlineKey),
  };
}

/** A file that belongs to a release beside its model. */
export interface NewCompanion {
  /** Name of the file, without a folder. */
  readonly file: string;
  readonly role: CompanionTarget['role'];
  /** Bytes. */
  readonly length: number;
  /** Lower-case hex. */
  readonly sha256: string;
}

/** A file that becomes a release of a model. */
export interface NewRelease {
  readonly model: string;
  /** Version that people see: printable ASCII without spaces. */
  readonly version: string;
  /** Name of the file, without a folder. */
  readonly file: string;
  /** Bytes. */
  readonly length: number;
  /** Lower-case hex. */
  readonly sha256: string;
  /** What else to sign about it. Cannot replace `model`, `version` and `seq`. */
  readonly custom?: Readonly<Record<string, unknown>>;
  /** What else the release has. Default: nothing. */
  readonly companions?: readonly NewCompanion[];
  /** Expiry of the new `targets`. */
  readonly expires: string;
}

/**
 * Adds a release with the next sequence number of its model. Naming the same version with the same content again
 * changes nothing.
 * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if the version exists with other content, `ERR_INLAY_REFUSED` if a
 * name is malformed, two files have the same, or the content was withdrawn; `RangeError` if length or hash is malformed.
 */
export function addRelease(
  targets: Targets,
  release: NewRelease,
): { readonly targets: Targets; readonly path: string; readonly seq: number } {
  const { model, version, file, length, sha256, companions = [] } = release;
  assertNames(model, version);
  assertNotWithdrawn(targets, { model, version, sha256 });
  const same = findRelease(targets, model, version);
  if (same) {
    if (same.sha256 === sha256) return { targets, path: same.path, seq: same.seq };
    throw otherContent(model, version);
  }
  const seq = nextSeq(targets, model);
  const added: Record<string, TargetFile> = {};
  const add = (named: Omit<NewCompanion, 'role'>, custom: ModelTarget | CompanionTarget): void => {
    if (!isName(named.file)) refuseName('file', named.file);
    if (!/^[0-9a-f]{64}$/.test(named.sha256) || !Number.isSafeInteger(named.length) || named.length < 0) {
      throw new RangeError('A release has a SHA-256 in lower-case hex and a length in bytes.');
    }
    const path = releasePath(model, seq, named.file);
    if (Object.hasOwn(added, path)) {
      throw new ServerError(
        'ERR_INLAY_REFUSED',
        `Two files of the release are called ${named.file}; give one of them another name.`,
      );
    }
    added[path] = { length: named.length, hashes: { sha256: named.sha256 }, custom: { ...custom } };
  };
  add({ file, length, sha256 }, { ...release.custom, model, version, seq });
  for (const { role, ...companion } of companions) add(companion, { model, seq, role });
  return {
    targets: {
      ...targets,
      version: targets.version + 1,
      expires: release.expires,
      targets: { ...targets.targets, ...added },
    },
    path: releasePath(model, seq, file),
    seq,
  };
}

/**
 * Checks names before anything is done for them.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`
 */
export function assertNames(model: string, version: string): void {
  if (!isName(model)) refuseName('model', model);
  if (!/^[!-~]{1,128}$/.test(version)) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `The version ${JSON.stringify(version.slice(0, 200))} is not printable ASCII without spaces, of up to 128 characters.`,
    );
  }
}

/**
 * Refuses content that was withdrawn, whatever version it is to have now.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`
 */
export function assertNotWithdrawn(
  targets: Targets,
  { model, version, sha256 }: Pick<NewRelease, 'model' | 'version' | 'sha256'>,
): void {
  const same = listReleases(targets).filter((entry) => entry.model === model && entry.sha256 === sha256);
  const policy = policyOf(targets, model);
  // What is in force under this very version was published before the other one was withdrawn.
  if (same.some((entry) => entry.version === version && !isOut(policy, entry))) return;
  const withdrawn = same.find((entry) => isOut(policy, entry));
  if (!withdrawn) return;
  throw new ServerError(
    'ERR_INLAY_REFUSED',
    `Version ${version} of model ${model} has the content of ${withdrawn.version}, which is withdrawn for good; publish other content.`,
    { details: { model, version, withdrawn: withdrawn.version } },
  );
}

/** Path of a file of a release. */
export function releasePath(model: string, seq: number, file: string): string {
  return `models/${model}/${seq}/${file}`;
}

/** The refusal to give an existing version other content. */
export function otherContent(model: string, version: string): ServerError {
  return new ServerError(
    'ERR_INLAY_CONFLICT',
    `Version ${version} of model ${model} exists with other content; publish this content as another version.`,
    { details: { model, version } },
  );
}

/** Number of the next release of a model: above all that were ever given out, as far as `targets` tell. */
export function nextSeq(targets: Targets, model: string): number {
  const { floorSeq, revoked } = policyOf(targets, model);
  let last = Math.max(floorSeq, ...revoked);
  for (const { custom } of Object.values(targets.targets)) {
    if (custom?.['model'] === model && typeof custom['seq'] === 'number')
      last = Math.max(last, custom['seq']);
  }
  return last + 1;
}

/**
 * Tells whether a release must not run any more.
 * @throws {@link TrustError} `ERR_INLAY_METADATA_INVALID` for malformed policies.
 */
export function isWithdrawn(targets: Pick<Targets, 'custom'>, model: string, seq: number): boolean {
  return isOut(policyOf(targets, model), { seq });
}

/** A release as plans name it, with its model. */
export type ListedRelease = PlanEntry & { readonly model: string };

/** Finds a release by its version. */
export function findRelease(targets: Targets, model: string, version: string): ListedRelease | undefined {
  return listReleases(targets).find((entry) => entry.model === model && entry.version === version);
}

/** Lists the releases in `targets` in the form in which plans name them. Other targets are left out. */
export function listReleases(targets: Targets): readonly ListedRelease[] {
  return Object.entries(targets.targets).flatMap(([path, { length, hashes, custom }]) => {
    const { model, version, seq } = custom ?? {};
    const sha256 = hashes['sha256'];
    return typeof model === 'string' &&
      typeof version === 'string' &&
      typeof seq === 'number' &&
      sha256 !== undefined
      ? [{ path, sha256, length, seq, version, model }]
      : [];
  });
}

/** Describes a metadata file, for the metadata that pins it. */
export function describeFile(
  platform: Pick<Platform, 'createSha256'>,
  version: number,
  bytes: Uint8Array,
): MetaFile {
  return { version, length: bytes.length, hashes: { sha256: sha256Hex(platform, bytes) } };
}

/**
 * Creates the `rollout` role's metadata: the plans of every channel.
 * @param options.channels plans by channel.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` if the name of a channel is malformed.
 */
export function createRolloutTargets(
  platform: Pick<Platform, 'createSha256'>,
  options: {
    readonly version: number;
    readonly expires: string;
    readonly channels: Readonly<Record<string, readonly SignedPlan[]>>;
  },
): Targets {
  const { version, expires, channels } = options;
  const targets: Record<string, TargetFile> = {};
  for (const [channel, plans] of Object.entries(channels)) {
    if (!isName(channel)) refuseName('channel', channel);
    const custom = { v: 1, plans } satisfies RolloutPlans;
    // Plain TUF tools can fetch the plan as a file; this is that file.
    const bytes = canonicalJson(custom);
    targets[`rollout/${channel}.json`] = {
      length: bytes.length,
      hashes: { sha256: sha256Hex(platform, bytes) },
      custom,
    };
  }
  return { _type: 'targets', spec_version: specVersion, version, expires, targets };
}

/** Creates a snapshot that pins the files of the targets roles, by file name such as `targets.json`. */
export function createSnapshot(options: {
  readonly version: number;
  readonly expires: string;
  readonly meta: Readonly<Record<string, MetaFile>>;
}): Snapshot {
  const { version, expires, meta } = options;
  return { _type: 'snapshot', spec_version: specVersion, version, expires, meta };
}

/** Creates a timestamp that pins a snapshot. */
export function createTimestamp(options: {
  readonly version: number;
  readonly expires: string;
  readonly snapshot: MetaFile;
}): Timestamp {
  const { version, expires, snapshot } = options;
  return {
    _type: 'timestamp',
    spec_version: specVersion,
    version,
    expires,
    meta: { 'snapshot.json': snapshot },
  };
}

function refuseName(what: string, name: string): never {
  throw new ServerError(
    'ERR_INLAY_REFUSED',
    `The ${what} name ${JSON.stringify(name)} is malformed; use a-z, 0-9, dot, underscore and hyphen, first a letter or digit.`,
  );
}
