import { dirname, basename, sep } from 'node:path';
import type { FileHandle, FileSystem, FsHost } from '../../src/stores/fs.ts';

/** What goes wrong at a step: an errno, once, or `crash`: from there on nothing happens any more. */
export type Fault = string | undefined;

/** A file system that numbers its steps and fails where it is told to. Writes that fail have written half. */
export function faultyFs(
  fs: FileSystem,
  faultAt: (step: number, name: string) => Fault,
): FileSystem & { readonly steps: readonly string[] } {
  const steps: string[] = [];
  let crashed = false;
  const at = async <T>(name: string, task: () => Promise<T>, half?: () => Promise<void>): Promise<T> => {
    const fault = crashed ? 'crash' : faultAt(steps.length, name);
    steps.push(name);
    if (fault === undefined) return task();
    if (!crashed) await half?.();
    if (fault === 'crash') crashed = true;
    throw Object.assign(new Error(`${fault} at ${name}`), { code: fault });
  };
  return {
    steps,
    mkdir: (path) => at('mkdir', () => fs.mkdir(path)),
    open: (path, flags) =>
      at(`open ${flags}`, async () => {
        const file = await fs.open(path, flags);
        return {
          writeFile: (bytes) =>
            at(
              'write',
              () => file.writeFile(bytes),
              () => file.writeFile(bytes.subarray(0, bytes.length >> 1)),
            ),
          read: (...range) => at('read', () => file.read(...range)),
          write: (bytes, offset, length, position) =>
            at(
              'write',
              () => file.write(bytes, offset, length, position),
              async () => void (await file.write(bytes, offset, length >> 1, position)),
            ),
          truncate: (sizeBytes) => at('truncate', () => file.truncate(sizeBytes)),
          sync: () => at('sync', () => file.sync()),
          // A process that ends, and a close that reports an error, close the file all the same.
          close: async () => {
            await file.close();
            await at('close', async () => {});
          },
        };
      }),
    readFile: (path) => at('readFile', () => fs.readFile(path)),
    readdir: (path) => at('readdir', () => fs.readdir(path)),
    rename: (from, to) => at('rename', () => fs.rename(from, to)),
    stat: (path) => at('stat', () => fs.stat(path)),
    unlink: (path) => at('unlink', () => fs.unlink(path)),
  };
}

/** What a power cut leaves of things that were not flushed. */
export type PowerCut =
  | 'loses all'
  | 'keeps names only'
  | 'keeps names and half the data'
  | 'keeps names and the other half of the data';

/** A file system in memory that forgets on a power cut what was not flushed, as POSIX allows. */
export interface VolatileFs extends FileSystem {
  powerCut(how: PowerCut): void;
}

interface VolatileFile {
  data: Uint8Array;
  flushed: Uint8Array;
  mtimeMs: number;
}
interface VolatileFolder {
  entries: Map<string, VolatileFile | VolatileFolder>;
  flushed: Map<string, VolatileFile | VolatileFolder>;
}

