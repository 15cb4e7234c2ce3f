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

/** What a ledger needs of its store. None of these may call the ledger; records have names that hosts cannot use. */
export interface LedgerParts extends Pick<Store, 'readRecord' | 'updateRecord'> {
  list(): Promise<readonly BlobFile[]>;
  remove(sha256: string): Promise<void>;
  /** Bytes that the platform would still take; `Infinity` where it does not tell. */
  freeBytes(): Promise<number>;
  /** Most bytes of blobs. Default: as many as the platform takes. */
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
  /** Resolves when nothing is written any more. */
  settled(): Promise<void>;
}

/** A name that no host can give to a record. */
const record = '$blobs';
/** Uses closer together than this are one: an app that starts often must not write often. */
const grainMs = 6 * 3_600_000;
/** A device that has not followed a channel for so long does not need its models any more. */
const pinsLastMs = 90 * 86_400_000;

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
    const blobs = await describe();
    const held = blobs.reduce((sum, blob) => sum + blob.sizeBytes, 0);
    let missing = sizeBytes - Math.min(platformFree, quotaBytes - held);
    if (missing <= 0) return;
    const evicted: BlobFacts[] = [];
    for (const blob of blobs.filter(({ pins }) => pins.length === 0).sort((a, b) => a.usedAt - b.usedAt)) {
      if (missing <= 0) break;
      evicted.push(blob);
      missing -= blob.sizeBytes;
    }
    if (missing > 0) throw noRoom(sizeBytes, missing);
    for (const { sha256 } of evicted) await parts.remove(sha256);
    await parts.untilFree?.();
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
      if (quotaBytes < Infinity && !isIterable(content)) await reserve(content.length);
      let written = 0;
      const onWritten = (sizeBytes: number): void => {
        written += sizeBytes;
      };
      try {
        return await write(onWritten);
      } catch (error) {
        if (!isFull(error)) throw error;
        wentIn = written;
        if (isIterable(content)) throw error;
        if (parts.untilFree !== undefined) {
          await parts.untilFree();
          written = 0;
          try {
            return await write(onWritten);
          } catch (still) {
            if (!isFull(still)) throw still;
            wentIn = written;
          }
        }
        await reserve(content.length).catch(() => {
          throw error;
        });
        return write(onWritten);
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
