/** File libraries of React Native on `node:fs`: the documented functions, with the quirks that their sources have. */
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { appendFile, mkdir, open, readdir, rename, stat, unlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type {
  ExpoDirectory,
  ExpoFile,
  ExpoFileHandle,
  ExpoFileSystem,
} from '../../src/stores/react-native-expo.ts';
import type { ReactNativeFs } from '../../src/stores/react-native-rnfs.ts';

/** Called before each step that changes something; throws to make it fail. */
export type Fault = (step: string, path: string) => void;

/** `expo-file-system`: synchronous classes over `file:` URIs. */
export function fakeExpo(directory: string, fault: Fault = () => {}): ExpoFileSystem {
  class Handle implements ExpoFileHandle {
    offset = 0;
    readonly #descriptor: number;
    readonly #path: string;
    constructor(path: string) {
      this.#path = path;
      this.#descriptor = openSync(path, 'r+');
    }
    readBytes(length: number): Uint8Array {
      const bytes = new Uint8Array(Math.min(length, fstatSync(this.#descriptor).size - this.offset));
      this.offset += readSync(this.#descriptor, bytes, 0, bytes.length, this.offset);
      return bytes;
    }
    writeBytes(bytes: Uint8Array): void {
      fault('write', this.#path);
      // The whole buffer, as native code may see it.
      this.offset += writeSync(this.#descriptor, new Uint8Array(bytes.buffer), 0, undefined, this.offset);
    }
    close(): void {
      closeSync(this.#descriptor);
    }
  }

  class File implements ExpoFile {
    readonly path: string;
    constructor(uri: string) {
      this.path = fileURLToPath(uri);
    }
    get name(): string {
      return basename(this.path);
    }
    get exists(): boolean {
      return existsSync(this.path) && statSync(this.path).isFile();
    }
    get size(): number | null {
      return this.exists ? statSync(this.path).size : null;
    }
    get modificationTime(): number | null {
      return this.exists ? Math.floor(statSync(this.path).mtimeMs) : null;
    }
    create(options: { readonly overwrite?: boolean } = {}): void {
      fault('create', this.path);
      writeFileSync(this.path, '', { flag: options.overwrite === true ? 'w' : 'wx' });
    }
    delete(): void {
      fault('delete', this.path);
      unlinkSync(this.path);
    }
    move(destination: ExpoFile): void {
      const to = (destination as File).path;
      fault('move', to);
      // As NSFileManager does.
      if (existsSync(to))
        throw new Error(`“${basename(to)}” couldn’t be moved: an item with that name exists.`);
      renameSync(this.path, to);
    }
    open(): Handle {
      return new Handle(this.path);
    }
  }

  class Directory implements ExpoDirectory {
    readonly path: string;
    constructor(uri: string) {
      this.path = fileURLToPath(uri);
    }
    get exists(): boolean {
      return existsSync(this.path) && statSync(this.path).isDirectory();
    }
    create(options: { readonly intermediates?: boolean } = {}): void {
      fault('mkdir', this.path);
      if (this.exists) throw new Error('The folder exists.');
      mkdirSync(this.path, { recursive: options.intermediates === true });
    }
    list(): readonly { readonly name: string }[] {
      return readdirSync(this.path).map((name) => ({ name }));
    }
  }

  const folder = (name: string): { readonly uri: string } => {
    const path = join(directory, name);
    mkdirSync(path, { recursive: true });
    return { uri: `${pathToFileURL(path).href}/` };
  };
  return { File, Directory, Paths: { document: folder('Documents'), cache: folder('Cach es') } };
}

/** `react-native-fs`: promises and base64. */
export function fakeRnfs(directory: string, fault: Fault = () => {}): ReactNativeFs {
  const there = (path: string): Promise<boolean> =>
    stat(path).then(
      () => true,
      () => false,
    );
  return {
    DocumentDirectoryPath: join(directory, 'Documents'),
    CachesDirectoryPath: join(directory, 'Cach es'),
    mkdir: async (path) => {
      fault('mkdir', path);
      await mkdir(path, { recursive: true });
    },
    readdir: (path) => readdir(path),
    exists: there,
    stat: async (path) => {
      const { size, mtime } = await stat(path);
      return { size: String(size), mtime };
    },
    read: async (path, length, position) => {
      const file = await open(path);
      try {
        const { bytesRead, buffer } = await file.read(new Uint8Array(length), 0, length, position);
        // Android encodes the -1 bytes that it got.
        if (bytesRead === 0) throw new Error('Length -1 is negative.');
        return Buffer.from(buffer.subarray(0, bytesRead)).toString('base64');
      } finally {
        await file.close();
      }
    },
    writeFile: async (path, contents) => {
      fault('create', path);
      await writeFile(path, contents, 'base64');
    },
    appendFile: async (path, contents) => {
      fault('write', path);
      await appendFile(path, contents, 'base64');
    },
    write: async (path, contents, position) => {
      fault('write', path);
      const file = await open(path, 'r+');
      try {
        await file.write(Buffer.from(contents, 'base64'), 0, null, position);
      } finally {
        await file.close();
      }
    },
    moveFile: async (from, to) => {
      fault('move', to);
      if (await there(to))
        throw new Error(`“${basename(to)}” couldn’t be moved: an item with that name exists.`);
      await rename(from, to);
    },
    unlink: async (path) => {
      fault('delete', path);
      await unlink(path);
    },
    hash: async (path) => createHash('sha256').update(readFileSync(path)).digest('hex'),
    getFSInfo: async () => ({ freeSpace: 1e9 }),
  };
}

/** Removes everything of a fake. */
export function removeAll(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
}
