/** What is the same in all stores about blobs that come together piece by piece; see {@link Store.openPartial}. */

import { createPace, updateInTurns } from '../core/digest.ts';
import { toHex } from '../core/bytes.ts';
import { closedError, isInlayError, StoreError } from '../core/errors.ts';
import type { Hasher } from '../core/hash.ts';
import type { Blob, PartialBlob, Store } from '../core/store.ts';
import type { Ledger, PartFile } from './ledger.ts';
import { assertBlobName, assertRange, assertSameHash, assertSize } from './rules.ts';

/** Most bytes of a note. */
export const maxNoteBytes: number = 1 << 20;
/** Hashed between two reads. */
const pieceBytes = 1 << 20;

/**
 * A part in the hands of its opener, as a store does it. Its steps come one after the other, with checked arguments, and
 * none after one that ended it. Each fails with {@link takenOver} when somebody else has opened the part.
 */
export interface OpenPart {
  readonly note: Uint8Array<ArrayBuffer> | undefined;
  /** Whether a write has no more use for its bytes when it has settled. Default: they are the store's from then on. */
  readonly givesBack?: true;
  write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  /** What was not written reads as zeros. */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  save(note: Uint8Array<ArrayBuffer>): Promise<void>;
  /** SHA-256 of all of it in lower-case hex. */
  hash(): Promise<string>;
  /** Ends it: the blob is there. A failure leaves the part as it was. */
  place(): Promise<Blob>;
  /** Ends it: nothing of it stays. */
  drop(): Promise<void>;
  /** Ends it: it waits for its next opener. */
  close(): Promise<void>;
}

/** What parts need of their store. */
export interface PartsHost {
  listParts(): Promise<readonly PartFile[]>;
  removePart(sha256: string): Promise<void>;
  /** Opens or begins a part. Without a note it is empty, whatever there was. */
  openPart(sha256: string, sizeBytes: number): Promise<OpenPart>;
}

/** A part that is open in this process, and how the next opener gets it. */
export interface LivePart {
  /** Ends its use, when the step at hand is over. */
  end(reason: Error): Promise<void>;
}

/** Parts that are open, by name of the blob. Stores over the same files in one process share them. */
export interface LiveParts {
  readonly open: Map<string, LivePart>;
  /** Openings that are under way: one after the other for each blob. */
  readonly turns: Map<string, Promise<unknown>>;
}

/** Creates the list of open parts, empty. */
export function createLiveParts(): LiveParts {
  return { open: new Map(), turns: new Map() };
}

/** The partial blobs of a store. */
export interface Parts {
  open: Store['openPartial'];
  /** Ends the use of those that this store has opened. */
  close(reason: Error): Promise<void>;
}

/** Puts the partial blobs of a store together. */
export function createParts(host: PartsHost, ledger: Ledger, live: LiveParts): Parts {
  const own = new Set<LivePart>();
  const opening = new Set<Promise<unknown>>();
  let tidying: Promise<void> | undefined;

  const begin = async (sha256: string, sizeBytes: number): Promise<PartialBlob> => {
    await live.open.get(sha256)?.end(takenOver(sha256));
    // Leftovers cost space only, so failing to remove them must not fail anything else.
    tidying ??= ledger.forgetOldParts().catch(ignore);
    await tidying;
    const present = (await host.listParts()).find((part) => part.sha256 === sha256);
    if (present !== undefined && present.sizeBytes !== sizeBytes) await host.removePart(sha256);
    // It does not make way for itself.
    live.open.set(sha256, { end: async () => {} });
    let opened: OpenPart;
    try {
      if (present?.sizeBytes !== sizeBytes) await ledger.reserve(sizeBytes);
      opened = await ledger.insist(sizeBytes, () => host.openPart(sha256, sizeBytes));
    } catch (error) {
      live.open.delete(sha256);
      throw error;
    }
    const { part, entry } = wrap(opened, sha256, sizeBytes, ledger, () => {
      own.delete(entry);
      if (live.open.get(sha256) === entry) live.open.delete(sha256);
    });
    own.add(entry);
    live.open.set(sha256, entry);
    return part;
  };

  return {
    open: async (sha256, sizeBytes) => {
      assertBlobName(sha256);
      assertSize(sizeBytes);
      const { turns } = live;
      const turn = (turns.get(sha256) ?? Promise.resolve()).then(() => begin(sha256, sizeBytes));
      const settled = turn.then(ignore, ignore);
      turns.set(sha256, settled);
      opening.add(settled);
      void settled.then(() => {
        opening.delete(settled);
        if (turns.get(sha256) === settled) turns.delete(sha256);
      });
      return turn;
    },
    close: async (reason) => {
      await Promise.all(opening);
      await Promise.all([...own].map((entry) => entry.end(reason)));
    },
  };
}

