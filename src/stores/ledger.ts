/** What every store remembers about its blobs: who needs them and when they were used. It decides what makes room. */

import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import { isInlayError, StoreError } from '../core/errors.ts';
import type { BlobFacts, Store } from '../core/store.ts';
import { isBlobName, isIterable } from './rules.ts';

/** A blob as a store finds it. */
export interface BlobFile {
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Milliseconds since 1970. */
  readonly writtenAt: number;
}

/** A part of a blob as a store finds it; see {@link Store.openPartial}. */
export interface PartFile {
  readonly sha256: string;
  /** Size of the whole blob: so much room it will need. */
  readonly sizeBytes: number;
  /** Bytes that it takes on the platform by now, as far as that tells. */
  readonly storedBytes: number;
  /** Milliseconds since 1970. */
  readonly openedAt: number;
  /** Whether somebody works on it, as far as can be told. */
  readonly isOpen: boolean;
}

/** What a ledger needs of its store. None of these may call the ledger; records have names that hosts cannot use. */
export interface LedgerParts extends Pick<Store, 'readRecord' | 'updateRecord'> {
  list(): Promise<readonly BlobFile[]>;
  remove(sha256: string): Promise<void>;
  listParts(): Promise<readonly PartFile[]>;
  /** Forgets a part; absent is fine. */
  removePart(sha256: string): Promise<void>;
  /** Bytes that the platform would still take; `Infinity` where it does not tell. */
  freeBytes(): Promise<number>;
  /** Most bytes of blobs and parts. Default: as many as the platform takes. */
  readonly quotaBytes?: number | undefined;
  /** Waits until the room of what was removed is really free, where that takes time. */
  readonly untilFree?: (() => Promise<void>) | undefined;
  /** Wall clock, milliseconds since 1970. */
  now(): number;
}

/** The part of a {@link Store} that is the same in all of them. */
export interface Ledger extends Pick<Store, 'describeBlobs' | 'pin' | 'reserve'> {
  /** Notes that a blob was looked up, now and then and in the background: its failure costs nothing but order. */
  touch(blob: BlobFile): void;
  /**
   * Writes a blob. Where there is no room for content that is all there, makes room and tries once more; content that
   * comes in pieces is gone by then, so whoever has it asks for room with `reserve` and gives it again.
   * @param write tells how many bytes went in, each time that some did.
   */
  put<Result>(
    content: Uint8Array | AsyncIterable<Uint8Array>,
    write: (onWritten: (sizeBytes: number) => void) => Promise<Result>,
  ): Promise<Result>;
  /** Takes a step that can be repeated and that needs this much room: makes room where there is none and tries again. */
  insist<Result>(
    sizeBytes: number,
    step: (onWritten: (sizeBytes: number) => void) => Promise<Result>,
  ): Promise<Result>;
  /** Removes the parts that nobody opened for 30 days. */
  forgetOldParts(): Promise<void>;
  /** Resolves when nothing is written any more. */
  settled(): Promise<void>;
}

/** A name that no host can give to a record. */
const record = '$blobs';
/** Uses closer together than this are one: an app that starts often must not write often. */
const grainMs = 6 * 3_600_000;
/** A device that has not followed a channel for so long does not need its models any more. */
const pinsLastMs = 90 * 86_400_000;

/** Who has not come back for so long will not go on with what was begun. */
const partsLastMs = 30 * 86_400_000;

/** A file takes more than its content. */
const believedRatio = 0.9;

/** What is written down; blobs that are gone stay until the next time that something is. */
interface Page {
  /** Last uses by SHA-256, where they are later than the writing. */
  readonly used: Readonly<Record<string, number>>;
  readonly pins: Readonly<Record<string, { readonly at: number; readonly blobs: readonly string[] }>>;
}

