/** What a device remembers of one channel: its verified metadata. What became of each model is in its slots. */

import { fromUtf8, toHex, toUtf8 } from '../core/bytes.ts';
import type { Platform } from '../core/platform.ts';
import type { Store } from '../core/store.ts';
import type { TrustedMetadata } from '../trust/client.ts';
import { isFields, isSize } from '../trust/parse.ts';

/** Metadata as it was received, with what orders two states of it. */
export interface StoredMetadata {
  readonly rootVersion: number;
  readonly timestampVersion: number;
  readonly texts: Readonly<Record<string, string>>;
  /** Of the answer that completed it; absent while something is missing. */
  readonly etag?: string;
}

const nothing: StoredMetadata = { rootVersion: 0, timestampVersion: 0, texts: {} };

/** Reads and writes what is remembered of one channel of one server. */
export interface MetadataRecord {
  read(): Promise<StoredMetadata>;
  /** Replaces the metadata, unless another process stored newer one meanwhile. */
  save(metadata: StoredMetadata): Promise<void>;
}

/** Opens a record. A damaged one counts as empty, since everything in it can be had again. */
export function openMetadata(store: Store, name: string): MetadataRecord {
  return {
    read: async () => decode(await store.readRecord(name)),
    save: async (metadata) => {
      const text = JSON.stringify(metadata);
      await store.updateRecord(name, (bytes) => {
        const present = decode(bytes);
        return isNewer(present, metadata) || JSON.stringify(present) === text ? undefined : toUtf8(text);
      });
    },
  };
}

/**
 * Reads the random identifier that places this device in buckets; the first call draws it.
 * @returns 32 hex digits, the same for all channels of a store.
 */
export async function installId(platform: Pick<Platform, 'randomBytes'>, store: Store): Promise<string> {
  const isId = (bytes: Uint8Array | undefined): boolean =>
    bytes?.length === 32 &&
    bytes.every((byte) => (byte >= 0x30 && byte <= 0x39) || (byte >= 0x61 && byte <= 0x66));
  // A disk that is full can still be read.
  const known = await store.readRecord('install');
  if (known !== undefined && isId(known)) return fromUtf8(known);
  const drawn = toUtf8(toHex(platform.randomBytes(16)));
  const kept = await store.updateRecord('install', (present) => (isId(present) ? undefined : drawn));
  return fromUtf8(kept ?? drawn);
}

/** What orders two states of metadata. */
export type MetadataVersions = Pick<StoredMetadata, 'rootVersion' | 'timestampVersion'>;

/** Reads the versions of a trusted set. */
export function versionsOf({
  root,
  timestamp,
}: Pick<TrustedMetadata, 'root' | 'timestamp'>): MetadataVersions {
  return { rootVersion: root.version, timestampVersion: timestamp?.version ?? 0 };
}

/** Tells whether one state follows another. A rotated root may restart the timestamp's versions, so roots come first. */
export function isNewer(a: MetadataVersions, b: MetadataVersions): boolean {
  return a.rootVersion === b.rootVersion
    ? a.timestampVersion > b.timestampVersion
    : a.rootVersion > b.rootVersion;
}

function decode(bytes: Uint8Array | undefined): StoredMetadata {
  if (bytes === undefined) return nothing;
  try {
    const value: unknown = JSON.parse(fromUtf8(bytes));
    return isMetadata(value) ? value : nothing;
  } catch {
    return nothing;
  }
}

function isMetadata(value: unknown): value is StoredMetadata {
  return (
    isFields(value) &&
    isSize(value['rootVersion']) &&
    isSize(value['timestampVersion']) &&
    isFields(value['texts']) &&
    Object.values(value['texts']).every((text) => typeof text === 'string') &&
    (value['etag'] === undefined || typeof value['etag'] === 'string')
  );
}
