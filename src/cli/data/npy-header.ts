/** The header of a `.npy` file, versions 1.0 to 3.0: numpy.lib.format, "Format Version 1.0" and following. */
import { DTYPES, type DType } from '../../core/dtype.ts';
import { invalidData, misshapenData, unsupportedData } from './faults.ts';
import { parsePythonLiteral, type PythonValue } from './python-literal.ts';

/** How one array lies in a file. */
export interface NpyHeader {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Bytes of one element. */
  readonly itemBytes: number;
  readonly littleEndian: boolean;
  /** The first axis runs fastest. */
  readonly fortranOrder: boolean;
  /** How text is kept: bytes of UTF-8, or four bytes per character. Absent for numbers. */
  readonly text?: 'bytes' | 'ucs4';
  /** Bytes before the first element. */
  readonly headerBytes: number;
}

/** Reads a piece of a file; fails where the file ends early. */
export type ReadPiece = (start: number, length: number) => Promise<Uint8Array>;

const magic = '\x93NUMPY';
/** Real headers take 128 bytes or so; only lists of field names, which are refused anyway, take many more. */
const headerCap = 1 << 16;

/**
 * Reads the header of an array. Numbers of 1 to 8 bytes, bool, `S` and `U` strings are understood, in both byte orders.
 * @throws {@link InputError} `ERR_INLAY_FEED_VALUE` if the file is no array, `ERR_INLAY_FEED_DTYPE` for a dtype that no
 * model takes: objects, records, dates, complex numbers, long doubles.
 */
export async function readNpyHeader(name: string, read: ReadPiece): Promise<NpyHeader> {
  const start = await read(0, 10);
  if (latin1(start.subarray(0, 6)) !== magic) throw invalidData(name, 'it does not begin as .npy files do');
  const major = start[6] as number;
  if (major < 1 || major > 3) throw invalidData(name, `version ${major} of the .npy format is unknown`);
  const isLong = major > 1;
  const first = isLong ? await read(0, 12) : start;
  const view = new DataView(first.buffer, first.byteOffset, first.length);
  const length = isLong ? view.getUint32(8, true) : view.getUint16(8, true);
  if (length > headerCap)
    throw invalidData(name, `its header claims ${length} bytes, more than ${headerCap}`);
  const text = await read(first.length, length);
  const header = parsePythonLiteral(major === 3 ? utf8(name, text) : latin1(text));
  if (!(header instanceof Map)) throw invalidData(name, 'its header is no dictionary');
  return {
    ...parseDescr(name, header.get('descr')),
    shape: parseShape(name, header.get('shape')),
    fortranOrder: parseOrder(name, header.get('fortran_order')),
    headerBytes: first.length + length,
  };
}

type ElementFormat = Pick<NpyHeader, 'dtype' | 'itemBytes' | 'littleEndian' | 'text'>;

const kinds: Readonly<Record<string, readonly DType[]>> = {
  f: ['float16', 'float32', 'float64'],
  i: ['int8', 'int16', 'int32', 'int64'],
  u: ['uint8', 'uint16', 'uint32', 'uint64'],
  b: ['bool'],
};

function parseDescr(name: string, descr: PythonValue | undefined): ElementFormat {
  if (Array.isArray(descr)) throw unsupportedData(name, 'holds records; save one array per field');
  if (typeof descr !== 'string') throw invalidData(name, 'its header has no "descr"');
  const [, order, kind = '', digits] = /^([<>|=])([A-Za-z?])(\d{0,9})(?:\[\w+\])?$/.exec(descr) ?? [];
  const itemBytes = Number(digits);
  if (kind === 'O') throw unsupportedData(name, 'holds Python objects, which may run code; save numbers');
  if ((kind === 'S' || kind === 'U') && itemBytes > 0) {
    return {
      dtype: 'string',
      itemBytes: kind === 'U' ? 4 * itemBytes : itemBytes,
      littleEndian: order !== '>',
      text: kind === 'U' ? 'ucs4' : 'bytes',
    };
  }
  const dtype = (kinds[kind] ?? []).find((candidate) => DTYPES[candidate].bits === 8 * itemBytes);
  // "=" is the byte order of the machine that wrote the file, which the file does not say.
  if (dtype === undefined || order === '=' || (order === '|' && itemBytes > 1)) {
    throw unsupportedData(
      name,
      `is of dtype ${JSON.stringify(descr)}; convert it to one of f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1 S U`,
    );
  }
  return { dtype, itemBytes, littleEndian: order !== '>' };
}

function parseShape(name: string, shape: PythonValue | undefined): readonly number[] {
  if (!Array.isArray(shape)) throw invalidData(name, 'its header has no "shape"');
  let size = 1;
  for (const length of shape) {
    if (typeof length !== 'number' || !Number.isSafeInteger(length) || length < 0) {
      throw misshapenData(name, `has a shape with a length of ${String(length)}`);
    }
    size *= length;
  }
  if (shape.length > 64 || !Number.isSafeInteger(size)) {
    throw misshapenData(name, `claims more elements or axes than any array has`);
  }
  return shape as readonly number[];
}

function parseOrder(name: string, order: PythonValue | undefined): boolean {
  if (typeof order !== 'boolean') throw invalidData(name, 'its header has no "fortran_order"');
  return order;
}

/**
 * Writes a header of version 1.0 in C order; text and packed dtypes have none.
 * The data begins at a multiple of 64 bytes, as the format asks for.
 */
export function encodeNpyHeader(descr: string, shape: readonly number[]): Uint8Array<ArrayBuffer> {
  const lengths = shape.length === 1 ? `${shape[0]},` : shape.join(', ');
  const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${lengths}), }`;
  const total = Math.ceil((10 + text.length + 1) / 64) * 64;
  const bytes = Buffer.from(`${magic}\x01\x00\x00\x00${text.padEnd(total - 11)}\n`, 'latin1');
  bytes.writeUInt16LE(total - 10, 8);
  return new Uint8Array(bytes);
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
}

function utf8(name: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw invalidData(name, 'its header is not UTF-8', cause);
  }
}
