/** Writes a zip archive of stored files, piece by piece: PKWARE APPNOTE.TXT 6.3.10 §4.3. */
import type { FileHandle } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { concatBytes, toUtf8 } from '../../core/bytes.ts';

/** An archive that is being written. */
export interface ZipWriter {
  /**
   * Adds a file.
   * @param sizeBytes how many bytes `pieces` give.
   */
  add(path: string, sizeBytes: number, pieces: AsyncIterable<Uint8Array>): Promise<void>;
  /** Writes the directory. The caller flushes and closes the file. */
  finish(): Promise<void>;
}

interface Written {
  readonly path: Uint8Array;
  readonly crc: number;
  readonly sizeBytes: number;
  readonly offset: number;
}

// 1980-01-01, the first day that DOS knows, so that equal contents give equal archives.
const date = 0x21;
const version = 45;
const utf8Flag = 0x800;
const inZip64 = 0xffffffff;

/** Starts an archive in an empty file. Sizes are always kept in ZIP64 fields, so that nothing changes at 4 GiB. */
export function createZipWriter(file: FileHandle): ZipWriter {
  const written: Written[] = [];
  let end = 0;

  const append = async (bytes: Uint8Array): Promise<void> => {
    await writeAt(file, bytes, end);
    end += bytes.length;
  };

  return {
    add: async (path, sizeBytes, pieces) => {
      const entry = { path: toUtf8(path), crc: 0, sizeBytes, offset: end };
      await append(localHeader(entry));
      let crc = 0;
      let total = 0;
      for await (const piece of pieces) {
        crc = crc32(piece, crc);
        total += piece.length;
        await append(piece);
      }
      if (total !== sizeBytes)
        throw new RangeError(`${path} was to have ${sizeBytes} bytes, and has ${total}.`);
      written.push({ ...entry, crc });
      await writeAt(file, localHeader({ ...entry, crc }), entry.offset);
    },
    finish: async () => {
      const start = end;
      for (const entry of written) await append(directoryHeader(entry));
      await append(endRecords(written.length, start, end - start));
    },
  };
}

async function writeAt(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
  }
}

/** §4.3.7. */
function localHeader({ path, crc, sizeBytes }: Written): Uint8Array {
  return concatBytes([
    u32(0x04034b50),
    u16(version, utf8Flag, 0, 0, date),
    u32(crc, inZip64, inZip64),
    u16(path.length, 20),
    path,
    u16(1, 16),
    u64(sizeBytes, sizeBytes),
  ]);
}

/** §4.3.12. */
function directoryHeader({ path, crc, sizeBytes, offset }: Written): Uint8Array {
  return concatBytes([
    u32(0x02014b50),
    u16(version, version, utf8Flag, 0, 0, date),
    u32(crc, inZip64, inZip64),
    u16(path.length, 28, 0, 0, 0),
    u32(0, inZip64),
    path,
    u16(1, 24),
    u64(sizeBytes, sizeBytes, offset),
  ]);
}

/** §4.3.14 to §4.3.16. */
function endRecords(count: number, offset: number, length: number): Uint8Array {
  return concatBytes([
    u32(0x06064b50),
    u64(44),
    u16(version, version),
    u32(0, 0),
    u64(count, count, length, offset),
    u32(0x07064b50, 0),
    u64(offset + length),
    u32(1),
    u32(0x06054b50),
    u16(0, 0, 0xffff, 0xffff),
    u32(inZip64, inZip64),
    u16(0),
  ]);
}

function u16(...values: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(2 * values.length);
  values.forEach((value, index) => bytes.writeUInt16LE(value, 2 * index));
  return bytes;
}

function u32(...values: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, index) => bytes.writeUInt32LE(value, 4 * index));
  return bytes;
}

function u64(...values: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(8 * values.length);
  values.forEach((value, index) => bytes.writeBigUInt64LE(BigInt(value), 8 * index));
  return bytes;
}
