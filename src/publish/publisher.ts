/** How a release reaches a server: everything the server says is verified before the offline key signs upon it. */

import { isInlayError, ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { sha256Hex } from '../trust/keys.ts';
import type { ModelTarget, Targets } from '../trust/metadata.ts';
import type { GoldenTolerance, ReleaseFile, ReleaseManifest } from '../update/manifest.ts';
import { currentTargets } from './current.ts';
import { describeChunks, writeManifest, type PreparedFile, type PreparedRelease } from './manifest.ts';
import { chooseHops, readEarlier } from './hops.ts';
import { prepareWays, type BaseFile, type Gzip, type PatchEncoder } from './patches.ts';
import {
  addRelease,
  assertNames,
  assertNotWithdrawn,
  expiresIn,
  findRelease,
  isName,
  listReleases,
  nextSeq,
  otherContent,
} from './release.ts';
import { listWays, type ReleaseWay } from './release-ways.ts';
import { readBases, fetchManifest, type PatchFrom } from './released-files.ts';
import { signMetadata } from './sign.ts';
import type { Signer } from './signer.ts';

/** A release that the server has. */
export interface PublishedRelease {
  /** Target path, `models/<model>/<seq>/<file>`. */
  readonly path: string;
  readonly seq: number;
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Version of the targets that list it. */
  readonly targets: number;
  /** Whether it was there before, and nothing was changed. */
  readonly isUnchanged: boolean;
  /** What a device may download instead of whole files. */
  readonly ways: readonly ReleaseWay[];
}

/** The server that a release goes to, as calls of its wire protocol. */
export interface ReleaseServer {
  /** Reads the roots after `root` and the online metadata. */
  tip(root: number): Promise<Tip>;
  /** Reads a text of the device plane by its path. */
  text(path: string): Promise<Uint8Array<ArrayBuffer>>;
  hasBlob(sha256: string): Promise<boolean>;
  putBlob(sha256: string, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  putTargets(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
}

/** What a device would get in one poll. */
export interface Tip {
  readonly roots: readonly string[];
  readonly timestamp: string;
  readonly snapshot: string;
  readonly rollout: string;
}

/** Where a publisher keeps its key and what it saw last. */
export interface PublisherKeys {
  /** Where that is, for messages. */
  readonly path: string;
  /** Opens as many keys as the threshold of the role asks for. */
  signersOf(role: 'targets'): Promise<readonly Signer[]>;
  /** The root that is trusted in advance. */
  root(): Promise<Uint8Array>;
  read(name: 'verified.json'): Promise<Uint8Array | undefined>;
  write(name: 'targets.json' | 'verified.json', bytes: Uint8Array): Promise<void>;
}

/** What {@link publishRelease} and {@link changeTargets} work with. */
export interface PublishOptions {
  readonly server: ReleaseServer;
  readonly keys: PublisherKeys;
  readonly platform: Platform;
  /** Compresses files. Default: nothing is compressed. */
  readonly gzip?: Gzip;
  /** Formats of patches. Default: none. */
  readonly encoders?: readonly PatchEncoder[];
}

/** Another precision of a model. */
export interface ReleaseVariant {
  /** `int8`, `fp16` … */
  readonly variant: string;
  /** Name of the file, without a folder. */
  readonly file: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly requires?: ReleaseFile['requires'];
  /** How far its answers may lie from the golden ones. Default: that of the golden inputs. */
  readonly tolerance?: GoldenTolerance | undefined;
}

/** What is published. */
export interface ReleaseContent {
  readonly model: string;
  /** Version that people see: printable ASCII without spaces. */
  readonly version: string;
  /** Name of the model's file, without a folder. */
  readonly file: string;
  /** What the model's file is called among the variants. Default `fp32`. */
  readonly variant?: string;
  /** How far its answers may lie from the golden ones, where variants need more. Default: that of the golden inputs. */
  readonly tolerance?: GoldenTolerance | undefined;
  /** Default: none. */
  readonly variants?: readonly ReleaseVariant[];
  /** A file of golden inputs and outputs. `isMadeUp`: another one like it is as good. Default: none. */
  readonly golden?:
    | {
        readonly bytes: Uint8Array<ArrayBuffer>;
        readonly tolerance: GoldenTolerance;
        readonly isMadeUp?: boolean;
      }
    | undefined;
  /** A file that says what the model sees and gives, for drift. Default: none. */
  readonly profile?: Uint8Array<ArrayBuffer> | undefined;
  /** Lowest version of Inlay that runs it, `major.minor.patch`. Default: any. */
  readonly minSdk?: string | undefined;
  /** SPDX expression. */
  readonly licence?: string | undefined;
  readonly notes?: string | undefined;
  /** How the weights were rounded; signed with the release. Default: they were not. */
  readonly compact?: ModelTarget['compact'] | undefined;
  /** The grid that the weights were snapped to; signed with the release. Default: they were not. */
  readonly snap?: ModelTarget['snap'] | undefined;
  /** Releases that patches start from, besides the one that it was rounded around. Default: none. */
  readonly patchFrom?: PatchFrom | undefined;
}

/** Days for which the offline roles' signatures hold. */
export const offlineDays = { root: 365, targets: 180 } as const;

const maxAttempts = 10;

/**
 * Signs the next targets. When somebody else was faster, it starts again from theirs.
 * @param change makes the next targets from those in force; the same ones for no change. Called for each attempt.
 * @returns the targets that are in force then.
 * @throws {@link TrustError} if the server's metadata does not verify against `root.json`, is older than what was
 * seen before, or {@link ServerError} if the server refuses.
 */
export async function changeTargets(
  { server, keys, platform }: PublishOptions,
  change: (present: Targets, expires: string) => Targets | Promise<Targets>,
): Promise<Targets> {
  const signers = await keys.signersOf('targets');
  for (let attempt = 1; ; attempt += 1) {
    const present = await currentTargets({ server, keys, platform });
    const targets = await change(present, expiresIn(platform.now(), offlineDays.targets));
    if (targets === present) return present;
    const signed = await signMetadata(targets, signers);
    try {
      await server.putTargets(signed);
    } catch (error) {
      const raced = isInlayError(error) && error.code === 'ERR_INLAY_CONFLICT';
      if (raced && attempt < maxAttempts) continue;
      throw error;
    }
    await keys.write('targets.json', signed);
    return targets;
  }
}

/**
 * Uploads the files of a release, writes its manifest and adds all of it to the targets. Publishing the same content
 * under the same version again changes nothing; an upload that was interrupted goes on. Nobody runs the model here:
 * see `checkModel`.
 * @throws {@link TrustError} and {@link ServerError} as {@link changeTargets}; `ERR_INLAY_CONFLICT` if the version
 * exists with other content, `ERR_INLAY_REFUSED` if a name is malformed, a file empty, or the content was withdrawn.
 */
export async function publishRelease(
  options: PublishOptions,
  bytes: Uint8Array<ArrayBuffer>,
  release: ReleaseContent,
): Promise<PublishedRelease> {
  const { server, platform } = options;
  const { model, version, file, variant = 'fp32', tolerance, variants = [] } = release;
  assertNames(model, version);
  const files = [{ variant, file, bytes, tolerance }, ...variants] as const;
  assertFiles(files);
  const hashes = files.map((one) => [one.variant, sha256Hex(platform, one.bytes)] as const);
  const sha256 = hashes[0]?.[1] ?? '';
  const result = { sha256, sizeBytes: bytes.length };
  let published: Omit<PublishedRelease, 'targets'> | undefined;
  let prepared: PreparedRelease | undefined;
  const targets = await changeTargets(options, async (present, expires) => {
    assertNotWithdrawn(present, { model, version, sha256 });
    const found = findRelease(present, model, version);
    if (found) {
      const manifest = await assertSame(options, present, found.path, release, hashes);
      const ways = manifest ? listWays(manifest, present) : [];
      published = { ...result, path: found.path, seq: found.seq, isUnchanged: true, ways };
      return present;
    }
    prepared ??= await prepareRelease(options, present, release, files);
    const written = writeManifest(platform, prepared, { model, version, seq: nextSeq(present, model) });
    const added = addRelease(present, {
      model,
      version,
      file,
      length: bytes.length,
      sha256,
      custom: { ...describe(release), manifest: written.ref },
      companions: written.companions,
      expires,
    });
    await upload(server, [{ sha256, bytes }, ...written.companions]);
    const { path, seq } = added;
    const ways = listWays(written.manifest, added.targets);
    published = { ...result, path, seq, isUnchanged: false, ways };
    return added.targets;
  });
  // The change was called at least once, or an error was thrown.
  return { ...(published as Omit<PublishedRelease, 'targets'>), targets: targets.version };
}

async function prepareRelease(
  { server, platform, gzip, encoders = [] }: PublishOptions,
  present: Targets,
  { model, golden, profile, patchFrom, compact }: ReleaseContent,
  [reference, ...others]: readonly [ReleaseVariant, ...ReleaseVariant[]],
): Promise<PreparedRelease> {
  const bases =
    (patchFrom ?? compact) !== undefined && encoders.length > 0
      ? await readBases({ server, platform }, present, {
          model,
          from: patchFrom ?? [],
          anchor: compact?.anchor,
        })
      : new Map<string, readonly BaseFile[]>();
  const earlier = bases.size > 0 ? await readEarlier({ server, platform }, present, model) : [];
  const prepare = async (one: ReleaseVariant): Promise<PreparedFile> => {
    const { variant, file, bytes } = one;
    const sha256 = sha256Hex(platform, bytes);
    const ways = await prepareWays(
      { platform, gzip, encoders, bases: bases.get(variant) ?? [] },
      file,
      bytes,
    );
    const hops = await chooseHops(
      { sha256, length: bytes.length },
      ways,
      earlier.filter((other) => other.variant === variant),
      (hop) => server.hasBlob(hop),
    );
    return { ...one, sha256, chunks: describeChunks(platform, bytes), ways, hops };
  };
  const anchor = listReleases(present).find((one) => one.model === model && one.sha256 === compact?.anchor);
  const files: [PreparedFile, ...PreparedFile[]] = [
    {
      ...(await prepare(reference)),
      ...(anchor && { anchor: { sha256: anchor.sha256, length: anchor.length } }),
    },
  ];
  for (const other of others) files.push(await prepare(other));
  return { files, golden, profile };
}

/**
 * Refuses files that devices would refuse, before anything is done for them.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`
 */
export function assertFiles(files: readonly ReleaseVariant[]): void {
  const variants = new Set<string>();
  for (const { variant, file, bytes } of files) {
    const isTwice = variants.has(variant);
    variants.add(variant);
    if (isName(variant) && !isTwice && bytes.length > 0) continue;
    const problem = isTwice
      ? 'is there twice; name each variant once'
      : bytes.length === 0
        ? `is empty (${file}); export it anew`
        : 'is malformed; use a-z, 0-9, dot, underscore and hyphen, first a letter or digit';
    throw new ServerError('ERR_INLAY_REFUSED', `The variant ${JSON.stringify(variant)} ${problem}.`, {
      details: { variant },
    });
  }
}

/** Uploads what is not there yet. */
async function upload(
  server: ReleaseServer,
  files: readonly { readonly sha256: string; readonly bytes: Uint8Array<ArrayBuffer> }[],
): Promise<void> {
  for (const { sha256, bytes } of new Map(files.map((file) => [file.sha256, file])).values()) {
    if (!(await server.hasBlob(sha256))) await server.putBlob(sha256, bytes);
  }
}

/** What is signed about a release beside its manifest. */
function describe({
  minSdk,
  licence,
  notes,
  compact,
  snap,
}: ReleaseContent): Readonly<Record<string, unknown>> {
  return {
    ...(compact !== undefined && { compact }),
    ...(snap !== undefined && { snap }),
    ...(minSdk !== undefined && { minSdk }),
    ...(licence !== undefined && { licence }),
    ...(notes !== undefined && { notes }),
  };
}

/**
 * Refuses to take what is there for what was to be published, unless it is the same for every device.
 * @returns the manifest that is there; releases of one file may have none.
 */
async function assertSame(
  source: PublishOptions,
  targets: Targets,
  path: string,
  release: ReleaseContent,
  files: readonly (readonly [variant: string, sha256: string])[],
): Promise<ReleaseManifest | undefined> {
  const { model, version, golden, profile } = release;
  const target = targets.targets[path];
  const wanted = describe(release);
  const has = (bytes: Uint8Array | undefined, sha256: string | undefined): boolean =>
    (bytes && sha256Hex(source.platform, bytes)) === sha256;
  const manifest = await fetchManifest(source, targets, { path });
  const present = manifest?.files.map(({ variant, sha256 }) => [variant, sha256]) ?? [
    [files[0]?.[0], target?.hashes['sha256']],
  ];
  const isSame =
    ['minSdk', 'licence', 'notes'].every((key) => target?.custom?.[key] === wanted[key]) &&
    present.join() === files.join() &&
    has(profile, manifest?.profile?.sha256) &&
    (golden === undefined || golden.isMadeUp === true || has(golden.bytes, manifest?.golden?.sha256));
  if (!isSame) throw otherContent(model, version);
  return manifest;
}