function wrap(
  opened: OpenPart,
  sha256: string,
  sizeBytes: number,
  ledger: Ledger,
  forget: () => void,
): { readonly part: PartialBlob; readonly entry: LivePart } {
  /** Why there are no more steps. */
  let ended: Error | undefined;
  let turn: Promise<unknown> = Promise.resolve();

  /** Bytes that were given back, for the next copy: memory that was never touched costs more than the copy. */
  let spare: Uint8Array<ArrayBuffer> | undefined;

  const copyOf = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => {
    const room = spare;
    if (room === undefined || room.length < bytes.length) return new Uint8Array(bytes);
    spare = undefined;
    room.set(bytes);
    return room.subarray(0, bytes.length);
  };

  const finishWith = (reason: Error): void => {
    ended = reason;
    spare = undefined;
    forget();
  };
  const over = (): Error => closedError(`The part of blob ${sha256}`);

  /** Takes a step when those before are done. */
  const step = <Result>(task: () => Promise<Result>): Promise<Result> => {
    const next = turn.then(async () => {
      if (ended) throw ended;
      try {
        return await task();
      } catch (error) {
        if (isTakenOver(error)) {
          await opened.close().catch(ignore);
          finishWith(error);
        }
        throw error;
      }
    });
    turn = next.then(ignore, ignore);
    return next;
  };

  const end = async (reason: Error): Promise<void> => {
    const last = turn.then(async () => {
      if (ended) return;
      finishWith(reason);
      await opened.close();
    });
    turn = last.then(ignore, ignore);
    await last;
  };

  const part: PartialBlob = {
    note: opened.note,

    write: async (offset, bytes) => {
      assertRange(offset, bytes.length, sizeBytes);
      // A copy, for callers use their arrays again while this step waits for its turn.
      const own = copyOf(bytes);
      try {
        await step(() => ledger.insist(own.length, () => opened.write(offset, own)));
      } finally {
        if (opened.givesBack && !ended) spare = new Uint8Array(own.buffer);
      }
    },

    read: async (offset, length) => {
      assertRange(offset, length, sizeBytes);
      return step(() => opened.read(offset, length));
    },

    save: async (note) => {
      if (note.length > maxNoteBytes) {
        throw new RangeError(`A note has at most ${maxNoteBytes} bytes, not ${note.length}.`);
      }
      const own = new Uint8Array(note);
      await step(() => ledger.insist(own.length, () => opened.save(own)));
    },

    finish: (digest) =>
      step(async () => {
        const actual = digest ?? (await opened.hash());
        if (actual !== sha256) {
          await opened.drop();
          finishWith(over());
          assertSameHash(sha256, actual, sizeBytes);
        }
        const blob = await ledger.insist(0, () => opened.place());
        finishWith(over());
        return blob;
      }),

    discard: () =>
      step(async () => {
        await opened.drop();
        finishWith(over());
      }),

    close: () => end(over()),
  };
  return { part, entry: { end } };
}

/** Hashes what can be read, and lets others have the thread in between. @returns lower-case hex. */
export async function hashInTurns(
  hash: Hasher,
  sizeBytes: number,
  read: (offset: number, length: number) => Promise<Uint8Array>,
  pause: () => Promise<void> = nextTurn,
): Promise<string> {
  const pace = createPace(() => Date.now(), pause);
  for (let at = 0; at < sizeBytes; at += pieceBytes) {
    await updateInTurns(hash, await read(at, Math.min(pieceBytes, sizeBytes - at)), pace);
  }
  return toHex(hash.digest());
}

/** The error of who has opened a part before somebody else did. */
export function takenOver(sha256: string): StoreError {
  return new StoreError(
    'ERR_INLAY_STORE_IO',
    `The part of blob ${sha256} was opened again elsewhere or has been removed; open it to go on.`,
    { details: { sha256, reason: 'taken over' } },
  );
}

/** Tells whether an error says that somebody else has opened a part, which is no fault of the disk. */
export function isTakenOver(error: unknown): error is StoreError {
  return isInlayError(error) && error.details['reason'] === 'taken over';
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, 0);
  });
}

function ignore(): void {}
