/** The rows of one `.npy` array, in bounded memory. */
import { DTYPES, type DType, type DTypeStorage, type TypedArray } from '../../core/dtype.ts';
import { sizeOf, Tensor } from '../../core/tensor.ts';
import { createReader, type ByteSource } from './byte-source.ts';
import { invalidData, misshapenData } from './faults.ts';
import { readNpyHeader, type NpyHeader } from './npy-header.ts';

/** An array whose first axis counts samples. */
export interface ArrayRows {
  readonly dtype: DType;
  readonly rows: number;
  /** Shape of one row: that of the array without its first axis. */
  readonly rowShape: readonly number[];
  /** Reads rows in order, each into memory of its own. */
  read(from: number): AsyncIterable<Tensor>;
}

/** A row is held in memory, and typed arrays end somewhere. */
const rowCapBytes = 1 << 30;
/** Rows that are turned from column order at a time. */
const blockBytes = 1 << 25;
/** A deflated array in column order has to be held whole, for it cannot be read in any other order. */
const inflatedCapBytes = 1 << 28;

/**
 * Opens an array. Its size has to be exactly what its header says.
 * @throws {@link InputError} `ERR_INLAY_FEED_VALUE`, `_SHAPE` or `_DTYPE` for what {@link readNpyHeader} refuses, for an
 * array without a first axis, and for one that is cut short or goes on after its end.
 */
export async function openNpy(source: ByteSource): Promise<ArrayRows> {
  const { name } = source;
  const header = await readNpyHeader(name, source.read);
  const { dtype, shape, itemBytes, headerBytes, fortranOrder } = header;
  const [rows, ...rowShape] = shape;
  if (rows === undefined) throw misshapenData(name, 'holds a single value; samples lie along the first axis');
  const rowBytes = sizeOf(rowShape) * itemBytes;
  if (rowBytes === 0 && rows > 0)
    throw misshapenData(name, `has empty rows: its shape is [${shape.join(', ')}]`);
  if (rowBytes > rowCapBytes) {
    throw misshapenData(name, `has rows of ${rowBytes} bytes; samples lie along the first axis`);
  }
  const expected = headerBytes + rows * rowBytes;
  if (source.sizeBytes !== expected) {
    throw misshapenData(
      name,
      `has ${source.sizeBytes} bytes, but a ${dtype} array of shape [${shape.join(', ')}] takes ${expected}`,
    );
  }
  const isColumns = fortranOrder && shape.filter((length) => length > 1).length > 1;
  const readRows = isColumns ? readFromColumns : readInOrder;
  return {
    dtype,
    rows,
    rowShape,
    read: async function* (from) {
      for await (const bytes of readRows(source, header, rowBytes, from)) {
        yield new Tensor(dtype, rowShape, toElements(name, header, bytes));
      }
    },
  };
}

async function* readInOrder(
  source: ByteSource,
  { shape, headerBytes }: NpyHeader,
  rowBytes: number,
  from: number,
): AsyncIterable<Uint8Array> {
  const reader = createReader(source.stream(headerBytes + from * rowBytes));
  try {
    for (let row = from; row < (shape[0] as number); row += 1) {
      const bytes = await reader.take(rowBytes);
      if (bytes === undefined) throw invalidData(source.name, `it ends in row ${row}`);
      yield bytes;
    }
  } finally {
    await reader.close();
  }
}

