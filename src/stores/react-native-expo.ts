import type { AppFiles } from './react-native-files.ts';
import { toPath } from './react-native-path.ts';

/** The part of the module `expo-file-system` that is used: its classes since SDK 52. */
export interface ExpoFileSystem {
  readonly File: new (uri: string) => ExpoFile;
  readonly Directory: new (uri: string) => ExpoDirectory;
  readonly Paths: {
    readonly document: { readonly uri: string };
    readonly cache: { readonly uri: string };
    readonly availableDiskSpace?: number;
  };
}

/** The part of a `File` that is used. */
export interface ExpoFile {
  readonly exists: boolean;
  readonly size: number | null;
  readonly modificationTime?: number | null;
  readonly name: string;
  create(options?: { readonly overwrite?: boolean }): void;
  delete(): void;
  // It takes a `Directory`, too, which is no `ExpoFile`.
  move(destination: never): unknown;
  open(): ExpoFileHandle;
}

/** The part of a `FileHandle` that is used. */
export interface ExpoFileHandle {
  offset: number | null;
  readBytes(length: number): Uint8Array;
  writeBytes(bytes: Uint8Array): void;
  close(): void;
}

/** The part of a `Directory` that is used. */
export interface ExpoDirectory {
  readonly exists: boolean;
  create(options?: { readonly intermediates?: boolean }): void;
  list(): ReadonlyArray<{ readonly name: string }>;
}

// The calls are synchronous and move bytes without encoding them: this much takes about a millisecond.
const pieceBytes = 1 << 18;

/** Adapts `expo-file-system`. */
export function expoFiles({ File, Directory, Paths }: ExpoFileSystem): AppFiles {
  const fileAt = (path: string): ExpoFile => new File(toUri(path));
  const folderAt = (path: string): ExpoDirectory => new Directory(toUri(path));

  return {
    library: 'expo-file-system',
    identity: File,
    pieceBytes,
    documents: folderPath(Paths.document.uri),
    caches: folderPath(Paths.cache.uri),
    makeFolder: async (path) => {
      const folder = folderAt(path);
      if (!folder.exists) folder.create({ intermediates: true });
    },
    list: async (path) => {
      const folder = folderAt(path);
      return folder.exists ? folder.list().map(({ name }) => name) : [];
    },
    stat: async (path) => {
      const file = fileAt(path);
      return file.exists ? { sizeBytes: file.size ?? 0, modifiedAt: file.modificationTime ?? 0 } : undefined;
    },
    read: async (path, at, length) => {
      const handle = fileAt(path).open();
      try {
        handle.offset = at;
        return handle.readBytes(length);
      } finally {
        handle.close();
      }
    },
    create: async (path) => {
      const file = fileAt(path);
      file.create({ overwrite: true });
      const handle = file.open();
      return {
        write: async (bytes) => handle.writeBytes(alone(bytes)),
        close: async () => {
          handle.close();
        },
      };
    },
    writeAt: async (path, at, bytes) => {
      const handle = fileAt(path).open();
      try {
        handle.offset = at;
        handle.writeBytes(alone(bytes));
      } finally {
        handle.close();
      }
    },
    move: async (from, to) => {
      // It may be asynchronous in later versions.
      await fileAt(from).move(fileAt(to) as never);
    },
    remove: async (path) => {
      const file = fileAt(path);
      if (file.exists) file.delete();
    },
    freeBytes: async () => Paths.availableDiskSpace ?? Infinity,
  };
}

/** The library may pass on the whole buffer of a view. */
function alone(bytes: Uint8Array): Uint8Array {
  return bytes.byteLength === bytes.buffer.byteLength ? bytes : bytes.slice();
}

function toUri(path: string): string {
  return `file://${path.split('/').map(encodeURIComponent).join('/')}`;
}

function folderPath(uri: string): string {
  return toPath(uri).replace(/\/+$/, '');
}
