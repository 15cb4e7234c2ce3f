/** Outputs as files: lines of JSON, or an archive of arrays. */
import { open } from 'node:fs/promises';
import type { TensorMap } from '../../core/backend.ts';
import { toUtf8 } from '../../core/bytes.ts';
import type { DType, TypedArray } from '../../core/dtype.ts';
import { InputError } from '../../core/errors.ts';
import type { Signature, TensorSpec } from '../../core/signature.ts';
import { readElements, writeElements, type Tensor } from '../../core/tensor.ts';
import { fileRange } from './byte-source.ts';
import { onDisk } from '../../optimize-node/on-disk.ts';
import type { AppendFile } from './disk.ts';
import { encodeNpyHeader } from './npy-header.ts';
import { hasPlainForm, toJson } from './numbers.ts';
import type { ProgressFolder } from './progress-folder.ts';
import { createZipWriter } from './zip-writer.ts';

/** Formats of outputs. */
export type OutputFormat = 'jsonl' | 'npz';

/** Takes the outputs of rows, in order, into the folder of a run. */
export interface RowWriter {
  /**
   * Adds a row.
   * @param outputs `undefined` for a row that was skipped.
   * @throws {@link InputError} `ERR_INLAY_FEED_SHAPE` if the rows of an array differ in shape or dtype.
   */
  append(index: number, outputs: TensorMap | undefined): Promise<void>;
  /** What the writer has to know to go on from here. */
  state(): unknown;
}

/** A format of outputs. */
export interface RowFormat {
  /** @throws {@link InputError} `ERR_INLAY_FEED_DTYPE` if an output cannot be written in this format. */
  assertWritable(signature: Signature): void;
  open(folder: ProgressFolder, signature: Signature): Promise<RowWriter>;
  /**
   * Makes the whole output from what is in the folder. Gives the same again if it is interrupted.
   * @param withIndex - adds the index of each row, since some were or may have been left out.
   * @returns the file of the folder that is the output.
   */
  finish(folder: ProgressFolder, signature: Signature, state: unknown, withIndex: boolean): Promise<string>;
}

/** The formats by their file extension. */
export const OUTPUT_FORMATS: Readonly<Record<OutputFormat, RowFormat>> = {
  jsonl: {
    assertWritable: ({ outputs }) => {
      const spec = outputs.find(({ dtype }) => !hasPlainForm(dtype));
      if (spec !== undefined)
        throw unwritable(spec, 'has no form in JSON; write an .npz file or leave it out');
    },
    open: async (folder, { outputs }) => {
      const file = await folder.file('rows.jsonl');
      return {
        append: (_, given) => file.append(toUtf8(given === undefined ? 'null\n' : toLine(outputs, given))),
        state: () => null,
      };
    },
    finish: async () => 'rows.jsonl',
  },
  npz: {
    assertWritable: ({ outputs }) => {
      const spec = outputs.find(({ dtype }) => descrs[dtype] === undefined);
      if (spec !== undefined) throw unwritable(spec, 'cannot be kept in an array here; write a .jsonl file');
      const index = outputs.find(({ name }) => name === indexName);
      if (index !== undefined)
        throw unwritable(index, 'is called like the index of rows; write a .jsonl file');
    },
    open: async (folder, { outputs }) => {
      const index = await folder.file(binName(outputs.length));
      const files: AppendFile[] = [];
      for (const place of outputs.keys()) files.push(await folder.file(binName(place)));
      const shapes = [...toShapes(folder.checkpoint?.writer)];
      return {
        append: async (row, given) => {
          if (given === undefined) return;
          for (const [place, { name }] of outputs.entries()) {
            const tensor = given[name] as Tensor;
            const shape = (shapes[place] ??= tensor.shape);
            if (tensor.shape.join() !== shape.join()) throw uneven(name, tensor.shape, shape);
            await (files[place] as AppendFile).append(toStored(tensor));
          }
          await index.append(new Uint8Array(BigInt64Array.of(BigInt(row)).buffer));
        },
        state: () => shapes,
      };
    },
    finish: async (folder, { outputs }, state, withIndex) => {
      const target = 'rows.npz';
      const shapes = toShapes(state);
      const arrays = outputs.map(({ name, dtype, shape }, place) => ({
        name,
        place,
        descr: descrs[dtype] as string,
        rowShape: shapes[place] ?? (shape ?? []).slice(1).map((length) => Number(length) || 0),
      }));
      if (withIndex) arrays.push({ name: indexName, place: outputs.length, descr: '<i8', rowShape: [] });
      await onDisk(folder.path(target), async () => {
        const zip = await open(folder.path(target), 'w');
        try {
          const writer = createZipWriter(zip);
          const index = await sizeOfFile(folder.path(binName(outputs.length)));
          for (const { name, place, descr, rowShape } of arrays) {
            const header = encodeNpyHeader(descr, [index / 8, ...rowShape]);
            const path = folder.path(binName(place));
            const size = await sizeOfFile(path);
            await writer.add(`${name}.npy`, header.length + size, withHeader(header, path, size));
          }
          await writer.finish();
          await zip.datasync();
        } finally {
          await zip.close();
        }
      });
      return target;
    },
  },
};

