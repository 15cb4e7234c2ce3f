/** Bytes that are read piece by piece: a range of a file, or what it inflates to. */
import type { FileHandle } from 'node:fs/promises';
import { pipeline, Readable } from 'node:stream';
import { createInflateRaw } from 'node:zlib';
import { invalidData } from './faults.ts';

/** Bytes of a known size that need not fit into memory. */
export interface ByteSource {
  /** Says what this is in messages: `digits.npz (image.npy)`. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Reads on from a place. Each call starts anew. */
  stream(start: number): AsyncIterable<Uint8Array>;
  /** Whether {@link ByteSource.read} costs as much as what it reads, and not as all that comes before it. */
  readonly seekable: boolean;
  /**
   * Reads a piece.
   * @throws {@link InputError} `ERR_INLAY_FEED_VALUE` if it ends before `start + length`.
   */
  read(start: number, length: number): Promise<Uint8Array>;
}

const pieceBytes = 1 << 18;

/** A range of an open file. */
export function fileRange(file: FileHandle, name: string, offset: number, sizeBytes: number): ByteSource {
  const read = async (start: number, length: number): Promise<Uint8Array> => {
    const piece = new Uint8Array(length);
    for (let filled = 0; filled < length;) {
      const { bytesRead } = await file.read(piece, filled, length - filled, offset + start + filled);
      if (bytesRead === 0) throw cutShort(name, start + length);
      filled += bytesRead;
    }
    return piece;
  };
  return {
    name,
    sizeBytes,
    seekable: true,
    stream: async function* (start) {
      for (let at = start; at < sizeBytes; at += pieceBytes) {
        yield await read(at, Math.min(pieceBytes, sizeBytes - at));
      }
    },
    read: (start, length) => (start + length <= sizeBytes ? read(start, length) : fail(name, start + length)),
  };
}

/** What a deflated range inflates to: exactly `sizeBytes` bytes, however much more the range may hold. */
export function inflated(packed: ByteSource, sizeBytes: number): ByteSource {
  const { name } = packed;
  const stream = async function* (start: number): AsyncIterable<Uint8Array> {
    const inflate = createInflateRaw({ chunkSize: pieceBytes });
    // What goes wrong in the pipeline reaches the loop below through the last stream.
    pipeline(Readable.from(packed.stream(0)), inflate, () => {});
    let at = 0;
    try {
      for await (const piece of inflate as AsyncIterable<Uint8Array>) {
        const end = at + piece.length;
        if (end > sizeBytes)
          throw invalidData(name, `it inflates to more than the ${sizeBytes} bytes it promises`);
        if (end > start) yield piece.subarray(Math.max(0, start - at));
        at = end;
      }
    } catch (cause) {
      throw hasZlibCode(cause)
        ? invalidData(name, `its compressed data is damaged (${cause.code})`, cause)
        : cause;
    } finally {
      inflate.destroy();
    }
    if (at < sizeBytes) throw cutShort(name, sizeBytes);
  };
  return {
    name,
    sizeBytes,
    seekable: false,
    stream,
    read: async (start, length) => {
      const reader = createReader(stream(start));
      try {
        return (await reader.take(length)) ?? (await fail(name, start + length));
      } finally {
        await reader.close();
      }
    },
  };
}

/** Takes pieces of a wanted length off a stream. */
export interface ByteReader {
  /** The next `length` bytes; `undefined` if there are fewer. Valid until the next call. */
  take(length: number): Promise<Uint8Array | undefined>;
  close(): Promise<void>;
}

/** Reads a stream in pieces of any length. */
export function createReader(stream: AsyncIterable<Uint8Array>): ByteReader {
  const iterator = stream[Symbol.asyncIterator]();
  let rest: Uint8Array = new Uint8Array();
  return {
    take: async (length) => {
      if (rest.length >= length) {
        const piece = rest.subarray(0, length);
        rest = rest.subarray(length);
        return piece;
      }
      // What is promised is not there yet, so memory grows with what arrives.
      const parts = [rest];
      let total = rest.length;
      while (total < length) {
        const item = await iterator.next();
        if (item.done === true) return undefined;
        parts.push(item.value);
        total += item.value.length;
      }
      const whole = Buffer.concat(parts, total);
      rest = whole.subarray(length);
      return whole.subarray(0, length);
    },
    close: async () => {
      await iterator.return?.();
    },
  };
}

function hasZlibCode(error: unknown): error is Error & { readonly code: string } {
  return (
    error instanceof Error && /^(Z_|ERR_STREAM_PREMATURE)/.test(String((error as { code?: unknown }).code))
  );
}

function cutShort(name: string, wanted: number): Error {
  return invalidData(name, `it ends before byte ${wanted}`);
}

function fail(name: string, wanted: number): Promise<never> {
  return Promise.reject(cutShort(name, wanted));
}