/** Creates one with the folder `base`. */
export function volatileFs(base: string): VolatileFs {
  const root: VolatileFolder = { entries: new Map(), flushed: new Map() };
  let ticks = 0;

  const fail = (code: string): never => {
    throw Object.assign(new Error(code), { code });
  };
  const isFolder = (node: VolatileFile | VolatileFolder | undefined): node is VolatileFolder =>
    node !== undefined && 'entries' in node;
  const find = (path: string): VolatileFile | VolatileFolder | undefined => {
    if (path === base) return root;
    if (!path.startsWith(base + sep)) return fail('EACCES');
    let node: VolatileFile | VolatileFolder | undefined = root;
    for (const part of path.slice(base.length + 1).split(sep)) {
      node = isFolder(node) ? node.entries.get(part) : undefined;
    }
    return node;
  };
  const folder = (path: string): VolatileFolder => {
    const node = find(path);
    return isFolder(node) ? node : fail('ENOENT');
  };
  const file = (path: string): VolatileFile => {
    const node = find(path);
    return node && !isFolder(node) ? node : fail('ENOENT');
  };

  return {
    mkdir: async (path) => {
      if (find(path)) fail('EEXIST');
      folder(dirname(path)).entries.set(basename(path), { entries: new Map(), flushed: new Map() });
    },
    open: async (path, flags): Promise<FileHandle> => {
      const node = find(path);
      if (flags === 'wx' && node) fail('EEXIST');
      if (flags !== 'wx' && !node) fail('ENOENT');
      if (isFolder(node)) {
        const refuse = (): Promise<never> => Promise.reject(new Error('EISDIR'));
        return {
          writeFile: refuse,
          read: refuse,
          write: refuse,
          truncate: refuse,
          sync: async () => {
            node.flushed = new Map(node.entries);
          },
          close: async () => {},
        };
      }
      ticks += 1;
      const opened = node ?? { data: new Uint8Array(), flushed: new Uint8Array(), mtimeMs: ticks };
      if (!node) folder(dirname(path)).entries.set(basename(path), opened);
      const write = (bytes: Uint8Array, at: number): void => {
        if (flags === 'r') fail('EBADF');
        ticks += 1;
        opened.mtimeMs = ticks;
        const data = new Uint8Array(Math.max(opened.data.length, at + bytes.length));
        data.set(opened.data);
        data.set(bytes, at);
        opened.data = data;
      };
      return {
        writeFile: async (bytes) => write(bytes, opened.data.length),
        read: async (buffer, offset, length, position) => {
          const found = opened.data.subarray(position, position + length);
          buffer.set(found, offset);
          return { bytesRead: found.length };
        },
        // A system may write less than it was asked to.
        write: async (bytes, offset, length, position) => {
          const bytesWritten = Math.ceil(length / 2);
          write(bytes.subarray(offset, offset + bytesWritten), position);
          return { bytesWritten };
        },
        truncate: async (sizeBytes) => {
          const data = new Uint8Array(sizeBytes);
          data.set(opened.data.subarray(0, sizeBytes));
          opened.data = data;
        },
        sync: async () => {
          opened.flushed = opened.data;
        },
        close: async () => {},
      };
    },
    readFile: async (path) => file(path).data.slice(),
    readdir: async (path) => [...folder(path).entries.keys()],
    rename: async (from, to) => {
      const node = file(from);
      folder(dirname(to)).entries.set(basename(to), node);
      folder(dirname(from)).entries.delete(basename(from));
    },
    stat: async (path) => ({ size: file(path).data.length, mtimeMs: file(path).mtimeMs }),
    unlink: async (path) => {
      file(path);
      folder(dirname(path)).entries.delete(basename(path));
    },
    powerCut: (how) => {
      const cut = (node: VolatileFile | VolatileFolder): void => {
        if (isFolder(node)) {
          if (how === 'loses all') node.entries = new Map(node.flushed);
          for (const child of node.entries.values()) cut(child);
        } else if (node.data !== node.flushed) {
          node.data = mixed(node.flushed, node.data, how);
        }
      };
      cut(root);
    },
  };
}

/** What is on the platters of a file that was not flushed since it was changed. */
function mixed(flushed: Uint8Array, data: Uint8Array, how: PowerCut): Uint8Array {
  if (how === 'loses all' || how === 'keeps names only') return flushed;
  const half = data.length >> 1;
  const isFirst = how === 'keeps names and half the data';
  const left = isFirst ? Math.max(flushed.length, half) : data.length;
  return Uint8Array.from({ length: left }, (_, i) => (i < half === isFirst ? data[i] : flushed[i]) ?? 0);
}

/** A process for tests: time passes only while it pauses, and only `alive` pids live. */
export function fakeHost(pid: number, alive: readonly number[] = []): Partial<FsHost> {
  let nowMs = 0;
  return {
    pid,
    machine: () => 'test-machine',
    isAlive: (other) => alive.includes(other),
    now: () => 0,
    monotonicMs: () => nowMs,
    pause: async (durationMs) => {
      nowMs += durationMs;
    },
    random: () => 0.5,
  };
}
