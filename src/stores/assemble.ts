import { closedError } from '../core/errors.ts';
import type { Blob, Store } from '../core/store.ts';
import { openLedger, type BlobFile, type LedgerParts, type PartFile } from './ledger.ts';
import { createLiveParts, createParts, type LiveParts, type PartsHost } from './parts.ts';
import { assertBlobName, assertBlobNames, assertRecordName, isIterable, skip } from './rules.ts';

/** What a store does in its own way; see {@link Store} and {@link LedgerParts}. */
export interface StoreParts<File extends BlobFile>
  extends LedgerParts, PartsHost, Pick<Store, 'info' | 'persist'> {
  /** What the error of a closed store calls it: `The store in /cache`. */
  readonly what: string;
  find(sha256: string): Promise<File | undefined>;
  blobOf(file: File): Blob;
  /**
   * Writes a blob whose name is checked and that is not there, or not whole.
   * @param onWritten is told how many bytes went in, each time that some did.
   */
  write(
    sha256: string,
    content: Uint8Array | AsyncIterable<Uint8Array>,
    onWritten: (sizeBytes: number) => void,
  ): Promise<Blob>;
  /** Makes sure that a blob stays that was found instead of written. Default: it does. */
  keep?(): Promise<void>;
  /** Where stores over the same files in one process tell each other which parts they have open. Default: they do not. */
  readonly live?: LiveParts;
  /** Frees what is held, when nothing is written any more. */
  close(): void | Promise<void>;
}

/** Puts a store together: names are checked, a closed store is of no use, and the ledger hears of every blob. */
export function assembleStore<File extends BlobFile>(parts: StoreParts<File>): Store {
  const live = parts.live ?? createLiveParts();
  const listParts = async (): Promise<readonly PartFile[]> =>
    (await parts.listParts()).map((part) => (live.open.has(part.sha256) ? { ...part, isOpen: true } : part));
  const ledger = openLedger({ ...parts, listParts });
  const partials = createParts(parts, ledger, live);
  const writing = new Set<Promise<unknown>>();
  let isClosed = false;
  const assertOpen = (): void => {
    if (isClosed) throw closedError(parts.what);
  };

  return {
    info: () => parts.info(),

    blob: async (sha256) => {
      assertOpen();
      assertBlobName(sha256);
      const file = await parts.find(sha256);
      if (file) ledger.touch(file);
      return file && parts.blobOf(file);
    },

    putBlob: async (sha256, content) => {
      assertOpen();
      assertBlobName(sha256);
      const present = await parts.find(sha256);
      if (present && (isIterable(content) || content.length === present.sizeBytes)) {
        await skip(content);
        await parts.keep?.();
        return parts.blobOf(present);
      }
      const task = ledger.put(content, (onWritten) => parts.write(sha256, content, onWritten));
      const settled = task.then(ignore, ignore);
      writing.add(settled);
      void settled.then(() => writing.delete(settled));
      return task;
    },

    openPartial: async (sha256, sizeBytes) => {
      assertOpen();
      return partials.open(sha256, sizeBytes);
    },

    deleteBlob: async (sha256) => {
      assertOpen();
      assertBlobName(sha256);
      await parts.remove(sha256);
    },

    describeBlobs: async () => {
      assertOpen();
      return ledger.describeBlobs();
    },

    pin: async (owner, names) => {
      assertOpen();
      assertBlobNames(names);
      await ledger.pin(owner, names);
    },

    reserve: async (sizeBytes) => {
      assertOpen();
      await ledger.reserve(sizeBytes);
    },

    persist: async () => {
      assertOpen();
      return parts.persist();
    },

    readRecord: async (name) => {
      assertOpen();
      assertRecordName(name);
      return parts.readRecord(name);
    },

    updateRecord: async (name, change) => {
      assertOpen();
      assertRecordName(name);
      return parts.updateRecord(name, change);
    },

    close: async () => {
      isClosed = true;
      await Promise.all([...writing, ledger.settled(), partials.close(closedError(parts.what))]);
      await parts.close();
    },
  };
}

function ignore(): void {}
