/**
 * A store in the files of a React Native app.
 * @module inlay/stores/react-native
 */
import { toHex } from '../core/bytes.ts';
import { createPace, updateInTurns } from '../core/digest.ts';
import { createSha256 as createPortableSha256, type Hasher } from '../core/hash.ts';
import type { Blob, Store } from '../core/store.ts';
import { assembleStore } from './assemble.ts';
import type { BlobFile } from './ledger.ts';
import { openAppDisk } from './react-native-disk.ts';
import { toAppFiles, type FileLibrary, type FileWriter } from './react-native-files.ts';
import { createAppParts } from './react-native-part.ts';
import { toPath } from './react-native-path.ts';
import { readNewest, writeNext } from './react-native-record.ts';
import { assertRange, assertSameHash, isBlobName, isIterable, missing } from './rules.ts';

export type { ExpoDirectory, ExpoFile, ExpoFileHandle, ExpoFileSystem } from './react-native-expo.ts';
export type { FileLibrary } from './react-native-files.ts';
export type { ReactNativeFs } from './react-native-rnfs.ts';

/** Options of {@link openReactNativeStore}. */
export interface ReactNativeStoreOptions {
  /** The module `expo-file-system` with its `File` class, or `react-native-fs`. */
  readonly files: FileLibrary;
  /**
   * Folder for everything, as a path or a `file:` URL. Default: models in `inlay` among the app's caches, which the
   * system may clear, and state, such as the floor that protects against rollbacks, among its documents.
   */
  readonly directory?: string;
  /** Hashes natively what arrives whole. */
  readonly digest?: (bytes: Uint8Array) => Promise<Uint8Array>;
  /** A faster SHA-256 for what arrives in pieces. */
  readonly createSha256?: () => Hasher;
  /** Most bytes of blobs to hold, see {@link Store.reserve}. Default: as many as the device takes. */
  readonly quotaBytes?: number;
  /** Wall clock, milliseconds since 1970. Default: `Date.now`. */
  readonly now?: () => number;
  /** Lets the app draw before work goes on. Default: a timer of 0 ms. */
  readonly pause?: () => Promise<void>;
}

/**
 * Opens a store of files; nothing is touched before its first use. Blobs are whole files that appear by rename. Records
 * keep two generations, of which the newest intact one counts. Stores of one app may share the folder; an extension of
 * the app, which is a process of its own, needs another. No library can flush a file, so after a power cut the newest
 * blob may be damaged: whatever is started from the store is hashed again.
 */
