/** Brings everything of a release that this device needs: its manifest, the file that fits, the golden inputs. */

import type { ExecutionProvider } from '../core/backend.ts';
import { ModelError, TrustError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import type { Store } from '../core/store.ts';
import { sha256Hex } from '../trust/keys.ts';
import type { TargetFile } from '../trust/metadata.ts';
import { isFields, isSize } from '../trust/parse.ts';
import type { Embedded } from './follower.ts';
import { readManifest, type FileRef, type ReleaseFile, type ReleaseManifest } from './manifest.ts';
import type { NetworkRules, PlanEntry } from './plan.ts';
import type { Slot } from './slot.ts';
import type { Sync } from './sync.ts';
import type { DownloadListener, Transfers, Want } from './transfer.ts';

/** A release that is in the store, verified. */
export interface Shipment {
  readonly slot: Slot;
  /** In which way the file came: `full`, `patch` …; `stored` when it was there already. */
  readonly way: string;
}

/** What {@link bring} works with. */
export interface ShipmentParts {
  readonly store: Store;
  readonly transfers: Transfers;
  /** What the offline-signed targets say of a path. */
  readonly target: (path: string) => Promise<TargetFile | undefined>;
  /** Execution providers of this device, for variants that require one. */
  readonly providers: () => Promise<readonly ExecutionProvider[]>;
  /** Bytes of the largest file that is downloaded. */
  readonly maxModelBytes: number;
  /** Puts what came with the app into the store, if it is one of these files: nothing is downloaded twice. */
  readonly lend: (sha256s: readonly string[]) => Promise<void>;
  /** Whether the device has had another release of the model. */
  readonly isUpdate: boolean;
  /** Tells whether a variant did not prove itself on this device. */
  readonly isUnfit: (sha256: string) => Promise<boolean>;
}

/**
 * Brings a release into the store.
 * @throws {@link TrustError} `ERR_INLAY_HASH`, `ERR_INLAY_LENGTH` or `ERR_INLAY_PLAN_INVALID`; {@link ModelError}
 * `ERR_INLAY_MODEL_UNSUPPORTED` for one that is too large for this device; {@link NetworkError}, {@link StoreError}.
 */
export async function bring(
  parts: ShipmentParts,
  entry: PlanEntry,
  net: NetworkRules,
  signal: AbortSignal,
  onProgress?: DownloadListener,
): Promise<Shipment> {
  const { maxModelBytes, transfers, isUpdate } = parts;
  const terms = { net, signal };
  const manifest = await readShipped(parts, entry, terms);
  const file = manifest && (await choose(parts, manifest));
  const { path, sha256, length } = file ?? entry;
  if (length > maxModelBytes) throw tooLarge(path, length, maxModelBytes);
  const ways = file?.ways?.filter((way) => way.kind !== 'hop' || way.to.length <= maxModelBytes) ?? [];
  await parts.lend([sha256, ...ways.flatMap((way) => ('from' in way ? way.from : []))]);
  const { way } = await transfers.obtain({ ...(file ?? entry), ways, ...terms, isUpdate }, onProgress);
  if (manifest?.golden !== undefined) await transfers.obtain({ ...manifest.golden, ...terms });
  return {
    way,
    slot: {
      release: entry,
      file: { sha256, length },
      ...(file && manifest && manifest.files.length > 1 && { variant: file.variant }),
      ...(manifest?.golden && {
        golden: { ...manifest.golden, ...(file?.tolerance && { tolerance: file.tolerance }) },
      }),
      ...(manifest?.profile && { profile: manifest.profile }),
      ...(file?.anchor && { anchor: file.anchor }),
    },
  };
}

/** Puts what came with the app into the store, if it is one of these files. */
export async function lendEmbedded(
  store: Store,
  embedded: Embedded | undefined,
  sha256s: readonly string[],
): Promise<void> {
  const sha256 = embedded?.slot.file.sha256;
  if (embedded === undefined || sha256 === undefined || !sha256s.includes(sha256)) return;
  if ((await store.blob(sha256)) === undefined) await store.putBlob(sha256, await embedded.bytes());
}

/** Keeps the signed targets of now: they prove at later starts that a release was signed. */
export async function keepProof({
  platform,
  store,
  sync,
}: {
  readonly platform: Pick<Platform, 'createSha256'>;
  readonly store: Store;
  readonly sync: Pick<Sync, 'targetsText'>;
}): Promise<Pick<Slot, 'proof'>> {
  const text = await sync.targetsText();
  if (text === undefined) return {};
  const proof = sha256Hex(platform, text);
  try {
    if ((await store.blob(proof)) === undefined) await store.putBlob(proof, text);
    return { proof };
  } catch {
    // The targets in force list it, too.
    return {};
  }
}

async function readShipped(
  { target, transfers, store }: ShipmentParts,
  entry: PlanEntry,
  terms: Pick<Want, 'net' | 'signal'>,
): Promise<ReleaseManifest | undefined> {
  const listed = await target(entry.path);
  const named = listed?.custom?.['manifest'];
  if (named === undefined) return undefined;
  if (!isFileRef(named)) throw malformed(entry);
  const { blob } = await transfers.obtain({ ...named, ...terms });
  const manifest = readManifest(await blob.bytes());
  // It is read once; what it says of the files is in the slots.
  await store.deleteBlob(blob.sha256);
  const [reference] = manifest.files;
  const isOfRelease =
    reference.sha256 === entry.sha256 &&
    reference.length === entry.length &&
    manifest.seq === entry.seq &&
    manifest.version === entry.version;
  if (!isOfRelease) throw malformed(entry);
  return manifest;
}

/**
 * Takes the first variant whose requirements this device meets, that is not too large for it and has not failed here, or
 * else the reference.
 */
async function choose(
  { providers, isUnfit, maxModelBytes }: ShipmentParts,
  { files: [reference, ...variants] }: ReleaseManifest,
): Promise<ReleaseFile> {
  if (!variants.some(({ requires }) => requires !== undefined)) return reference;
  const usable = (await providers()).filter(({ refusal }) => refusal === undefined);
  const fits = ({ requires, length }: ReleaseFile): boolean =>
    requires !== undefined &&
    length <= maxModelBytes &&
    usable.some(
      ({ name, device, features = [] }) =>
        (requires.providers?.some((wanted) => wanted === name || wanted === device) ?? true) &&
        (requires.features?.every((feature) => features.includes(feature)) ?? true),
    );
  for (const variant of variants) if (fits(variant) && !(await isUnfit(variant.sha256))) return variant;
  return reference;
}

function isFileRef(value: unknown): value is FileRef {
  return (
    isFields(value) &&
    typeof value['path'] === 'string' &&
    typeof value['sha256'] === 'string' &&
    /^[0-9a-f]{64}$/.test(value['sha256']) &&
    isSize(value['length'])
  );
}

function malformed({ path }: PlanEntry): TrustError {
  return new TrustError(
    'ERR_INLAY_PLAN_INVALID',
    `The manifest of ${path} is not that of this release; publish the release again.`,
    { details: { path } },
  );
}

function tooLarge(path: string, length: number, maxModelBytes: number): ModelError {
  return new ModelError(
    'ERR_INLAY_MODEL_UNSUPPORTED',
    `The release ${path} has ${length} bytes, and this device takes ${maxModelBytes} at most; raise maxModelBytes, or publish a smaller one.`,
    { details: { path, length, maxModelBytes } },
  );
}
