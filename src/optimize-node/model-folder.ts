/** A model file and the files that it names, open for reading. */
import { readSync } from 'node:fs';
import { basename, dirname, join, relative, isAbsolute } from 'node:path';
import { ModelError } from '../core/errors.ts';
import { outsideFile, type AsyncExternalResolver } from '../onnx/external.ts';
import type { ByteSource } from '../onnx/lazy.ts';

/** The part of `node:fs/promises` that reads model files. */
export interface ReadableFileSystem {
  open(path: string, flags: 'r'): Promise<ReadableFile>;
  realpath(path: string): Promise<string>;
}

/** A file that is open for reading. */
export interface ReadableFile {
  /** Descriptor, where the system has one. */
  readonly fd?: number;
  stat(): Promise<{ readonly size: number; isFile(): boolean }>;
  read(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ readonly bytesRead: number }>;
  close(): Promise<void>;
}

/** The folder of a model. Files are opened when they are asked for. */
export interface ModelFolder {
  /**
   * The model file.
   * @throws {@link ModelError} `ERR_INLAY_MODEL_NOT_FOUND`
   */
  model(): Promise<ByteSource>;
  /**
   * A file that a constant of the model names.
   * @throws {@link ModelError} `ERR_INLAY_MODEL_NOT_FOUND`; `ERR_INLAY_MODEL_INVALID` if it is, links followed, not
   * inside the folder.
   */
  file(location: string, tensor: string): Promise<ByteSource>;
  /** Reads external data. @throws {@link ModelError} as {@link ModelFolder.file}, or `ERR_INLAY_MODEL_TRUNCATED`. */
  readonly resolve: AsyncExternalResolver;
  close(): Promise<void>;
}

/**
 * The structure of a model is many short reads, each of which costs less than to wait for another thread does.
 */
const READ_AT_ONCE_BYTES = 1 << 16;
/** Systems read less than 2 GiB at once. */
const LONGEST_READ_BYTES = 1 << 30;

/** Opens the folder of a model; nothing is touched before the first call. */
export function openModelFolder(path: string, fs: ReadableFileSystem): ModelFolder {
  const sources = new Map<string, Promise<ByteSource>>();
  const files: ReadableFile[] = [];

  const openSource = async (real: string): Promise<ByteSource> => {
    const file = await fs.open(real, 'r');
    files.push(file);
    const stats = await file.stat();
    if (!stats.isFile()) throw new Error(`${real} is not a file.`);
    return { sizeBytes: stats.size, read: (offset, length) => readFrom(file, offset, length) };
  };
  const once = (location: string, open: () => Promise<ByteSource>): Promise<ByteSource> => {
    const source = sources.get(location) ?? open();
    sources.set(location, source);
    return source;
  };
  const model = (): Promise<ByteSource> =>
    once(basename(path), () =>
      openSource(path).catch((cause: unknown) => {
        throw notFound(`The model ${path} cannot be read; check the path.`, cause);
      }),
    );
  const openBeside = async (location: string, tensor: string): Promise<ByteSource> => {
    const cause = `The constant "${tensor}" is in the external file "${location}"`;
    const failed = (error: unknown): never => {
      throw notFound(`${cause}, which cannot be read; put it beside the model.`, error);
    };
    const real = await fs.realpath(join(dirname(path), location)).catch(failed);
    // Caches of downloads keep links in one folder to files that lie together in another.
    const folders = [await fs.realpath(dirname(path)), dirname(await fs.realpath(path))];
    if (!folders.some((folder) => isInside(folder, real))) {
      throw new ModelError(
        'ERR_INLAY_MODEL_INVALID',
        `${cause}, which is a link out of the model's folder; put the file itself there.`,
        { details: { tensor, location } },
      );
    }
    return openSource(real).catch(failed);
  };
  const file = (location: string, tensor: string): Promise<ByteSource> =>
    location === basename(path) ? model() : once(location, () => openBeside(location, tensor));

  return {
    model,
    file,
    resolve: async ({ location, offsetBytes, lengthBytes }, tensor) => {
      const source = await file(location, tensor);
      const endBytes = offsetBytes + lengthBytes;
      if (endBytes > source.sizeBytes) throw outsideFile(tensor, location, source.sizeBytes, endBytes);
      return source.read(offsetBytes, lengthBytes);
    },
    close: async () => {
      for (const one of files) await one.close();
    },
  };
}

async function readFrom(file: ReadableFile, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let filled = 0; filled < length;) {
    const wanted = Math.min(length - filled, LONGEST_READ_BYTES);
    const bytesRead =
      file.fd !== undefined && length <= READ_AT_ONCE_BYTES
        ? readSync(file.fd, bytes, filled, wanted, offset + filled)
        : (await file.read(bytes, filled, wanted, offset + filled)).bytesRead;
    if (bytesRead === 0) return bytes.subarray(0, filled);
    filled += bytesRead;
  }
  return bytes;
}

function isInside(folder: string, path: string): boolean {
  const way = relative(folder, path);
  return !isAbsolute(way) && !/^\.\.([/\\]|$)/.test(way);
}

function notFound(message: string, cause: unknown): ModelError {
  return new ModelError('ERR_INLAY_MODEL_NOT_FOUND', message, { cause });
}
