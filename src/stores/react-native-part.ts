/** Blobs that come together piece by piece, in the files of an app. */

import { concatBytes, fromUtf8, toUtf8 } from '../core/bytes.ts';
import { createPace } from '../core/digest.ts';
import type { Hasher } from '../core/hash.ts';
import type { Blob } from '../core/store.ts';
import { hashInTurns, takenOver, type OpenPart, type PartsHost } from './parts.ts';
import type { AppDisk } from './react-native-disk.ts';
import type { AppFiles } from './react-native-files.ts';
import { readNewest, writeNext } from './react-native-record.ts';

/** Where parts are kept, and where they go. */
export interface AppPartsOptions {
  readonly files: AppFiles;
  readonly disk: AppDisk;
  readonly parts: string;
  readonly blobs: string;
  blobOf(facts: { readonly sha256: string; readonly sizeBytes: number }): Blob;
  createSha256(): Hasher;
  now(): number;
  pause(): Promise<void>;
}

/**
 * Keeps each part as a file and, like a record, two generations of what is known about it. All stores of an app over one
 * folder share which parts are open; another process must not use it. Nothing can be flushed here, so a part that has
 * become shorter than its note says begins anew.
 */
export function createAppParts(options: AppPartsOptions): PartsHost {
  const { files, disk, parts, blobs, blobOf, createSha256, now, pause } = options;
  const pace = createPace(now, pause);
  const dataOf = (sha256: string): string => `${parts}/${sha256}.data`;
  const factsOf = (sha256: string): string => `${parts}/${sha256}`;

  const forget = async (sha256: string): Promise<void> => {
    for (const half of [0, 1]) await disk.remove(`${factsOf(sha256)}.${half}`);
  };
  const removePart = async (sha256: string): Promise<void> => {
    await forget(sha256);
    await disk.remove(dataOf(sha256));
  };

  const openPart = async (sha256: string, sizeBytes: number): Promise<OpenPart> => {
    await disk.prepare();
    await disk.makeFolder(parts);
    const data = dataOf(sha256);
    let present = await readNewest(disk, factsOf(sha256));
    let length = (await disk.stat(data))?.sizeBytes ?? -1;
    let facts = present && decode(present.content);
    if (facts?.note === undefined || facts.sizeBytes !== sizeBytes || length < facts.writtenBytes) {
      await forget(sha256);
      await disk.create(data);
      [present, length, facts] = [undefined, 0, undefined];
    }
    const openedAt = now();
    const tell = async (note: Uint8Array | undefined): Promise<void> => {
      const content = encode({ sizeBytes, openedAt, writtenBytes: length, note });
      present = await writeNext(disk, factsOf(sha256), present, content);
    };
    await tell(facts?.note);

    const append = async (at: number, bytes: Uint8Array): Promise<void> => {
      for (let done = 0; done < bytes.length; done += files.pieceBytes) {
        const piece = bytes.slice(done, done + files.pieceBytes);
        await disk.writeAt(data, at + done, piece);
        length = Math.max(length, at + done + piece.length);
        await pace();
      }
    };
    /** Systems do not agree on what is in a gap. */
    const fill = async (to: number): Promise<void> => {
      while (length < to) await append(length, new Uint8Array(Math.min(files.pieceBytes, to - length)));
    };
    const read = async (offset: number, size: number): Promise<Uint8Array<ArrayBuffer>> => {
      const out = new Uint8Array(size);
      const there = Math.max(0, Math.min(size, length - offset));
      const bytes = there > 0 ? await disk.read(data, length, offset, there) : out;
      // The system clears the folder when it is short of space.
      if (bytes === undefined) throw takenOver(sha256);
      out.set(bytes);
      return out;
    };

    return {
      note: facts?.note,
      write: async (offset, bytes) => {
        await fill(offset);
        await append(offset, bytes);
      },
      read,
      save: (note) => tell(note),
      hash: async () => {
        await fill(sizeBytes);
        const native = await files.sha256?.(data).catch(() => undefined);
        return native?.toLowerCase() ?? hashInTurns(createSha256(), sizeBytes, read, pause);
      },
      place: async () => {
        await fill(sizeBytes);
        const path = `${blobs}/${sha256}`;
        if ((await disk.stat(data))?.sizeBytes !== sizeBytes) throw takenOver(sha256);
        await disk.place(data, path, async () => (await disk.stat(path))?.sizeBytes !== sizeBytes);
        // They cost space only.
        await removePart(sha256).catch(() => {});
        return blobOf({ sha256, sizeBytes });
      },
      drop: () => removePart(sha256),
      close: async () => {},
    };
  };

  return {
    openPart,
    removePart,
    listParts: async () => {
      const names = (await disk.list(parts)).map((name) => /^([0-9a-f]{64})\.data$/.exec(name)?.[1]);
      const found = names.map(async (sha256) => {
        const stats = sha256 === undefined ? undefined : await disk.stat(dataOf(sha256));
        if (sha256 === undefined || stats === undefined) return undefined;
        const present = await readNewest(disk, factsOf(sha256));
        const { sizeBytes, openedAt } = (present && decode(present.content)) ?? {
          sizeBytes: stats.sizeBytes,
          openedAt: stats.modifiedAt,
        };
        return { sha256, sizeBytes, storedBytes: stats.sizeBytes, openedAt, isOpen: false };
      });
      return (await Promise.all(found)).filter((part) => part !== undefined);
    },
  };
}

/** What is known about a part. */
interface PartFacts {
  readonly sizeBytes: number;
  readonly openedAt: number;
  /** Size of its file when this was written. */
  readonly writtenBytes: number;
  readonly note: Uint8Array<ArrayBuffer> | undefined;
}

// The numbers as text, a line feed, and the note if there is one.
function encode({
  note,
  ...numbers
}: Omit<PartFacts, 'note'> & { readonly note: Uint8Array | undefined }): Uint8Array {
  const head = toUtf8(`${JSON.stringify({ ...numbers, isSaved: note !== undefined })}\n`);
  return concatBytes([head, note ?? new Uint8Array()]);
}

function decode(content: Uint8Array): PartFacts | undefined {
  const end = content.indexOf(10);
  try {
    const { sizeBytes, openedAt, writtenBytes, isSaved } = JSON.parse(
      fromUtf8(content.subarray(0, end)),
    ) as Record<string, unknown>;
    if (typeof sizeBytes !== 'number' || typeof openedAt !== 'number' || typeof writtenBytes !== 'number') {
      return undefined;
    }
    const note = isSaved === true ? new Uint8Array(content.subarray(end + 1)) : undefined;
    return { sizeBytes, openedAt, writtenBytes, note };
  } catch {
    return undefined;
  }
}