/** Array of the indices of rows in an archive from which rows may be missing. */
const indexName = 'row_index';

/** Dtypes as `.npy` headers write them; those that numpy lacks are kept in the next wider one. */
const descrs: Readonly<Partial<Record<DType, string>>> = {
  float16: '<f2',
  bfloat16: '<f4',
  float32: '<f4',
  float64: '<f8',
  int2: '|i1',
  int4: '|i1',
  int8: '|i1',
  int16: '<i2',
  int32: '<i4',
  int64: '<i8',
  uint2: '|u1',
  uint4: '|u1',
  uint8: '|u1',
  uint16: '<u2',
  uint32: '<u4',
  uint64: '<u8',
  bool: '|b1',
  complex64: '<c8',
  complex128: '<c16',
};

const wider: Readonly<Partial<Record<DType, DType>>> = {
  bfloat16: 'float32',
  int2: 'int8',
  int4: 'int8',
  uint2: 'uint8',
  uint4: 'uint8',
};

function binName(place: number): string {
  return `${place}.bin`;
}

function toStored({ dtype, data, size }: Tensor): Uint8Array {
  const wide = wider[dtype];
  const stored = wide === undefined ? data : writeElements(wide, readElements(dtype, data, size));
  const { buffer, byteOffset, byteLength } = stored as TypedArray;
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function toLine(outputs: readonly TensorSpec[], given: TensorMap): string {
  const entries = outputs.map(({ name }) => `${JSON.stringify(name)}:${toJson(given[name] as Tensor)}`);
  return `{${entries.join(',')}}\n`;
}

function toShapes(state: unknown): readonly (readonly number[])[] {
  return Array.isArray(state) ? (state as readonly (readonly number[])[]) : [];
}

async function* withHeader(header: Uint8Array, path: string, sizeBytes: number): AsyncIterable<Uint8Array> {
  yield header;
  const file = await open(path, 'r');
  try {
    yield* fileRange(file, path, 0, sizeBytes).stream(0);
  } finally {
    await file.close();
  }
}

async function sizeOfFile(path: string): Promise<number> {
  const file = await open(path, 'r');
  try {
    return (await file.stat()).size;
  } finally {
    await file.close();
  }
}

function unwritable({ name, dtype }: TensorSpec, what: string): InputError {
  return new InputError('ERR_INLAY_FEED_DTYPE', `The output "${name}" (${dtype}) ${what}.`, {
    details: { output: name, dtype },
  });
}

function uneven(name: string, got: readonly number[], before: readonly number[]): InputError {
  return new InputError(
    'ERR_INLAY_FEED_SHAPE',
    `The output "${name}" has shape [${got.join(', ')}] here and [${before.join(', ')}] before, which no array holds; write a .jsonl file.`,
    { details: { output: name } },
  );
}
