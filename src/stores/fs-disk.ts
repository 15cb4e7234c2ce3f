import { randomBytes } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import { StoreError, isInlayError } from '../core/errors.ts';
import type { FsHost } from './fs-host.ts';

/** The part of `node:fs/promises` that the file store uses. */
export interface FileSystem {
  mkdir(path: string): Promise<unknown>;
  open(path: string, flags: 'wx' | 'r' | 'r+'): Promise<FileHandle>;
  readFile(path: string): Promise<Uint8Array>;
  readdir(path: string): Promise<readonly string[]>;
  rename(from: string, to: string): Promise<void>;
  stat(path: string): Promise<FileStats>;
  /** Facts of the volume that holds a path. */
  statfs?(path: string): Promise<{ readonly bavail: number; readonly bsize: number }>;
  unlink(path: string): Promise<void>;
}

/** An open file. */
export interface FileHandle {
  /** Appends all of `bytes`. */
  writeFile(bytes: Uint8Array): Promise<void>;
  /** Fills `buffer` from `offset` on with up to `length` bytes of the file. */
  read(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ readonly bytesRead: number }>;
  /** Writes up to `length` bytes of `buffer`. */
  write(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ readonly bytesWritten: number }>;
  truncate(sizeBytes: number): Promise<void>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** Facts of a file. */
export interface FileStats {
  readonly size: number;
  readonly mtimeMs: number;
  /** Units of 512 bytes that it takes on the disk, where that is known. */
  readonly blocks?: number;
}

/** A file that is open for reading, or for both. */
export interface DiskFile {
  /** Reads from a position on: fewer bytes than `length` only where the file ends. */
  read(at: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Writes all of `bytes` at a position. */
  write(at: number, bytes: Uint8Array): Promise<void>;
  truncate(sizeBytes: number): Promise<void>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** A directory with whole-file steps that a crash cannot split. Failures are `StoreError`s that keep the errno. */
export interface Disk {
  /** Makes the folders, and once removes what crashed writers left behind. */
  prepare(): Promise<void>;
  /** Reads a file; `undefined` when absent. */
  read(path: string): Promise<Uint8Array<ArrayBuffer> | undefined>;
  stat(path: string): Promise<FileStats | undefined>;
  /** Opens a file; `undefined` when absent. */
  open(path: string, flags: 'r' | 'r+'): Promise<DiskFile | undefined>;
  /** Renames a file; `false` if it is absent. */
  rename(from: string, to: string): Promise<boolean>;
  /** Makes a folder and those above it; present is fine. */
  makeFolder(path: string): Promise<unknown>;
  /** Names in a folder; none when absent. */
  list(folder: string): Promise<readonly string[]>;
  /** Removes a file; absent is fine. */
  remove(path: string): Promise<void>;
  /** Creates a file that is not there yet. @returns `false` if it is. */
  create(path: string, bytes: Uint8Array): Promise<boolean>;
  /**
   * Writes a file aside, flushes it, and puts it in place in one step if `mayPlace` still agrees by then.
   * @returns whether it was put in place. What is in place afterwards survives a power cut.
   */
  replace(
    path: string,
    write: (file: FileHandle) => Promise<void>,
    mayPlace: () => Promise<boolean>,
  ): Promise<boolean>;
  /** Makes the names in a folder survive a power cut. */
  syncFolder(folder: string): Promise<void>;
  /** Bytes that the volume still takes; `Infinity` where it does not tell. */
  freeBytes(): Promise<number>;
}

const leftoverAgeMs = 3_600_000;
const busyRetries = 10;
const busyPauseMs = 20;

/** Opens a directory; nothing is touched before the first call. */
export function openDisk(fs: FileSystem, directory: string, host: FsHost, folders: readonly string[]): Disk {
  const aside = join(directory, 'tmp');
  let flushed = false;
  let swept = false;

  const guard = async <T>(step: string, task: () => Promise<T>): Promise<T> => {
    // Windows refuses for a moment what an indexer or a virus scanner has open.
    for (let tries = host.platform === 'win32' ? busyRetries : 0; ; tries -= 1) {
      try {
        return await task();
      } catch (error) {
        const errno = (error as NodeJS.ErrnoException).code ?? 'unknown';
        if (tries <= 0 || !busy.has(errno)) throw storeError(directory, step, errno, error);
        await host.pause(busyPauseMs);
      }
    }
  };

  const open = async (path: string, flags: 'wx' | 'r' | 'r+'): Promise<FileHandle> => {
    const file = await guard('open', () => fs.open(path, flags));
    return {
      writeFile: (bytes) => guard('write', () => file.writeFile(bytes)),
      read: (...range) => guard('read', () => file.read(...range)),
      write: (...range) => guard('write', () => file.write(...range)),
      truncate: (sizeBytes) => guard('truncate', () => file.truncate(sizeBytes)),
      sync: () => guard('fsync', () => file.sync()),
      close: () => guard('close', () => file.close()),
    };
  };

  // Not the recursive call of Node, which reports ENOENT where the disk is read-only.
  const makeFolder = async (path: string): Promise<boolean> => {
    const make = (): Promise<boolean> =>
      guard('mkdir', () => fs.mkdir(path))
        .then(() => true)
        .catch(unless(['EEXIST'], false));
    const made = await make().catch(unless(['ENOENT'], undefined));
    if (made !== undefined) return made;
    await makeFolder(dirname(path));
    return make();
  };

  const stat = (path: string): Promise<FileStats | undefined> =>
    guard('stat', () => fs.stat(path)).catch(unlessAbsent(undefined));

  const list = (folder: string): Promise<readonly string[]> =>
    guard('readdir', () => fs.readdir(folder)).catch(unlessAbsent([]));

  const remove = (path: string): Promise<void> =>
    guard('unlink', () => fs.unlink(path)).catch(unlessAbsent(undefined));

  const syncFolder = async (folder: string): Promise<void> => {
    // Windows has no such call: its file systems log renames themselves.
    if (host.platform === 'win32') return;
    const handle = await open(folder, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  };

  const fill = async (path: string, write: (file: FileHandle) => Promise<void>): Promise<void> => {
    const file = await open(path, 'wx');
    try {
      await write(file);
      await file.close();
    } catch (error) {
      await file.close().catch(ignore);
      await remove(path).catch(ignore);
      throw error;
    }
  };

  /** Removes what was written aside, and the locks of records and parts that nobody has asked for since. */
  const sweep = async (): Promise<void> => {
    for (const folder of [aside, ...folders, join(directory, 'parts')]) {
      for (const name of await list(folder)) {
        if (folder !== aside && !/\.lock(\.break)*$/.test(name)) continue;
        const path = join(folder, name);
        const leftover = await stat(path);
        if (leftover && host.now() - leftover.mtimeMs > leftoverAgeMs) await remove(path);
      }
    }
  };

  const freeBytes = async (path = directory): Promise<number> => {
    try {
      const { bavail, bsize } = (await fs.statfs?.(path)) ?? { bavail: Infinity, bsize: 1 };
      return bavail * bsize;
    } catch {
      // The folder is made by the first write; until then, its volume is that of the folder above.
      return dirname(path) === path ? Infinity : freeBytes(dirname(path));
    }
  };

  return {
    stat,
    list,
    remove,
    syncFolder,
    makeFolder,
    freeBytes: () => freeBytes(),

    open: async (path, flags) => {
      const file = await open(path, flags).catch(unlessAbsent(undefined));
      return file && toDiskFile(file);
    },

    rename: (from, to) =>
      guard('rename', () => fs.rename(from, to))
        .then(() => true)
        .catch(unlessAbsent(false)),

    prepare: async () => {
      for (const folder of [aside, ...folders]) {
        if (await makeFolder(folder)) flushed = false;
      }
      // Once even if nothing is new: whoever made the folders may have crashed before flushing their names.
      if (!flushed) await syncFolder(directory);
      flushed = true;
      if (swept) return;
      swept = true;
      // Leftovers cost space only, so failing to remove them must not fail the write at hand.
      await sweep().catch(ignore);
    },

    read: async (path) => {
      const bytes = await guard('read', () => fs.readFile(path)).catch(unlessAbsent(undefined));
      return bytes && toOwned(bytes);
    },

    create: async (path, bytes) =>
      fill(path, (file) => file.writeFile(bytes))
        .then(() => true)
        .catch(unless(['EEXIST'], false)),

    replace: async (path, write, mayPlace) => {
      const beside = join(
        aside,
        `${basename(path).slice(0, 64)}-${host.pid}-${randomBytes(8).toString('hex')}.part`,
      );
      await fill(beside, async (file) => {
        await write(file);
        await file.sync();
      });
      let placed = false;
      try {
        placed = await mayPlace();
        if (placed) await guard('rename', () => fs.rename(beside, path));
        else await remove(beside);
      } catch (error) {
        await remove(beside).catch(ignore);
        throw error;
      }
      await syncFolder(dirname(path));
      return placed;
    },
  };
}

function toDiskFile(file: FileHandle): DiskFile {
  return {
    read: async (at, length) => {
      const bytes = new Uint8Array(length);
      for (let filled = 0; filled < length;) {
        const { bytesRead } = await file.read(bytes, filled, length - filled, at + filled);
        if (bytesRead === 0) return bytes.slice(0, filled);
        filled += bytesRead;
      }
      return bytes;
    },
    write: async (at, bytes) => {
      for (let done = 0; done < bytes.length;) {
        done += (await file.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
      }
    },
    truncate: (sizeBytes) => file.truncate(sizeBytes),
    sync: () => file.sync(),
    close: () => file.close(),
  };
}

const busy: ReadonlySet<string> = /* @__PURE__ */ new Set(['EACCES', 'EBUSY', 'EPERM']);
const full: ReadonlySet<string> = /* @__PURE__ */ new Set(['EDQUOT', 'ENOSPC']);
const readOnly: ReadonlySet<string> = /* @__PURE__ */ new Set(['EACCES', 'EPERM', 'EROFS']);

function storeError(directory: string, step: string, errno: string, cause: unknown): StoreError {
  const elsewhere = 'or keep it elsewhere with INLAY_CACHE_DIR or the option `store`';
  const parts = { details: { directory, step, errno }, cause };
  const what = `${errno} at ${step}`;
  if (full.has(errno)) {
    const message = `No space is left for the store in ${directory} (${what}); free some, ${elsewhere}.`;
    return new StoreError('ERR_INLAY_STORE_FULL', message, parts);
  }
  if (readOnly.has(errno)) {
    const message = `The store in ${directory} may not be changed (${what}); grant access to it, ${elsewhere}.`;
    return new StoreError('ERR_INLAY_STORE_READ_ONLY', message, parts);
  }
  const message = `The store in ${directory} failed (${what}); check the disk, ${elsewhere}.`;
  return new StoreError('ERR_INLAY_STORE_IO', message, parts);
}

function unless<T>(errnos: readonly string[], instead: T): (error: unknown) => T {
  return (error) => {
    if (isInlayError(error) && errnos.includes(String(error.details['errno']))) return instead;
    throw error;
  };
}

/** Below what is a file, nothing can be: `ENOTDIR`. */
function unlessAbsent<T>(instead: T): (error: unknown) => T {
  return unless(['ENOENT', 'ENOTDIR'], instead);
}

function ignore(): void {}

// A caller may transfer what it owns, so it must not be a window of a larger or shared buffer.
function toOwned(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer } = bytes;
  return buffer instanceof ArrayBuffer && buffer.byteLength === bytes.byteLength
    ? new Uint8Array(buffer)
    : new Uint8Array(bytes);
}
