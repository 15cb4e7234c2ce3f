/** `.csv` files as rows (RFC 4180), with the names of the columns in their first line. */
import type { FileHandle } from 'node:fs/promises';
import { basename } from 'node:path';
import { pipeline, Readable } from 'node:stream';
import { CsvError, parse } from 'csv-parse';
import { fileRange } from './byte-source.ts';
import { invalidData } from './faults.ts';
import { parseNumber } from './numbers.ts';
import type { Cell, DataFile, DataRow } from './rows.ts';

const recordCapBytes = 1 << 26;

interface CsvRecord {
  readonly record: readonly string[];
  readonly info: { readonly lines: number; readonly bytes: number };
}

/**
 * Opens a CSV file. Columns that hold a number in the first row stand together for the only input of a model. Empty
 * lines do not count. The file handle passes to the result.
 * @throws {@link InputError} `ERR_INLAY_FEED_VALUE` if there is no header, or it has a name twice.
 */
export async function openCsvFile(file: FileHandle, path: string): Promise<DataFile> {
  const name = basename(path);
  const total = (await file.stat()).size;
  const read = (): AsyncIterable<CsvRecord> => readRecords(name, fileRange(file, name, 0, total).stream(0));
  let columns: readonly string[] | undefined;
  let first: readonly string[] = [];
  for await (const { record } of read()) {
    if (columns !== undefined) {
      first = record;
      break;
    }
    columns = record.map((column) => column.trim());
  }
  if (columns === undefined) throw invalidData(name, 'it is empty; its first line names the columns');
  const twice = columns.find((column, index) => columns.indexOf(column) !== index);
  if (twice !== undefined) throw invalidData(name, `its first line names the column "${twice}" twice`);
  const all = columns;
  let position = 0;
  return {
    name,
    columns: all,
    together: all.filter((_, index) => parseNumber(first[index] ?? '') !== undefined),
    extent: { unit: 'bytes', total, position: () => position },
    rows: async function* (chosen, from): AsyncIterable<DataRow> {
      const places = chosen.map((column) => [column, all.indexOf(column)] as const);
      // The header is record -1.
      let index = -1;
      for await (const { record, info } of read()) {
        position = info.bytes;
        if (index >= from) yield toRow(name, index, info.lines, record, all, places);
        index += 1;
      }
    },
    close: () => file.close(),
  };
}

function toRow(
  name: string,
  index: number,
  line: number,
  record: readonly string[],
  all: readonly string[],
  places: readonly (readonly [string, number])[],
): DataRow {
  const place = `line ${line}`;
  if (record.length !== all.length) {
    const error = invalidData(
      `Line ${line} of ${name}`,
      `it has ${record.length} fields, but the header ${all.length}`,
    );
    return { index, place, cells: {}, error };
  }
  const cells = places.map(([column, at]): [string, Cell] => [
    column,
    { kind: 'text', text: record[at] as string },
  ]);
  return { index, place, cells: Object.fromEntries(cells) };
}

async function* readRecords(name: string, stream: AsyncIterable<Uint8Array>): AsyncIterable<CsvRecord> {
  const parser = parse({
    bom: true,
    info: true,
    relax_column_count: true,
    skip_empty_lines: true,
    max_record_size: recordCapBytes,
  });
  // What goes wrong in the pipeline reaches the loop below through the parser.
  pipeline(Readable.from(assertUtf8(name, stream)), parser, () => {});
  try {
    yield* parser as AsyncIterable<CsvRecord>;
  } catch (cause) {
    if (!(cause instanceof CsvError)) throw cause;
    // Its message may quote the field.
    throw invalidData(name, `it is no CSV at line ${parser.info.lines} (${cause.code})`);
  } finally {
    parser.destroy();
  }
}

/** The parser would put replacement characters for what is no UTF-8. */
async function* assertUtf8(name: string, stream: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  try {
    for await (const piece of stream) {
      decoder.decode(piece, { stream: true });
      yield piece;
    }
    decoder.decode();
  } catch (cause) {
    throw cause instanceof TypeError ? invalidData(name, 'it is not UTF-8', cause) : cause;
  }
}
