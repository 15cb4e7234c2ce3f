/** Partial blobs in the origin private file system: bytes in files, and whose they are in a database. */

import { toHex } from '../core/bytes.ts';
import type { Blob } from '../core/store.ts';
import { createClaims, type Claim } from './indexeddb-claims.ts';
import type { Database } from './indexeddb-records.ts';
import { isMissing, openFolder } from './opfs-file.ts';
import { partLockOf, type PartFileWriter, type PartPlace, type PartRequest } from './opfs-part-file.ts';
import type { OpenPart, PartsHost } from './parts.ts';
import { heldLocks, holdLock, ifUnlocked } from './web-storage.ts';

/** Where parts are kept, and who writes them. */
export interface OpfsPartsOptions {
  readonly directory: string;
  readonly database: Database;
  now(): number;
  /** Opens a file on the thread that writes. */
  openFile(request: PartRequest): Promise<PartPlace & { readonly writer: PartFileWriter }>;
  blobOf(facts: { readonly sha256: string; readonly sizeBytes: number }): Blob;
}

/** Partial blobs, and the files that are theirs. */
export interface OpfsParts extends PartsHost {
  files(): Promise<readonly string[]>;
}

/** A tab takes milliseconds to open a part, unless it is put to sleep meanwhile. */
const patienceMs = 5_000;

/**
 * Keeps each part in a file of its own, and a claim with the note in the database. The opener changes the claim, so that
 * the one before sees at its next step that the part is not its own any more.
 */
export function createOpfsParts({ directory, database, now, openFile, blobOf }: OpfsPartsOptions): OpfsParts {
  const claims = createClaims(database, 'file');

  /** Removes a file that no claim names, if nobody has it open. What stays is swept. */
  const removeFile = async (file: string): Promise<void> => {
    await ifUnlocked(partLockOf(directory, file), async () => {
      const folder = await openFolder(directory);
      await folder.removeEntry(file).catch(ignore);
    });
  };

  const open = async (
    sha256: string,
    sizeBytes: number,
  ): Promise<{ readonly own: Claim; readonly writer: PartFileWriter }> => {
    const token = toHex(crypto.getRandomValues(new Uint8Array(8)));
    const present = await claims.read(sha256);
    const usable = present?.sizeBytes === sizeBytes && present.note ? present : undefined;
    const fresh = `${sha256}.${token}.part`;
    const { file, isKept, writer } = await openFile({
      directory,
      sha256,
      sizeBytes,
      present: usable?.data,
      fresh,
    });
    try {
      const note = isKept ? usable?.note : undefined;
      // The note from before the bytes were looked at, which are at least as new.
      const own = await claims.take(sha256, () => ({
        sha256,
        sizeBytes,
        data: file,
        openedAt: now(),
        token,
        note,
      }));
      if (present && present.data !== file) await removeFile(present.data).catch(ignore);
      return { own, writer };
    } catch (error) {
      await writer.close().catch(ignore);
      throw error;
    }
  };

  const openPart = async (sha256: string, sizeBytes: number): Promise<OpenPart> => {
    const release = await holdLock(`inlay:${directory}/open-${sha256}`, patienceMs).catch(() => ignore);
    const opened = await open(sha256, sizeBytes).finally(release);
    const { writer } = opened;
    let { own } = opened;
    const assertOwn = (): Promise<void> => claims.change(own, 'look');

    return {
      note: own.note && new Uint8Array(own.note),
      write: async (offset, bytes) => {
        await assertOwn();
        await writer.write(offset, bytes);
      },
      read: async (offset, length) => {
        await assertOwn();
        return writer.read(offset, length);
      },
      save: async (note) => {
        await assertOwn();
        await writer.flush();
        const next: Claim = { ...own, note };
        await claims.change(own, 'save', (store) => claims.put(store, next));
        own = next;
      },
      hash: async () => {
        await assertOwn();
        return writer.hash();
      },
      place: async () => {
        await assertOwn();
        await writer.place();
        // One that stays behind names a file that is gone, and so begins anew.
        await claims.change(own, 'place', (store) => claims.delete(store, sha256)).catch(ignore);
        return blobOf({ sha256, sizeBytes });
      },
      drop: async () => {
        await claims.change(own, 'delete', (store) => claims.delete(store, sha256));
        await writer.close().catch(ignore);
        await removeFile(own.data).catch(ignore);
      },
      close: async () => {
        await writer.close().catch(ignore);
        const isWaiting = await claims.read(sha256).then(
          (present) => present?.data === own.data,
          // It is looked at again by who sweeps.
          () => true,
        );
        if (!isWaiting) await removeFile(own.data).catch(ignore);
      },
    };
  };

  const storedBytes = async (file: string): Promise<number> => {
    const folder = await openFolder(directory);
    try {
      return (await (await folder.getFileHandle(file)).getFile()).size;
    } catch (error) {
      if (isMissing(error)) return 0;
      throw error;
    }
  };

  return {
    openPart,
    files: async () => (await claims.list()).map(({ data }) => data),
    listParts: async () => {
      const [found, held] = await Promise.all([claims.list(), heldLocks()]);
      return Promise.all(
        found.map(async ({ sha256, sizeBytes, openedAt, data }) => ({
          sha256,
          sizeBytes,
          storedBytes: await storedBytes(data),
          openedAt,
          isOpen: held.has(partLockOf(directory, data)),
        })),
      );
    },
    removePart: async (sha256) => {
      const present = await claims.read(sha256);
      await claims.remove(sha256);
      if (present) await removeFile(present.data);
    },
  };
}

function ignore(): void {}