/** Opens the ledger of a store; nothing is read before it is needed. */
export function openLedger(parts: LedgerParts): Ledger {
  const { now, quotaBytes = Infinity } = parts;
  const touched = new Map<string, number>();
  const noted = new Map<string, number>();
  const background = new Set<Promise<unknown>>();
  /** How many bytes went in before a write failed for want of room: browsers may claim to have gigabytes then. */
  let wentIn: number | undefined;

  const update = async (change: (page: Page) => Page): Promise<void> => {
    await parts.updateRecord(record, (present) => {
      const page = decode(present);
      const changed = change(page);
      return changed === page ? undefined : toUtf8(JSON.stringify(changed));
    });
  };

  const describe = async (): Promise<readonly BlobFacts[]> => {
    const [files, text] = await Promise.all([parts.list(), parts.readRecord(record)]);
    const { used, pins } = decode(text);
    const owners = Object.entries(pins).filter(([, { at }]) => now() - at < pinsLastMs);
    return files
      .map(({ sha256, sizeBytes, writtenAt }) => ({
        sha256,
        sizeBytes,
        usedAt: Math.max(writtenAt, used[sha256] ?? 0, touched.get(sha256) ?? 0),
        pins: owners.filter(([, { blobs }]) => blobs.includes(sha256)).map(([owner]) => owner),
      }))
      .sort((a, b) => (a.sha256 < b.sha256 ? -1 : 1));
  };

  const reserve = async (sizeBytes: number): Promise<void> => {
    const platformFree = wentIn === undefined ? await parts.freeBytes() : wentIn * believedRatio;
    wentIn = undefined;
    if (quotaBytes === Infinity && platformFree >= sizeBytes) return;
    const [blobs, waiting] = await Promise.all([describe(), parts.listParts()]);
    const held = [...blobs, ...waiting].reduce((sum, each) => sum + each.sizeBytes, 0);
    let overQuota = sizeBytes - (quotaBytes - held);
    let overFree = sizeBytes - platformFree;
    const evicted: (() => Promise<void>)[] = [];
    const evict = (wanted: number, stored: number, remove: () => Promise<void>): void => {
      if (overQuota <= 0 && overFree <= 0) return;
      overQuota -= wanted;
      overFree -= stored;
      evicted.push(remove);
    };
    for (const part of waiting.filter(({ isOpen }) => !isOpen).sort((a, b) => a.openedAt - b.openedAt)) {
      evict(part.sizeBytes, part.storedBytes, () => parts.removePart(part.sha256));
    }
    for (const blob of blobs.filter(({ pins }) => pins.length === 0).sort((a, b) => a.usedAt - b.usedAt)) {
      evict(blob.sizeBytes, blob.sizeBytes, () => parts.remove(blob.sha256));
    }
    const missing = Math.max(overQuota, overFree);
    if (missing > 0) throw noRoom(sizeBytes, missing);
    for (const remove of evicted) await remove();
    if (evicted.length > 0) await parts.untilFree?.();
  };

  /** Writes once, and keeps in mind how far it went where there was no room. */
  const attempt: Ledger['insist'] = async (_, step) => {
    let written = 0;
    try {
      return await step((more) => {
        written += more;
      });
    } catch (error) {
      if (isFull(error)) wentIn = written;
      throw error;
    }
  };

  const insist: Ledger['insist'] = async (sizeBytes, step) => {
    try {
      return await attempt(sizeBytes, step);
    } catch (error) {
      if (!isFull(error)) throw error;
      if (parts.untilFree !== undefined) {
        await parts.untilFree();
        try {
          return await attempt(sizeBytes, step);
        } catch (still) {
          if (!isFull(still)) throw still;
        }
      }
      await reserve(sizeBytes).catch(() => {
        throw error;
      });
      return step(() => {});
    }
  };

  return {
    describeBlobs: describe,

    pin: async (owner, blobs) => {
      const wanted = [...new Set(blobs)].sort();
      const isKnown = ({ pins }: Page): boolean => {
        const { at = now(), blobs: present = [] } = pins[owner] ?? {};
        return now() - at < grainMs && wanted.join() === present.join();
      };
      // Apps name the same blobs at every start, and a look is cheaper than a turn at writing.
      if (isKnown(decode(await parts.readRecord(record)))) return;
      await update((page) => {
        if (isKnown(page)) return page;
        const { [owner]: _, ...others } = page.pins;
        return {
          ...page,
          pins: wanted.length > 0 ? { ...others, [owner]: { at: now(), blobs: wanted } } : others,
        };
      });
    },

    reserve,

    touch: ({ sha256, writtenAt }) => {
      const at = now();
      touched.set(sha256, at);
      if (at - Math.max(writtenAt, noted.get(sha256) ?? 0) < grainMs) return;
      noted.set(sha256, at);
      const noting = (async () => {
        if (at - (decode(await parts.readRecord(record)).used[sha256] ?? 0) < grainMs) return;
        const present = new Set((await parts.list()).map((blob) => blob.sha256));
        await update((page) => ({
          ...page,
          used: {
            ...Object.fromEntries(Object.entries(page.used).filter(([name]) => present.has(name))),
            [sha256]: at,
          },
        }));
      })().catch(() => {});
      background.add(noting);
      void noting.then(() => background.delete(noting));
    },

    put: async (content, write) => {
      if (isIterable(content)) return attempt(0, write);
      if (quotaBytes < Infinity) await reserve(content.length);
      return insist(content.length, write);
    },

    insist,

    forgetOldParts: async () => {
      for (const { sha256, openedAt } of await parts.listParts()) {
        if (now() - openedAt > partsLastMs) await parts.removePart(sha256);
      }
    },

    settled: async () => void (await Promise.all(background)),
  };
}

/** Tells whether an error says that a store has no room. */
export function isFull(error: unknown): boolean {
  return isInlayError(error) && error.code === 'ERR_INLAY_STORE_FULL';
}

function noRoom(sizeBytes: number, missingBytes: number): StoreError {
  return new StoreError(
    'ERR_INLAY_STORE_FULL',
    `There is no room for ${sizeBytes} bytes: ${missingBytes} are missing even without the models that nobody needs; ` +
      'free some space.',
    { details: { sizeBytes, missingBytes } },
  );
}

const nothing: Page = { used: {}, pins: {} };

/** Reads a page. A damaged one counts as empty: its owners name their blobs again when they start. */
function decode(bytes: Uint8Array | undefined): Page {
  if (bytes === undefined) return nothing;
  try {
    const { used, pins } = JSON.parse(fromUtf8(bytes)) as Partial<Page>;
    const isPage =
      isFields(used) &&
      isFields(pins) &&
      Object.values(used).every(Number.isFinite) &&
      Object.values(pins).every(
        ({ at, blobs }) =>
          Number.isFinite(at) && Array.isArray(blobs) && blobs.every((name) => isBlobName(name as string)),
      );
    return isPage ? { used, pins } : nothing;
  } catch {
    return nothing;
  }
}

function isFields<Fields extends object>(value: Fields | undefined): value is Fields {
  return typeof value === 'object' && value !== null;
}