export function openReactNativeStore(options: ReactNativeStoreOptions): Store {
  const files = toAppFiles(options.files);
  const {
    digest,
    createSha256 = createPortableSha256,
    quotaBytes,
    now = () => Date.now(),
    pause = () =>
      new Promise((resolve) => {
        setTimeout(resolve, 0);
      }),
  } = options;
  const own = options.directory === undefined ? undefined : toPath(options.directory).replace(/\/+$/, '');
  const caches = own ?? `${files.caches}/inlay`;
  const blobs = `${caches}/blobs`;
  const records = `${own ?? `${files.documents}/inlay`}/records`;
  const disk = openAppDisk(files, { aside: `${caches}/tmp`, blobs, records }, pause);

  const pace = createPace(now, pause);

  const blobOf = ({ sha256, sizeBytes }: Pick<BlobFile, 'sha256' | 'sizeBytes'>): Blob => {
    const path = `${blobs}/${sha256}`;
    return {
      sha256,
      sizeBytes,
      path,
      bytes: async () => {
        const bytes = await disk.read(path, sizeBytes);
        if (bytes) return bytes;
        throw missing(sha256, blobs);
      },
      read: async (offset, length) => {
        assertRange(offset, length, sizeBytes);
        const bytes = await disk.read(path, sizeBytes, offset, length);
        if (bytes) return bytes;
        throw missing(sha256, blobs);
      },
    };
  };

  const append = async (file: FileWriter, bytes: Uint8Array, hash?: Hasher): Promise<void> => {
    for (let at = 0; at < bytes.length; at += files.pieceBytes) {
      // A copy, so that what is written is what was hashed even if the caller changes the array meanwhile.
      const piece = new Uint8Array(bytes.subarray(at, at + files.pieceBytes));
      if (hash) await updateInTurns(hash, piece, pace);
      await file.write(piece);
      await pace();
    }
  };

  const write = async (sha256: string, content: Uint8Array | AsyncIterable<Uint8Array>): Promise<Blob> => {
    const path = `${blobs}/${sha256}`;
    const { first, next, end }: OpenContent = isIterable(content)
      ? await open(content)
      : { first: content, next: undefined };
    let sizeBytes = first.length;
    const place = (fill: (file: FileWriter) => Promise<void>): Promise<void> =>
      disk.replace(path, fill, async () => (await disk.stat(path))?.sizeBytes !== sizeBytes);
    if (next === undefined && digest) {
      const whole = new Uint8Array(first);
      assertSameHash(sha256, toHex(await digest(whole)), sizeBytes);
      await place((file) => append(file, whole));
    } else {
      await place(async (file) => {
        const hash = createSha256();
        await append(file, first, hash);
        for (let piece = await next?.(); piece; piece = await next?.()) {
          sizeBytes += piece.length;
          await append(file, piece, hash);
        }
        assertSameHash(sha256, toHex(hash.digest()), sizeBytes);
      }).catch(async (error: unknown) => {
        await end?.().catch(() => {});
        throw error;
      });
    }
    return blobOf({ sha256, sizeBytes });
  };

  const updateRecord: Store['updateRecord'] = (name, change) => {
    const path = `${records}/${name}`;
    return disk.inTurn(`update ${path}`, async () => {
      const present = await readNewest(disk, path);
      const changed = change(present && new Uint8Array(present.content));
      if (changed === undefined) return present?.content;
      return (await writeNext(disk, path, present, changed)).content;
    });
  };

  const find = async (sha256: string): Promise<BlobFile | undefined> => {
    const facts = await disk.stat(`${blobs}/${sha256}`);
    return facts && { sha256, sizeBytes: facts.sizeBytes, writtenAt: facts.modifiedAt };
  };

  return assembleStore<BlobFile>({
    what: `The store in ${caches}`,
    info: () => ({ kind: files.library, location: caches }),
    list: async () => {
      const found: BlobFile[] = [];
      for (const sha256 of (await disk.list(blobs)).filter(isBlobName)) {
        const file = await find(sha256);
        if (file) found.push(file);
      }
      return found;
    },
    find,
    blobOf,
    write,
    remove: (sha256) => disk.remove(`${blobs}/${sha256}`),
    live: disk.live,
    ...createAppParts({ files, disk, parts: `${caches}/parts`, blobs, blobOf, createSha256, now, pause }),
    // Only folders that backups take along are safe from the system.
    persist: async () => own?.startsWith(files.documents) ?? false,
    readRecord: async (name) => (await readNewest(disk, `${records}/${name}`))?.content,
    updateRecord,
    freeBytes: () => disk.freeBytes(),
    quotaBytes,
    now,
    close: () => {},
  });
}

/** Content that comes in pieces, of which React Native's `fetch` gives only one. */
interface OpenContent {
  readonly first: Uint8Array;
  /** Absent: the first piece is all. */
  readonly next: (() => Promise<Uint8Array | undefined>) | undefined;
  /** Tells the producer that nothing more is wanted. */
  readonly end?: () => Promise<void>;
}

async function open(content: AsyncIterable<Uint8Array>): Promise<OpenContent> {
  const iterator = content[Symbol.asyncIterator]();
  const next = async (): Promise<Uint8Array | undefined> => {
    const { done, value } = await iterator.next();
    return done ? undefined : value;
  };
  const given = (await next()) ?? new Uint8Array();
  // A copy: the producer may use its array again for the second.
  const first = new Uint8Array(given);
  let ahead = await next();
  if (!ahead) return { first, next: undefined };
  return {
    first,
    end: async () => void (await iterator.return?.()),
    next: async () => {
      const piece = ahead ?? (await next());
      ahead = undefined;
      return piece;
    },
  };
}
