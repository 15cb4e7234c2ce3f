/** The members of a zip archive, read from its directory: PKWARE APPNOTE.TXT 6.3.10 §4.3. */
import type { FileHandle } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { fileRange, inflated, type ByteSource } from './byte-source.ts';
import { invalidData } from './faults.ts';

/** One file of an archive. */
export interface ZipMember {
  readonly path: string;
  /** Its bytes, inflated. */
  readonly bytes: ByteSource;
  /**
   * Reads it through once.
   * @throws {@link InputError} `ERR_INLAY_FEED_VALUE` if the bytes are not those that were packed.
   */
  verify(): Promise<void>;
}

const endBytes = 22;
const commentCap = 0xffff;
const directoryCap = 1 << 24;

/**
 * Lists the members of an archive. Stored and deflated ones can be read, also above 4 GiB.
 * @throws {@link InputError} `ERR_INLAY_FEED_VALUE` if the file is no archive, is damaged, split or encrypted.
 */
export async function readZip(
  file: FileHandle,
  name: string,
  sizeBytes: number,
): Promise<readonly ZipMember[]> {
  const whole = fileRange(file, name, 0, sizeBytes);
  const { offset, length } = await findDirectory(whole);
  if (length > directoryCap) throw invalidData(name, `its directory takes ${length} bytes`);
  const directory = toView(await whole.read(offset, length));
  const members: ZipMember[] = [];
  for (let at = 0; at < length;) {
    const entry = parseEntry(name, directory, at);
    at = entry.end;
    if (members.some(({ path }) => path === entry.path))
      throw invalidData(name, `${entry.path} is there twice`);
    members.push({ path: entry.path, ...(await openMember(file, whole, entry)) });
  }
  return members;
}

async function openMember(
  file: FileHandle,
  whole: ByteSource,
  entry: Entry,
): Promise<Pick<ZipMember, 'bytes' | 'verify'>> {
  const { path, method, flags, packedBytes, sizeBytes, headerOffset, crc } = entry;
  const name = `${whole.name} (${path})`;
  if (flags & 1) throw invalidData(name, 'it is encrypted');
  if (method !== 0 && method !== 8) throw invalidData(name, `compression method ${method} is not supported`);
  const header = toView(await whole.read(headerOffset, 30));
  if (header.getUint32(0, true) !== 0x04034b50)
    throw invalidData(name, 'its header is not where it should be');
  const start = headerOffset + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  if (start + packedBytes > whole.sizeBytes) throw invalidData(name, 'it goes on after the end of the file');
  if (method === 0 && packedBytes !== sizeBytes) throw invalidData(name, 'it has two different sizes');
  const packed = fileRange(file, name, start, packedBytes);
  const bytes = method === 0 ? packed : inflated(packed, sizeBytes);
  return {
    bytes,
    verify: async () => {
      let sum = 0;
      for await (const piece of bytes.stream(0)) sum = crc32(piece, sum);
      if (sum !== crc) throw invalidData(name, 'its checksum is wrong');
    },
  };
}

interface Entry {
  readonly path: string;
  readonly flags: number;
  readonly method: number;
  readonly crc: number;
  readonly packedBytes: number;
  readonly sizeBytes: number;
  readonly headerOffset: number;
  /** Where the next entry begins. */
  readonly end: number;
}

/** Reads one header of the directory (§4.3.12), with the large sizes of its ZIP64 field (§4.5.3) where it has one. */
function parseEntry(name: string, view: DataView, at: number): Entry {
  const damaged = (): Error => invalidData(name, 'its directory is damaged');
  if (at + 46 > view.byteLength || view.getUint32(at, true) !== 0x02014b50) throw damaged();
  const [pathLength, extraLength, commentLength] = [28, 30, 32].map((place) =>
    view.getUint16(at + place, true),
  ) as [number, number, number];
  const extraAt = at + 46 + pathLength;
  const end = extraAt + extraLength + commentLength;
  if (end > view.byteLength) throw damaged();
  const sizes = [24, 20, 42].map((place) => view.getUint32(at + place, true));
  for (let field = extraAt; field + 4 <= extraAt + extraLength;) {
    const next = field + 4 + view.getUint16(field + 2, true);
    if (next > extraAt + extraLength) throw damaged();
    if (view.getUint16(field, true) === 1) {
      let value = field + 4;
      for (const [index, size] of sizes.entries()) {
        if (size !== 0xffffffff) continue;
        if (value + 8 > next) throw damaged();
        sizes[index] = toSafe(view.getBigUint64(value, true));
        value += 8;
      }
    }
    field = next;
  }
  const [sizeBytes, packedBytes, headerOffset] = sizes as [number, number, number];
  return {
    path: Buffer.from(view.buffer, view.byteOffset + at + 46, pathLength).toString('utf8'),
    flags: view.getUint16(at + 8, true),
    method: view.getUint16(at + 10, true),
    crc: view.getUint32(at + 16, true),
    packedBytes,
    sizeBytes,
    headerOffset,
    end,
  };
}

/** Finds the directory through the record at the end of the file (§4.3.16), or the one of ZIP64 before it (§4.3.14). */
async function findDirectory(
  whole: ByteSource,
): Promise<{ readonly offset: number; readonly length: number }> {
  const { name, sizeBytes } = whole;
  const tailBytes = Math.min(sizeBytes, endBytes + commentCap);
  const tailAt = sizeBytes - tailBytes;
  const tail = toView(await whole.read(tailAt, tailBytes));
  let at = tailBytes - endBytes;
  while (at >= 0 && tail.getUint32(at, true) !== 0x06054b50) at -= 1;
  if (at < 0) throw invalidData(name, 'it has no directory as zip archives do; it may be cut short');
  const short = { length: tail.getUint32(at + 12, true), offset: tail.getUint32(at + 16, true) };
  if (short.length !== 0xffffffff && short.offset !== 0xffffffff) return short;
  if (at < 20 || tail.getUint32(at - 20, true) !== 0x07064b50)
    throw invalidData(name, 'its directory is damaged');
  const record = toView(await whole.read(toSafe(tail.getBigUint64(at - 12, true)), 56));
  if (record.getUint32(0, true) !== 0x06064b50) throw invalidData(name, 'its directory is damaged');
  return { length: toSafe(record.getBigUint64(40, true)), offset: toSafe(record.getBigUint64(48, true)) };
}

/** A number beyond the end of any file. */
function toSafe(value: bigint): number {
  return value > 2n ** 52n ? 2 ** 52 : Number(value);
}

function toView(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
