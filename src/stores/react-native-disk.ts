/** Whole-file steps over the files of an app, with failures that say what to do. */
import { isInlayError, StoreError } from '../core/errors.ts';
import { createLiveParts, type LiveParts } from './parts.ts';
import type { AppFiles, FileFacts, FileWriter } from './react-native-files.ts';

/** Folders of a store. */
export interface AppFolders {
  /** Files that are not whole yet. */
  readonly aside: string;
  readonly blobs: string;
  readonly records: string;
}

/** Files that appear whole or not at all. Failures are `StoreError`s. */
export interface AppDisk {
  stat(path: string): Promise<FileFacts | undefined>;
  list(folder: string): Promise<readonly string[]>;
  /** Reads of a file of known size; `undefined` if it is gone or is shorter. */
  read(
    path: string,
    sizeBytes: number,
    offset?: number,
    length?: number,
  ): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /** Makes the folders, and removes what was left half written. */
  prepare(): Promise<void>;
  makeFolder(path: string): Promise<void>;
  /** Creates an empty file, or empties it. */
  create(path: string): Promise<void>;
  /** Writes at a position within a file, or at its end. */
  writeAt(path: string, at: number, bytes: Uint8Array): Promise<void>;
  /** Renames a file if `mayPlace` agrees when it is its turn, as {@link AppDisk.replace} does. */
  place(from: string, path: string, mayPlace: () => Promise<boolean>): Promise<void>;
  /** Parts that are open in this app, of all stores over the same folder. */
  readonly live: LiveParts;
  remove(path: string): Promise<void>;
  freeBytes(): Promise<number>;
  /**
   * Writes a file aside and renames it, if `mayPlace` still agrees by then. One of the name before it is removed first,
   * since a rename over a file fails on iOS: in between, a crash leaves neither.
   */
  replace(
    path: string,
    write: (file: FileWriter) => Promise<void>,
    mayPlace?: () => Promise<boolean>,
  ): Promise<void>;
  /** Runs tasks of one name one after the other, whichever store of this app they come from. */
  inTurn<Result>(name: string, task: () => Promise<Result>): Promise<Result>;
}

/** What stores over one library share: an app that reloads in development has two of them for a while. */
interface Shared {
  readonly turns: Map<string, Promise<unknown>>;
  /** Files that are being written. */
  readonly open: Set<string>;
  /** Partial blobs that are open, by the folder of the store. */
  readonly live: Map<string, LiveParts>;
  written: number;
}

const sharedBy = /* @__PURE__ */ new WeakMap<object, Shared>();

