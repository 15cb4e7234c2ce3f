/** Blobs that come together piece by piece, in files. */

import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Blob } from '../core/store.ts';
import type { Disk, DiskFile } from './fs-disk.ts';
import type { FsHost } from './fs-host.ts';
import { acquireLock } from './fs-lock.ts';
import { fromRecordFile, headerBytes, recordFileBytes, toRecordFile, type Generation } from './fs-record.ts';
import { maxNoteBytes, takenOver, type OpenPart, type PartsHost } from './parts.ts';

// Copied or hashed at a time.
const pieceBytes = 1 << 20;

/** Where parts are kept, and where they go. */
export interface FsPartsOptions {
  readonly disk: Disk;
  readonly host: FsHost;
  /** Folder of the whole store. */
  readonly directory: string;
  readonly parts: string;
  readonly blobs: string;
  blobOf(facts: { readonly sha256: string; readonly sizeBytes: number }): Blob;
}

/**
 * Keeps parts as files of which the name says whose they are: who takes a part over gives the file another name, in one
 * step, so that there is never more than one who can save or finish it. Where the opener before may still be writing,
 * the next one gets a copy. Behind the content are two notes, as records have two generations: the newest intact one
 * counts. The gap before them takes no room where the file system knows sparse files.
 */
export function createFsParts({ disk, host, directory, parts, blobs, blobOf }: FsPartsOptions): PartsHost {
  const machine = createHash('sha256').update(host.machine()).digest('hex').slice(0, 8);
  const noteAt = (sizeBytes: number, generation: number): number =>
    sizeBytes + (generation % 2) * (headerBytes + maxNoteBytes);

  const list = async (): Promise<readonly PartName[]> =>
    (await disk.list(parts)).map(parsePartName).filter((name) => name !== undefined);
  const of = async (sha256: string): Promise<readonly PartName[]> =>
    (await list()).filter((name) => name.sha256 === sha256);
  const nameOf = (sha256: string, sizeBytes: number): PartName => ({
    sha256,
    sizeBytes,
    openedAt: Math.max(0, Math.floor(host.now())),
    pid: host.pid,
    machine,
    token: randomBytes(8).toString('hex'),
  });
  const pathOf = (name: PartName): string => join(parts, formatName(name));
  const mayBeOpen = ({ pid, machine: its }: PartName): boolean =>
    pid !== nobody && (its !== machine || pid === host.pid || host.isAlive(pid));

  const readNote = async (file: DiskFile, at: number): Promise<Generation | undefined> => {
    const length = recordFileBytes(await file.read(at, headerBytes));
    if (length === undefined || length > headerBytes + maxNoteBytes) return undefined;
    return fromRecordFile(await file.read(at, length));
  };

  const readNewest = async (file: DiskFile, sizeBytes: number): Promise<Generation | undefined> => {
    const notes = await Promise.all([0, 1].map((half) => readNote(file, noteAt(sizeBytes, half))));
    return notes.reduce((best, note) => (note && note.number > (best?.number ?? 0) ? note : best), undefined);
  };

  /** Opens the newest of the parts that have this size, and removes the others. */
  const pick = async (sha256: string, sizeBytes: number): Promise<Found | undefined> => {
    let best: Found | undefined;
    for (const name of await of(sha256)) {
      const file = name.sizeBytes === sizeBytes ? await disk.open(pathOf(name), 'r+') : undefined;
      // What cannot be read is damaged.
      const saved = file && (await readNewest(file, sizeBytes).catch(() => undefined));
      const isBetter = saved !== undefined && saved.number > (best?.saved.number ?? 0);
      const worse = isBetter ? best : { name, file };
      if (file && isBetter) best = { name, file, saved };
      if (worse === undefined) continue;
      await worse.file?.close().catch(ignore);
      await disk.remove(pathOf(worse.name));
    }
    return best;
  };

  const create = async (path: string): Promise<DiskFile> => {
    await disk.create(path, new Uint8Array());
    const file = await disk.open(path, 'r+');
    if (file === undefined) throw takenOver(path);
    return file;
  };

  /** Makes a file that is the opener's alone, and removes the other one when it is safe on the disk. */
  const copy = async ({ name, file, saved }: Found, path: string): Promise<DiskFile> => {
    const own = await create(path);
    try {
      for (let at = 0; at < name.sizeBytes; at += pieceBytes) {
        await own.write(at, await file.read(at, Math.min(pieceBytes, name.sizeBytes - at)));
      }
      await own.sync();
      await own.write(noteAt(name.sizeBytes, saved.number), toRecordFile(saved));
      await own.sync();
      await disk.syncFolder(parts);
      await disk.remove(pathOf(name));
    } catch (error) {
      await own.close().catch(ignore);
      await disk.remove(path).catch(ignore);
      throw error;
    }
    return own;
  };

  const open = async (name: PartName): Promise<{ file: DiskFile; saved: Generation | undefined }> => {
    const path = pathOf(name);
    const found = await pick(name.sha256, name.sizeBytes);
    if (found === undefined) return { file: await create(path), saved: undefined };
    try {
      if (!mayBeOpen(found.name)) {
        if (await disk.rename(pathOf(found.name), path)) return found;
        throw takenOver(name.sha256);
      }
      const file = await copy(found, path);
      await found.file.close().catch(ignore);
      return { file, saved: found.saved };
    } catch (error) {
      await found.file.close().catch(ignore);
      throw error;
    }
  };

  const openPart = async (sha256: string, sizeBytes: number): Promise<OpenPart> => {
    await disk.prepare();
    await disk.makeFolder(parts);
    const name = nameOf(sha256, sizeBytes);
    const path = pathOf(name);
    const lock = await acquireLock(disk, host, join(parts, `${sha256}.lock`));
    let opened: Awaited<ReturnType<typeof open>>;
    try {
      opened = await open(name);
    } finally {
      await lock.release();
    }
    const { file } = opened;
    let { saved } = opened;
    let isFlushed = false;
    let isPlaced = false;
    /** Why nothing that was written since can be relied on. */
    let failure: { readonly error: unknown } | undefined;

    const assertOwn = async (): Promise<void> => {
      if (failure) throw failure.error;
      if ((await disk.stat(path)) === undefined) throw takenOver(sha256);
    };
    /** After a failure, systems forget what they could not write, and report the next flush as done. */
    const sync = (): Promise<void> =>
      file.sync().catch((error: unknown) => {
        failure = { error };
        throw error;
      });
    const read = (offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> =>
      file.read(offset, length).then((bytes) => padded(bytes, length));

    const place = async (): Promise<void> => {
      const target = join(blobs, sha256);
      if ((await disk.stat(target))?.size === sizeBytes) return disk.remove(path);
      try {
        await file.truncate(sizeBytes);
        await sync();
        if (!(await disk.rename(path, target))) throw takenOver(sha256);
      } catch (error) {
        if (saved) await file.write(noteAt(sizeBytes, saved.number), toRecordFile(saved)).catch(ignore);
        throw error;
      }
    };

    return {
      note: saved && new Uint8Array(saved.content),
      givesBack: true,

      write: async (offset, bytes) => {
        // At once, for what is written to a file that was taken over harms nobody: it is on no disk any more.
        const [own, done] = await Promise.allSettled([assertOwn(), file.write(offset, bytes)]);
        if (own.status === 'rejected') throw own.reason;
        if (done.status === 'rejected') throw done.reason;
      },

      read: async (offset, length) => {
        await assertOwn();
        return read(offset, length);
      },

      save: async (note) => {
        await assertOwn();
        await sync();
        const next: Generation = { number: (saved?.number ?? 0) + 1, content: note };
        await file.write(noteAt(sizeBytes, next.number), toRecordFile(next));
        await sync();
        if (!isFlushed) for (const folder of [parts, directory]) await disk.syncFolder(folder);
        isFlushed = true;
        saved = next;
      },

      hash: async () => {
        await assertOwn();
        const hash = createHash('sha256');
        for (let at = 0; at < sizeBytes; at += pieceBytes) {
          hash.update(await read(at, Math.min(pieceBytes, sizeBytes - at)));
        }
        return hash.digest('hex');
      },

      place: async () => {
        if (!isPlaced) {
          await assertOwn();
          await place();
          isPlaced = true;
          await file.close().catch(ignore);
        }
        await disk.syncFolder(blobs);
        return blobOf({ sha256, sizeBytes });
      },

      drop: async () => {
        await disk.remove(path);
        await file.close().catch(ignore);
      },

      close: async () => {
        await file.close().catch(ignore);
        // It is nobody's now, or somebody else's: then there is nothing to rename.
        await disk.rename(path, pathOf({ ...name, pid: nobody })).catch(ignore);
      },
    };
  };

  return {
    openPart,
    listParts: async () => {
      const found = (await list()).map(async (name) => {
        const stats = await disk.stat(pathOf(name));
        const { sha256, sizeBytes, openedAt } = name;
        const storedBytes = Math.min(sizeBytes, (stats?.blocks ?? Infinity) * 512);
        return stats && { sha256, sizeBytes, storedBytes, openedAt, isOpen: mayBeOpen(name) };
      });
      return (await Promise.all(found)).filter((part) => part !== undefined);
    },
    removePart: async (sha256) => {
      for (const name of await of(sha256)) await disk.remove(pathOf(name));
    },
  };
}

/** A part that was found, open. */
interface Found {
  readonly name: PartName;
  readonly file: DiskFile;
  readonly saved: Generation;
}

/** What the name of a part's file says. */
export interface PartName {
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly openedAt: number;
  /** Process that has opened it, or {@link nobody}. */
  readonly pid: number;
  /** Where that process runs, as 8 hex digits. */
  readonly machine: string;
  /** Tells apart two that one process has opened. */
  readonly token: string;
}

const nobody = 0;
const pattern = /^([0-9a-f]{64})\.([0-9a-z]+)\.([0-9a-z]+)\.(\d+)-([0-9a-f]{8})-([0-9a-f]{16})\.part$/;

function formatName({ sha256, sizeBytes, openedAt, pid, machine, token }: PartName): string {
  return `${sha256}.${sizeBytes.toString(36)}.${openedAt.toString(36)}.${pid}-${machine}-${token}.part`;
}

/** Reads the name of a part's file; `undefined` for that of something else. */
export function parsePartName(name: string): PartName | undefined {
  const [, sha256, size = '', opened = '', pid, machine = '', token = ''] = pattern.exec(name) ?? [];
  if (sha256 === undefined) return undefined;
  return {
    sha256,
    sizeBytes: Number.parseInt(size, 36),
    openedAt: Number.parseInt(opened, 36),
    pid: Number(pid),
    machine,
    token,
  };
}

function padded(bytes: Uint8Array<ArrayBuffer>, length: number): Uint8Array<ArrayBuffer> {
  if (bytes.length === length) return bytes;
  const whole = new Uint8Array(length);
  whole.set(bytes);
  return whole;
}

function ignore(): void {}
