/** The files of an app, as the store needs them: over `expo-file-system` or `react-native-fs`, whichever the app has. */
import { expoFiles, type ExpoFileSystem } from './react-native-expo.ts';
import { rnfsFiles, type ReactNativeFs } from './react-native-rnfs.ts';

/** A file that is being written. */
export interface FileWriter {
  /** Appends all of `bytes`. */
  write(bytes: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** Facts of a file. */
export interface FileFacts {
  readonly sizeBytes: number;
  /** Milliseconds since 1970; 0 where the library does not tell. */
  readonly modifiedAt: number;
}

/** Files of an app. Paths are absolute, without `file:` and without percent signs that stand for something else. */
export interface AppFiles {
  readonly library: string;
  /** Equal for two objects over the same library. */
  readonly identity: object;
  /** Most bytes that one read or write takes without being felt by the app. */
  readonly pieceBytes: number;
  /** Folder that the system leaves alone. */
  readonly documents: string;
  /** Folder that the system may clear when it is short of space; backups leave it out. */
  readonly caches: string;
  /** Makes a folder with its parents; present is fine. */
  makeFolder(path: string): Promise<void>;
  /** Names of what is in a folder; none when absent. */
  list(path: string): Promise<readonly string[]>;
  stat(path: string): Promise<FileFacts | undefined>;
  /** Reads a part that is there. */
  read(path: string, at: number, length: number): Promise<Uint8Array>;
  /** Creates a file, or empties it. */
  create(path: string): Promise<FileWriter>;
  /** Writes all of `bytes` at a position within a file that is there, or at its end. */
  writeAt(path: string, at: number, bytes: Uint8Array): Promise<void>;
  /** Renames a file to a name that nobody has. */
  move(from: string, to: string): Promise<void>;
  /** Removes a file; absent is fine. */
  remove(path: string): Promise<void>;
  /** Bytes that are left on the device; `Infinity` where the library does not tell. */
  freeBytes(): Promise<number>;
  /** SHA-256 of a file in lower-case hex, computed natively. */
  readonly sha256?: (path: string) => Promise<string>;
}

/** A file library: the module `expo-file-system` (SDK 54, or `expo-file-system/next` before) or `react-native-fs`. */
export type FileLibrary = ExpoFileSystem | ReactNativeFs;

/**
 * Adapts a file library.
 * @throws `TypeError` if it is neither of the two.
 */
export function toAppFiles(library: FileLibrary): AppFiles {
  if ('Paths' in library && typeof library.File === 'function') return expoFiles(library);
  if ('moveFile' in library && typeof library.appendFile === 'function') return rnfsFiles(library);
  throw new TypeError(
    'files is the module `expo-file-system` with its File and Directory classes (SDK 54, or `expo-file-system/next`), or `react-native-fs`.',
  );
}
