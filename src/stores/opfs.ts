/**
 * A store in the origin private file system of a browser, shared by all tabs and workers of an origin.
 * @module inlay/stores/opfs
 */
import type { Blob, Store } from '../core/store.ts';
import { assembleStore } from './assemble.ts';
import { createRecords, openDatabase } from './indexeddb-records.ts';
import type { BlobFile } from './ledger.ts';
import { beginBlob, isMissing, listFolder, openFolder, placeOf, removeBlob, sweep } from './opfs-file.ts';
import { createWriterWorker, type WorkerLike } from './opfs-link.ts';
import { openPartFile } from './opfs-part-file.ts';
import { createOpfsParts } from './opfs-part.ts';
import { assertRange, forEachPiece, missing } from './rules.ts';
import { freeBytes, guard, persist } from './web-storage.ts';

export type { WorkerLike } from './opfs-link.ts';

/** Options of {@link openOpfsStore}. */
export interface OpfsStoreOptions {
  /** Names the folder for blobs and the IndexedDB database for records. Default `inlay`. */
  readonly directory?: string;
  /**
   * Starts the worker that writes, for bundlers that do not find it by themselves: it runs `opfs-writer.js`, beside this
   * module. `false`: write on the calling thread, which a dedicated worker always does. Default: what stands beside this
   * module, and the calling thread where no worker starts.
   */
  readonly worker?: (() => WorkerLike) | false;
  /** Most bytes of blobs to hold, see {@link Store.reserve}. Default: as many as the browser gives. */
  readonly quotaBytes?: number;
  /** Wall clock, milliseconds since 1970. Default: `Date.now`. */
  readonly now?: () => number;
}

// Copied and sent to the worker at a stretch; on a slow phone some milliseconds.
const pieceBytes = 1 << 21;

/**
 * Opens a store of files; nothing is touched before its first use. Blobs are whole files that appear in one step after a
 * flush; records change in transactions of IndexedDB. What a tab left behind that was closed or crashed while it wrote
 * is removed by the next one that opens the store.
 */
export function openOpfsStore(options: OpfsStoreOptions = {}): Store {
  const { directory = 'inlay', now = () => Date.now() } = options;
  const place = placeOf(directory);
  const database = openDatabase(directory);
  const { readRecord, updateRecord } = createRecords(database);
  const writers =
    canWriteHere() || options.worker === false
      ? undefined
      : createWriterWorker(options.worker ?? startWorker);
  let folder: Promise<FileSystemDirectoryHandle> | undefined;
  let sweeping: Promise<void> | undefined;

  const blobs = async (): Promise<FileSystemDirectoryHandle> => {
    folder ??= openFolder(directory).catch((error: unknown) => {
      folder = undefined;
      throw error;
    });
    const opened = await folder;
    // Leftovers cost space only, so failing to remove them must not fail anything else.
    sweeping ??= sweep(directory, parts.files).catch(() => {});
    return opened;
  };

  const open = (sha256: string): Promise<File | undefined> =>
    guard(place, 'read', async () => {
      try {
        return await (await (await blobs()).getFileHandle(sha256)).getFile();
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw error;
      }
    });
  const find = async (sha256: string): Promise<BlobFile | undefined> => {
    const file = await open(sha256);
    return file && { sha256, sizeBytes: file.size, writtenAt: file.lastModified };
  };
  const list = async (): Promise<readonly string[]> => {
    const opened = await blobs();
    return guard(place, 'list', () => listFolder(opened));
  };
  const blobOf = ({ sha256, sizeBytes }: Pick<BlobFile, 'sha256' | 'sizeBytes'>): Blob => ({
    sha256,
    sizeBytes,
    bytes: () => read(sha256, (file) => file),
    read: async (offset, length) => {
      assertRange(offset, length, sizeBytes);
      const bytes = await read(sha256, (file) => file.slice(offset, offset + length));
      if (bytes.length === length) return bytes;
      throw missing(sha256, place);
    },
  });

  const read = async (
    sha256: string,
    pick: (file: File) => globalThis.Blob,
  ): Promise<Uint8Array<ArrayBuffer>> => {
    // A file that is replaced between the two steps cannot be read; the one that replaced it can.
    for (let tries = 2; ; tries -= 1) {
      const file = await open(sha256);
      if (file === undefined) throw missing(sha256, place);
      try {
        return new Uint8Array(await guard(place, 'read', () => pick(file).arrayBuffer()));
      } catch (error) {
        if (tries <= 1) throw error;
      }
    }
  };

  const parts = createOpfsParts({
    directory,
    database,
    now,
    blobOf,
    openFile: async (request) => {
      await blobs();
      await sweeping;
      return (await writers?.openPart(request)) ?? openPartFile(request);
    },
  });

  const write = async (
    sha256: string,
    content: Uint8Array | AsyncIterable<Uint8Array>,
    onWritten: (sizeBytes: number) => void,
  ): Promise<Blob> => {
    await blobs();
    await sweeping;
    const writer = (await writers?.begin(directory, sha256)) ?? (await beginBlob(directory, sha256));
    try {
      await forEachPiece(content, pieceBytes, async (piece) => {
        const { length } = piece;
        await writer.write(piece);
        onWritten(length);
      });
      return blobOf({ sha256, sizeBytes: await writer.place() });
    } catch (error) {
      await writer.abandon();
      throw error;
    }
  };

  return assembleStore<BlobFile>({
    what: `The store in ${place}`,
    info: () => ({ kind: 'opfs', location: directory }),
    list: async () => (await Promise.all((await list()).map(find))).filter((file) => file !== undefined),
    find,
    blobOf,
    write,
    remove: (sha256) => removeBlob(directory, sha256),
    openPart: parts.openPart,
    listParts: parts.listParts,
    removePart: parts.removePart,
    persist,
    readRecord,
    updateRecord,
    freeBytes,
    quotaBytes: options.quotaBytes,
    now,
    close: async () => {
      await sweeping;
      writers?.close();
      database.close();
    },
  });
}

function startWorker(): WorkerLike {
  return new Worker(new URL('./opfs-writer.js', import.meta.url), { type: 'module', name: 'inlay-opfs' });
}

/** Dedicated workers write without another thread. */
function canWriteHere(): boolean {
  return (
    typeof FileSystemFileHandle === 'function' && 'createSyncAccessHandle' in FileSystemFileHandle.prototype
  );
}
