import { fromBase64, toBase64 } from './react-native-base64.ts';
import type { AppFiles } from './react-native-files.ts';

/** The part of the module `react-native-fs`, or of its successor `@dr.pogodin/react-native-fs`, that is used. */
export interface ReactNativeFs {
  readonly DocumentDirectoryPath: string;
  readonly CachesDirectoryPath: string;
  mkdir(path: string): Promise<unknown>;
  readdir(path: string): Promise<readonly string[]>;
  exists(path: string): Promise<boolean>;
  stat(path: string): Promise<{ readonly size: number | string; readonly mtime?: number | Date | null }>;
  read(path: string, length: number, position: number, encoding: 'base64'): Promise<string>;
  writeFile(path: string, contents: string, encoding: 'base64'): Promise<unknown>;
  appendFile(path: string, contents: string, encoding: 'base64'): Promise<unknown>;
  write(path: string, contents: string, position: number, encoding: 'base64'): Promise<unknown>;
  moveFile(from: string, to: string): Promise<unknown>;
  unlink(path: string): Promise<unknown>;
  hash?(path: string, algorithm: 'sha256'): Promise<string>;
  getFSInfo?(): Promise<{ readonly freeSpace: number }>;
}

// A multiple of three, so that no piece needs padding; encoding it takes a few milliseconds.
const pieceBytes = 3 * 2 ** 14;

/** Adapts `react-native-fs`. */
export function rnfsFiles(rnfs: ReactNativeFs): AppFiles {
  return {
    library: 'react-native-fs',
    identity: rnfs.moveFile,
    pieceBytes,
    documents: rnfs.DocumentDirectoryPath.replace(/\/+$/, ''),
    caches: rnfs.CachesDirectoryPath.replace(/\/+$/, ''),
    makeFolder: async (path) => {
      await rnfs.mkdir(path);
    },
    list: async (path) => ((await rnfs.exists(path)) ? rnfs.readdir(path) : []),
    stat: async (path) => {
      // What is absent rejects in other words on each system.
      if (!(await rnfs.exists(path))) return undefined;
      const { size, mtime } = await rnfs.stat(path);
      return { sizeBytes: Number(size), modifiedAt: Number(mtime ?? 0) };
    },
    // Reading nothing fails on Android.
    read: async (path, at, length) =>
      length === 0 ? new Uint8Array() : fromBase64(await rnfs.read(path, length, at, 'base64')),
    create: async (path) => {
      await rnfs.writeFile(path, '', 'base64');
      return {
        write: async (bytes) => {
          await rnfs.appendFile(path, toBase64(bytes), 'base64');
        },
        close: async () => {},
      };
    },
    writeAt: async (path, at, bytes) => {
      await rnfs.write(path, toBase64(bytes), at, 'base64');
    },
    move: async (from, to) => {
      await rnfs.moveFile(from, to);
    },
    remove: async (path) => {
      if (await rnfs.exists(path)) await rnfs.unlink(path);
    },
    freeBytes: async () => (await rnfs.getFSInfo?.())?.freeSpace ?? Infinity,
    ...(rnfs.hash !== undefined && {
      sha256: async (path: string) => (await rnfs.hash?.(path, 'sha256')) ?? '',
    }),
  };
}