/** Column order: element `(i, j)` of an array of `rows` rows is the `(j · rows + i)`-th, and `j` itself runs backwards. */
async function* readFromColumns(
  packed: ByteSource,
  { shape, headerBytes, itemBytes }: NpyHeader,
  rowBytes: number,
  from: number,
): AsyncIterable<Uint8Array> {
  const [rows, ...rowShape] = shape as [number, ...number[]];
  const source = packed.seekable ? packed : await inMemory(packed);
  const places = placesInRow(rowShape);
  const blockRows = Math.max(1, Math.floor(blockBytes / rowBytes));
  // Where columns are short, reading whole ones is cheaper than many small reads.
  const columnBytes = rows * itemBytes;
  const columnsAtOnce = Math.max(1, Math.floor((1 << 13) / columnBytes));
  for (let first = from; first < rows; first += blockRows) {
    const count = Math.min(blockRows, rows - first);
    const block = new Uint8Array(count * rowBytes);
    for (let column = 0; column < places.length; column += columnsAtOnce) {
      const last = Math.min(column + columnsAtOnce, places.length) - 1;
      const start = column * columnBytes + first * itemBytes;
      const end = last * columnBytes + (first + count) * itemBytes;
      const piece = await source.read(headerBytes + start, end - start);
      for (let j = column; j <= last; j += 1) {
        const at = (j - column) * columnBytes;
        const place = (places[j] as number) * itemBytes;
        for (let row = 0; row < count; row += 1) {
          for (let byte = 0; byte < itemBytes; byte += 1) {
            block[row * rowBytes + place + byte] = piece[at + row * itemBytes + byte] as number;
          }
        }
      }
    }
    for (let row = 0; row < count; row += 1) yield block.subarray(row * rowBytes, (row + 1) * rowBytes);
  }
}

/** For each element of a row in column order: its place in row order. */
function placesInRow(shape: readonly number[]): readonly number[] {
  let places = [0];
  shape.forEach((length, axis) => {
    const stride = sizeOf(shape.slice(axis + 1));
    places = Array.from({ length }, (_, i) => places.map((place) => place + i * stride)).flat();
  });
  return places;
}

async function inMemory(source: ByteSource): Promise<ByteSource> {
  const { name, sizeBytes } = source;
  if (sizeBytes > inflatedCapBytes) {
    throw misshapenData(
      name,
      `is compressed and in column order, which takes ${sizeBytes} bytes of memory; save it with np.ascontiguousarray`,
    );
  }
  const bytes = await source.read(0, sizeBytes);
  return { ...source, read: async (start, length) => bytes.subarray(start, start + length) };
}

/** Turns the bytes of a row into elements that own their memory. */
function toElements(name: string, header: NpyHeader, bytes: Uint8Array): DTypeStorage[DType] {
  const { dtype, itemBytes, littleEndian, text } = header;
  const own = new Uint8Array(bytes);
  const unit = text === 'ucs4' ? 4 : itemBytes;
  if (!littleEndian && text !== 'bytes') swapBytes(own, unit);
  if (text !== undefined) return toTexts(name, own, itemBytes, text);
  if (dtype === 'bool' && own.some((value) => value > 1)) {
    throw invalidData(name, 'a bool is neither 0 nor 1');
  }
  const Storage = DTYPES[dtype].storage as new (buffer: ArrayBuffer) => TypedArray;
  return new Storage(own.buffer) as DTypeStorage[DType];
}

function swapBytes(bytes: Uint8Array<ArrayBuffer>, unit: number): void {
  const buffer = Buffer.from(bytes.buffer);
  if (unit === 2) buffer.swap16();
  else if (unit === 4) buffer.swap32();
  else if (unit === 8) buffer.swap64();
}

/** Text is padded with zeros at its end (numpy.dtype, "S" and "U"). */
function toTexts(name: string, bytes: Uint8Array, itemBytes: number, text: 'bytes' | 'ucs4'): string[] {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  const texts: string[] = [];
  for (let at = 0; at < bytes.length; at += itemBytes) {
    const item = bytes.subarray(at, at + itemBytes);
    try {
      texts.push((text === 'ucs4' ? fromUcs4(item) : decoder.decode(item)).replace(/\0+$/, ''));
    } catch (cause) {
      throw invalidData(
        name,
        `text ${texts.length} of a row is no valid ${text === 'ucs4' ? 'UCS-4' : 'UTF-8'}`,
        cause,
      );
    }
  }
  return texts;
}

function fromUcs4(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let text = '';
  for (let at = 0; at < bytes.length; at += 4) {
    const code = view.getUint32(at, true);
    if (code >= 0xd800 && code < 0xe000) throw new RangeError('A surrogate is no character.');
    text += String.fromCodePoint(code);
  }
  return text;
}