/** Opens folders of an app; nothing is touched before the first write. */
export function openAppDisk(files: AppFiles, folders: AppFolders, pause: () => Promise<void>): AppDisk {
  const shared: Shared = sharedBy.get(files.identity) ?? {
    turns: new Map(),
    open: new Set(),
    live: new Map(),
    written: 0,
  };
  sharedBy.set(files.identity, shared);
  const live = shared.live.get(folders.blobs) ?? createLiveParts();
  shared.live.set(folders.blobs, live);
  let preparing: Promise<void> | undefined;

  const guard = async <Result>(step: string, task: () => Promise<Result>): Promise<Result> => {
    try {
      return await task();
    } catch (error) {
      throw isInlayError(error) ? error : storeError(folders.blobs, step, error);
    }
  };

  const stat = (path: string): Promise<FileFacts | undefined> => guard('stat', () => files.stat(path));
  const list = (folder: string): Promise<readonly string[]> => guard('list', () => files.list(folder));
  const remove = (path: string): Promise<void> => guard('remove', () => files.remove(path));

  const inTurn = <Result>(name: string, task: () => Promise<Result>): Promise<Result> => {
    const turn = (shared.turns.get(name) ?? Promise.resolve()).then(task);
    const settled = turn.then(ignore, ignore);
    shared.turns.set(name, settled);
    void settled.then(() => shared.turns.get(name) === settled && shared.turns.delete(name));
    return turn;
  };

  const makeFolders = async (): Promise<void> => {
    for (const folder of Object.values(folders)) await guard('mkdir', () => files.makeFolder(folder));
    for (const name of await list(folders.aside)) {
      const path = `${folders.aside}/${name}`;
      // Leftovers cost space only.
      if (!shared.open.has(path)) await remove(path).catch(ignore);
    }
  };

  const prepare = (): Promise<void> =>
    (preparing ??= makeFolders().catch((error: unknown) => {
      preparing = undefined;
      throw error;
    }));

  const place: AppDisk['place'] = (from, path, mayPlace) =>
    inTurn(path, async () => {
      if (!(await mayPlace())) return;
      await remove(path);
      await guard('rename', () => files.move(from, path));
    });

  return {
    stat,
    list,
    remove,
    inTurn,
    prepare,
    place,
    live,
    makeFolder: (path) => guard('mkdir', () => files.makeFolder(path)),
    create: (path) => guard('create', async () => (await files.create(path)).close()),
    writeAt: (path, at, bytes) => guard('write', () => files.writeAt(path, at, bytes)),
    freeBytes: () => guard('free space', () => files.freeBytes()),

    read: async (path, sizeBytes, offset = 0, length = sizeBytes) => {
      const out = new Uint8Array(length);
      for (let at = 0; at < length; at += files.pieceBytes) {
        if (at > 0) await pause();
        const wanted = Math.min(files.pieceBytes, length - at);
        const piece = await guard('read', () => files.read(path, offset + at, wanted)).catch(
          async (error: unknown) => {
            if ((await stat(path))?.sizeBytes === sizeBytes) throw error;
            return undefined;
          },
        );
        if (piece?.length !== wanted) return undefined;
        out.set(piece, at);
      }
      return length > 0 || (await stat(path)) ? out : undefined;
    },

    replace: async (path, write, mayPlace = async () => true) => {
      await prepare();
      const beside = `${folders.aside}/${(shared.written += 1)}-${path.slice(path.lastIndexOf('/') + 1)}`;
      shared.open.add(beside);
      try {
        const file = await guard('create', () => files.create(beside));
        const closed = (): Promise<void> => guard('close', () => file.close());
        try {
          await write({ write: (bytes) => guard('write', () => file.write(bytes)), close: closed });
        } finally {
          await closed();
        }
        await place(beside, path, mayPlace);
      } finally {
        await remove(beside).catch(ignore);
        shared.open.delete(beside);
      }
    },
  };
}

const full = /ENOSPC|EDQUOT|no space|not enough (disk )?space|out of space|disk (is )?full|code[= ]*640\b/i;
const readOnly = /EACCES|EPERM|EROFS|read-only|permission|not permitted|code[= ]*(513|642)\b/i;

/** Native code reports in words: errno on Android, NSError's codes on iOS (NSFileWriteOutOfSpaceError is 640). */
function storeError(directory: string, step: string, cause: unknown): StoreError {
  const reason = (cause instanceof Error ? cause.message : String(cause)).slice(0, 300).replace(/\.$/, '');
  const parts = { details: { directory, step }, cause };
  if (full.test(reason)) {
    const message = `No space is left on the device for the store in ${directory} (${step}: ${reason}); free some.`;
    return new StoreError('ERR_INLAY_STORE_FULL', message, parts);
  }
  if (readOnly.test(reason)) {
    const message = `The store in ${directory} may not be changed (${step}: ${reason}); keep it in a folder of the app.`;
    return new StoreError('ERR_INLAY_STORE_READ_ONLY', message, parts);
  }
  const message = `The store in ${directory} failed (${step}: ${reason}); free space, or keep it in another folder.`;
  return new StoreError('ERR_INLAY_STORE_IO', message, parts);
}

function ignore(): void {}
