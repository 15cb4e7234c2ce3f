/** Pure functions from one state of a repository's metadata to the next. Nothing is signed or written here. */

import { ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { canonicalJson } from '../trust/canonical-json.ts';
import { sha256Hex, type NamedKey } from '../trust/keys.ts';
import type {
  MetaFile,
  ModelTarget,
  PublicKey,
  RoleKeys,
  Root,
  Snapshot,
  TargetFile,
  Targets,
  Timestamp,
} from '../trust/metadata.ts';
import type { Plan, PlanEntry, RolloutPlans } from '../update/plan.ts';

const specVersion = '1.0.31';

/** Formats the time that lies `days` after `now` (milliseconds since 1970) as metadata writes it. */
export function expiresIn(now: number, days: number): string {
  return `${new Date(now + days * 86_400_000).toISOString().slice(0, 19)}Z`;
}

/** Tells whether a text can name a model, a channel or a model's file: `[a-z0-9][a-z0-9._-]*`, up to 128 characters. */
export function isName(text: string): boolean {
  return /^[a-z0-9][a-z0-9._-]{0,127}$/.test(text);
}

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
  const { rootThreshold = Math.floor(rootKeys.length / 2) + 1, targetsThreshold = 1 } = options;
  const online = role([onlineKey], 1);
  return {
    _type: 'root',
    spec_version: specVersion,
    version,
    expires,
    consistent_snapshot: true,
    keys: keysById([...rootKeys, ...targetsKeys, onlineKey]),
    roles: {
      root: role(rootKeys, rootThreshold),
      timestamp: online,
      snapshot: online,
      targets: role(targetsKeys, targetsThreshold),
    },
  };
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
    delegations: {
      keys: keysById([onlineKey]),
      roles: [{ name: 'rollout', ...role([onlineKey], 1), paths: ['rollout/*'], terminating: true }],
    },
  };
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
  /** Expiry of the new `targets`. */
  readonly expires: string;
}

/**
 * Adds a release with the next sequence number of its model. Naming the same version with the same content again
 * changes nothing.
 * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if the version exists with other content, `ERR_INLAY_REFUSED` if a
 * name is malformed; `RangeError` if length or hash is.
 */
export function addRelease(
  targets: Targets,
  release: NewRelease,
): { readonly targets: Targets; readonly path: string; readonly seq: number } {
  const { model, version, file, length, sha256 } = release;
  if (!isName(model)) refuseName('model', model);
  if (!isName(file)) refuseName('file', file);
  if (!/^[!-~]{1,128}$/.test(version)) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `The version ${JSON.stringify(version)} is not printable ASCII without spaces.`,
    );
  }
  if (!/^[0-9a-f]{64}$/.test(sha256) || !Number.isSafeInteger(length) || length < 0) {
    throw new RangeError('A release has a SHA-256 in lower-case hex and a length in bytes.');
  }
  const releases = listReleases(targets).filter((entry) => entry.model === model);
  const same = releases.find((entry) => entry.version === version);
  if (same) {
    if (same.sha256 === sha256) return { targets, path: same.path, seq: same.seq };
    throw new ServerError(
      'ERR_INLAY_CONFLICT',
      `Version ${version} of model ${model} exists with other content; publish this content as another version.`,
      { details: { model, version } },
    );
  }
  const seq = Math.max(0, ...releases.map((entry) => entry.seq)) + 1;
  const path = `models/${model}/${seq}/${file}`;
  const target: TargetFile = {
    length,
    hashes: { sha256 },
    custom: { ...release.custom, model, version, seq } satisfies ModelTarget,
  };
  return {
    targets: {
      ...targets,
      version: targets.version + 1,
      expires: release.expires,
      targets: { ...targets.targets, [path]: target },
    },
    path,
    seq,
  };
}

/** Lists the releases in `targets` in the form in which plans name them. Other targets are left out. */
export function listReleases(targets: Targets): readonly (PlanEntry & { readonly model: string })[] {
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
    readonly channels: Readonly<Record<string, readonly Plan[]>>;
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

function role(keys: readonly NamedKey[], threshold: number): RoleKeys {
  const keyids = [...new Set(keys.map(({ keyid }) => keyid))];
  if (!Number.isSafeInteger(threshold) || threshold < 1 || threshold > keyids.length) {
    throw new RangeError(
      `A threshold of ${threshold} cannot be met with ${keyids.length} keys; use 1 to that number.`,
    );
  }
  return { keyids, threshold };
}

function keysById(keys: readonly NamedKey[]): Record<string, PublicKey> {
  return Object.fromEntries(keys.map(({ keyid, key }) => [keyid, key]));
}

function refuseName(what: string, name: string): never {
  throw new ServerError(
    'ERR_INLAY_REFUSED',
    `The ${what} name ${JSON.stringify(name)} is malformed; use a-z, 0-9, dot, underscore and hyphen, first a letter or digit.`,
  );
}
