/** Reads what a device has in its store, from outside the app and without changing any of it. */

import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import { StoreError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import type { BlobFacts, Store } from '../core/store.ts';
import { openFsStore } from '../stores/fs.ts';
import { parsePartName } from '../stores/fs-part.ts';
import { sha256Hex } from '../trust/keys.ts';
import { isFields, isSize, type Fields } from '../trust/parse.ts';
import { eventsRecord, readEvents, type UpdateEvent } from '../update/events.ts';
import type { Marker, SlotsState } from '../update/slot.ts';
import { decodeSlots } from '../update/slots-record.ts';
import { openMetadata, type StoredMetadata } from '../update/state.ts';

/** What a device has. */
export interface DeviceStatus {
  /** Folder of the store. */
  readonly directory: string;
  /** Identifier of the installation; absent before it has followed a server for the first time. */
  readonly install: string | undefined;
  readonly models: readonly DeviceModel[];
  readonly channels: readonly DeviceChannel[];
  /** Downloads that have begun and not ended. */
  readonly downloads: readonly DeviceDownload[];
  readonly blobs: readonly DeviceBlob[];
  /** Oldest first. */
  readonly events: readonly UpdateEvent[];
}

/** What is remembered of one model. */
export interface DeviceModel {
  readonly model: string;
  /** Absent if nothing is known of the server that it came from. */
  readonly channel: string | undefined;
  /** Absent if the record is damaged: the device then begins anew. */
  readonly slots: SlotsState | undefined;
  /** Markers of the slots, with whether the process that wrote them still runs. */
  readonly runs: readonly (Marker & { readonly isAlive: boolean })[];
}

/** Signed metadata of one channel of one server. */
export interface DeviceChannel {
  readonly channel: string;
  /** Begins the names of what belongs to it in the store. */
  readonly owner: string;
  readonly roles: readonly DeviceRole[];
}

/** One role's metadata. */
export interface DeviceRole {
  readonly role: string;
  readonly version: number;
  /** `YYYY-MM-DDTHH:MM:SSZ`; absent for the root that came with the app, which only the app has. */
  readonly expires: string | undefined;
  readonly isExpired: boolean;
}

/** A download under way. */
export interface DeviceDownload {
  readonly sha256: string;
  /** Path of the target, where signed metadata names it. */
  readonly path: string | undefined;
  readonly sizeBytes: number;
  /** Bytes that are on the disk. */
  readonly storedBytes: number;
  /** Milliseconds since 1970. */
  readonly openedAt: number;
}

/** A file in the store. */
export interface DeviceBlob extends BlobFacts {
  /** Path of the target, where signed metadata names it. */
  readonly path: string | undefined;
}

/**
 * Reads the store of a device, also while the app runs.
 * @throws {@link StoreError} `ERR_INLAY_STORE_MISSING` if there is no store in that folder.
 */
export async function readDeviceStatus(
  directory: string,
  platform: Pick<Platform, 'createSha256' | 'instance' | 'now'>,
): Promise<DeviceStatus> {
  const records = await recordNames(directory);
  const store = openFsStore({ directory });
  try {
    const held = new Map<string, StoredMetadata>();
    for (const owner of records.filter((name) => channelOf(name) !== undefined)) {
      held.set(owner, await openMetadata(store, owner).read());
    }
    const paths = targetPaths([...held.values()]);
    const models: DeviceModel[] = [];
    for (const name of records) {
      const model = await readModel(store, name, [...held.keys()], platform);
      if (model) models.push(model);
    }
    const install = await store.readRecord('install');
    const blobs = await store.describeBlobs();
    return {
      directory,
      install: install && fromUtf8(install),
      models,
      channels: [...held].map(([owner, metadata]) => ({
        channel: channelOf(owner) ?? '',
        owner,
        roles: rolesOf(metadata, platform.now()),
      })),
      downloads: (await readDownloads(directory)).map((part) => ({ ...part, path: paths.get(part.sha256) })),
      blobs: blobs.map((blob) => ({ ...blob, path: paths.get(blob.sha256) })),
      events: readEvents(await store.readRecord(eventsRecord)),
    };
  } finally {
    await store.close();
  }
}

/** Names of the records in a folder, each once. */
async function recordNames(directory: string): Promise<readonly string[]> {
  const files = await readdir(join(directory, 'records')).catch((cause: unknown) => {
    throw new StoreError(
      'ERR_INLAY_STORE_MISSING',
      `There is no store of a device in ${directory}; name the folder that the app keeps its models in.`,
      { cause, details: { directory } },
    );
  });
  const names = files.map((file) => /^([a-z0-9._-]{1,200})\.[01]$/.exec(file)?.[1]);
  return [...new Set(names.filter((name) => name !== undefined))].sort();
}

function channelOf(record: string): string | undefined {
  return /^sync-(.+)-[0-9a-f]{16}$/.exec(record)?.[1];
}

async function readModel(
  store: Store,
  record: string,
  owners: readonly string[],
  platform: Pick<Platform, 'createSha256' | 'instance'>,
): Promise<DeviceModel | undefined> {
  const [, model, hash] = /^slots-(.+)-([0-9a-f]{16})$/.exec(record) ?? [];
  if (model === undefined || hash === undefined) return undefined;
  const bytes = await store.readRecord(record);
  const slots = bytes && decodeSlots(bytes);
  const owner = owners.find((one) => sha256Hex(platform, toUtf8(one)).startsWith(hash));
  const runs = (slots?.markers ?? []).map(async (marker) => ({
    ...marker,
    isAlive: (await platform.instance?.isAlive(marker.run)) === true,
  }));
  return { model, channel: owner && channelOf(owner), slots, runs: await Promise.all(runs) };
}

/** Reads the part of a metadata text that was signed; a device verifies it at each start, here it is only shown. */
function signedOf(text: string | undefined): Fields {
  try {
    const value: unknown = JSON.parse(text ?? '');
    return isFields(value) && isFields(value['signed']) ? value['signed'] : {};
  } catch {
    return {};
  }
}

function rolesOf({ rootVersion, texts }: StoredMetadata, now: number): readonly DeviceRole[] {
  const newest = new Map<string, DeviceRole>();
  if (rootVersion > 0) {
    newest.set('root', { role: 'root', version: rootVersion, expires: undefined, isExpired: false });
  }
  for (const [name, text] of Object.entries(texts)) {
    const role = name.replace(/^root\.\d+$/, 'root').replace(/^delegated\//, '');
    const { version, expires } = signedOf(text);
    if (!isSize(version) || typeof expires !== 'string') continue;
    if (version < (newest.get(role)?.version ?? 0)) continue;
    newest.set(role, { role, version, expires, isExpired: Date.parse(expires) <= now });
  }
  return [...newest.values()];
}

/** What signed metadata calls the files that it lists, by SHA-256. */
function targetPaths(all: readonly StoredMetadata[]): ReadonlyMap<string, string> {
  const paths = new Map<string, string>();
  for (const { texts } of all) {
    const { targets } = signedOf(texts['targets']);
    for (const [path, file] of Object.entries(isFields(targets) ? targets : {})) {
      const hashes = isFields(file) ? file['hashes'] : undefined;
      const sha256 = isFields(hashes) ? hashes['sha256'] : undefined;
      if (typeof sha256 === 'string') paths.set(sha256, path);
    }
  }
  return paths;
}

async function readDownloads(directory: string): Promise<readonly Omit<DeviceDownload, 'path'>[]> {
  const folder = join(directory, 'parts');
  const names = await readdir(folder).catch(() => []);
  const found = names.map(async (name) => {
    const part = parsePartName(name);
    const facts = part && (await stat(join(folder, name)).catch(() => undefined));
    if (!facts) return undefined;
    const { sha256, sizeBytes, openedAt } = part;
    // Files have gaps where nothing has come yet, and notes behind their end.
    return { sha256, sizeBytes, storedBytes: Math.min(sizeBytes, 512 * facts.blocks), openedAt };
  });
  return (await Promise.all(found)).filter((part) => part !== undefined);
}
