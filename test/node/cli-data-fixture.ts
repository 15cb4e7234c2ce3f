import { open, writeFile, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { isInlayError } from '../../src/core/errors.ts';
import type { Tensor } from '../../src/core/tensor.ts';
import { openDataFile } from '../../src/cli/data/open-file.ts';
import type { DataFile, DataRow } from '../../src/cli/data/rows.ts';
import { temporaryDirectory } from './server-fixture.ts';

/** What a `.npy` file is made of, by hand: numpy.lib.format, "Format Version 1.0" and following. */
export interface NpyParts {
  readonly descr: string;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
  readonly fortranOrder?: boolean;
  readonly version?: 1 | 2 | 3;
}

export function npy({ descr, shape, data, fortranOrder = false, version = 1 }: NpyParts): Uint8Array {
  const lengths = `(${shape.join(', ')}${shape.length === 1 ? ',' : ''})`;
  const order = fortranOrder ? 'True' : 'False';
  return npyOf(`{'descr': '${descr}', 'fortran_order': ${order}, 'shape': ${lengths}, }`, data, version);
}

/** A `.npy` file with any text for a header. */
export function npyOf(dictionary: string, data: Uint8Array, version: 1 | 2 | 3 = 1): Uint8Array {
  const before = version === 1 ? 10 : 12;
  const text = Buffer.from(dictionary, version === 3 ? 'utf8' : 'latin1');
  const padding = (64 - ((before + text.length + 1) % 64)) % 64;
  const length = Buffer.alloc(before - 8);
  if (version === 1) length.writeUInt16LE(text.length + padding + 1);
  else length.writeUInt32LE(text.length + padding + 1);
  return Buffer.concat([
    Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, version, 0),
    length,
    text,
    Buffer.from(`${' '.repeat(padding)}\n`),
    data,
  ]);
}

export function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** Writes a data file and opens it. */
export async function dataFile(name: string, content: Uint8Array | string): Promise<DataFile> {
  const path = join(await temporaryDirectory(), name);
  await writeFile(path, content);
  const file = await openDataFile(path);
  onTestFinished(() => file.close());
  return file;
}

/** A data file of which only the columns matter. */
export function fileWith(columns: readonly string[] | undefined, together: readonly string[] = []): DataFile {
  return {
    name: 'data.csv',
    columns,
    together,
    extent: { unit: 'rows', total: 0, position: () => 0 },
    rows: async function* () {},
    close: async () => {},
  };
}

/** Writes a file and opens it for reading. */
export async function handleOf(content: Uint8Array): Promise<FileHandle> {
  const path = join(await temporaryDirectory(), 'file');
  await writeFile(path, content);
  const file = await open(path, 'r');
  onTestFinished(() => file.close());
  return file;
}

export async function collect<Value>(values: AsyncIterable<Value>): Promise<Value[]> {
  const all: Value[] = [];
  for await (const value of values) all.push(value);
  return all;
}

/** The tensors of one column. */
export async function tensorsOf(file: DataFile, column: string, from = 0): Promise<Tensor[]> {
  return (await collect(file.rows([column], from))).map((row) => tensorOf(row, column));
}

export function tensorOf({ cells }: DataRow, column: string): Tensor {
  const cell = cells[column];
  if (cell?.kind !== 'tensor') throw new TypeError(`There is no tensor in ${column}.`);
  return cell.tensor;
}

/** Code of the error that something ends with. */
export async function codeOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (isInlayError(error)) return error.code;
    throw error;
  }
  return 'no error';
}
