/** What a device remembers of one channel: verified metadata and the release of each model that proved itself. */

import { fromUtf8, toHex, toUtf8 } from '../core/bytes.ts';
import type { Platform } from '../core/platform.ts';
import type { Store } from '../core/store.ts';
import { isFields, isSize } from '../trust/parse.ts';
import type { PlanEntry } from './plan.ts';
import { isEntry } from './resolve.ts';

/** Metadata as it was received, with what orders two states of it. */
export interface StoredMetadata {
  readonly rootVersion: number;
  readonly timestampVersion: number;
  readonly texts: Readonly<Record<string, string>>;
  /** Of the answer that completed it; absent while something is missing. */
  readonly etag?: string;
}

/** Content of the record. */
export interface SyncState {
  readonly metadata: StoredMetadata;
  /** The release of each model that was opened and ran. */
  readonly committed: Readonly<Record<string, PlanEntry>>;
  /** The one before that, which a rollout that is taken back returns to. */
  readonly previous?: Readonly<Record<string, PlanEntry>>;
}

const nothing: SyncState = { metadata: { rootVersion: 0, timestampVersion: 0, texts: {} }, committed: {} };

/** Reads and writes what is remembered of one channel of one server. */
export interface StateFile {
  read(): Promise<SyncState>;
  /** Replaces the metadata, unless another process stored newer one meanwhile. */
  saveMetadata(metadata: StoredMetadata): Promise<void>;
  /** Names the release with which this device starts from now on. */
  saveCommitted(model: string, entry: PlanEntry): Promise<void>;
}

/** Opens a record. A damaged one counts as empty, since everything in it can be had again. */
export function openState(store: Store, name: string): StateFile {
  const update = async (change: (state: SyncState) => SyncState): Promise<void> => {
    await store.updateRecord(name, (present) => {
      const state = decode(present);
      const changed = change(state);
      return changed === state ? undefined : toUtf8(JSON.stringify(changed));
    });
  };
  return {
    read: async () => decode(await store.readRecord(name)),
    saveMetadata: (metadata) =>
      update((state) =>
        isNewer(state.metadata, metadata) || JSON.stringify(state.metadata) === JSON.stringify(metadata)
          ? state
          : { ...state, metadata },
      ),
    saveCommitted: (model, { path, sha256, length, seq, version }) =>
      update((state) => {
        const present = Object.hasOwn(state.committed, model) ? state.committed[model] : undefined;
        if (present?.sha256 === sha256 && present.path === path) return state;
        return {
          ...state,
          committed: { ...state.committed, [model]: { path, sha256, length, seq, version } },
          ...(present && { previous: { ...state.previous, [model]: present } }),
        };
      }),
  };
}

/** Files that a state cannot do without: they stay when the store makes room. */
export function neededBlobs({ committed, previous = {} }: SyncState): readonly string[] {
  return [...Object.values(committed), ...Object.values(previous)].map(({ sha256 }) => sha256);
}

/**
 * Reads the random identifier that places this device in buckets; the first call draws it.
 * @returns 32 hex digits, the same for all channels of a store.
 */
export async function installId(platform: Pick<Platform, 'randomBytes'>, store: Store): Promise<string> {
  const isId = (bytes: Uint8Array | undefined): boolean =>
    bytes?.length === 32 &&
    bytes.every((byte) => (byte >= 0x30 && byte <= 0x39) || (byte >= 0x61 && byte <= 0x66));
  const drawn = toUtf8(toHex(platform.randomBytes(16)));
  const kept = await store.updateRecord('install', (present) => (isId(present) ? undefined : drawn));
  return fromUtf8(kept ?? drawn);
}

/** A rotated root may restart the timestamp's versions, so roots come first. */
function isNewer(a: StoredMetadata, b: StoredMetadata): boolean {
  return a.rootVersion === b.rootVersion
    ? a.timestampVersion > b.timestampVersion
    : a.rootVersion > b.rootVersion;
}

function decode(bytes: Uint8Array | undefined): SyncState {
  if (bytes === undefined) return nothing;
  try {
    const value: unknown = JSON.parse(fromUtf8(bytes));
    return isState(value) ? value : nothing;
  } catch {
    return nothing;
  }
}

function isState(value: unknown): value is SyncState {
  if (!isFields(value)) return false;
  const { metadata, committed, previous = {} } = value;
  return (
    isFields(metadata) &&
    isSize(metadata['rootVersion']) &&
    isSize(metadata['timestampVersion']) &&
    isFields(metadata['texts']) &&
    Object.values(metadata['texts']).every((text) => typeof text === 'string') &&
    (metadata['etag'] === undefined || typeof metadata['etag'] === 'string') &&
    isFields(committed) &&
    isFields(previous) &&
    [...Object.values(committed), ...Object.values(previous)].every(isEntry)
  );
}
