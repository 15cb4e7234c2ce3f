/** Small files that are replaced by turns, so that one of two is always whole. */
import { concatBytes, equalBytes } from '../core/bytes.ts';
import { createSha256 } from '../core/hash.ts';
import type { AppDisk } from './react-native-disk.ts';

/** One generation of a record. */
export interface Generation {
  /** Counts the updates of the record, from 1. */
  readonly number: number;
  readonly content: Uint8Array<ArrayBuffer>;
}

// File: generation (float64, big-endian), SHA-256 of all else (32 bytes), content.
const headerBytes = 40;

/** Reads the newest intact one of two files, `<path>.0` and `<path>.1`. */
export async function readNewest(disk: AppDisk, path: string): Promise<Generation | undefined> {
  let newest: Generation | undefined;
  for (const half of [0, 1]) {
    const facts = await disk.stat(`${path}.${half}`);
    const file = facts && (await disk.read(`${path}.${half}`, facts.sizeBytes));
    const generation = file && fromRecordFile(file);
    if (generation && generation.number > (newest?.number ?? 0)) newest = generation;
  }
  return newest;
}

/** Replaces the older of the two files. @returns what is the newest from then on. */
export async function writeNext(
  disk: AppDisk,
  path: string,
  present: Generation | undefined,
  content: Uint8Array,
): Promise<Generation> {
  const next: Generation = { number: (present?.number ?? 0) + 1, content: new Uint8Array(content) };
  const file = toRecordFile(next);
  await disk.replace(`${path}.${next.number % 2}`, (writer) => writer.write(file));
  return next;
}

function toRecordFile({ number, content }: Generation): Uint8Array<ArrayBuffer> {
  const count = new Uint8Array(8);
  new DataView(count.buffer).setFloat64(0, number);
  return concatBytes([count, hashOf(count, content), content]);
}

function fromRecordFile(file: Uint8Array): Generation | undefined {
  if (file.length < headerBytes) return undefined;
  const [count, content] = [file.subarray(0, 8), file.slice(headerBytes)];
  if (!equalBytes(file.subarray(8, headerBytes), hashOf(count, content))) return undefined;
  const number = new DataView(file.buffer, file.byteOffset, 8).getFloat64(0);
  return { number, content: new Uint8Array(content) };
}

function hashOf(count: Uint8Array, content: Uint8Array): Uint8Array {
  const hash = createSha256();
  hash.update(count);
  hash.update(content);
  return hash.digest();
}
