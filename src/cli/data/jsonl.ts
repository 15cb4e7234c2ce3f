/** `.jsonl` files as rows: one JSON value per line (jsonlines.org). */
import type { FileHandle } from 'node:fs/promises';
import { basename } from 'node:path';
import { fileRange } from './byte-source.ts';
import { invalidData } from './faults.ts';
import type { Cell, DataFile, DataRow, JsonValue } from './rows.ts';

const lineCapBytes = 1 << 26;

/**
 * Opens a file of JSON lines. Each line is an object with one entry per column, or, where one column is read, its value
 * alone. Empty lines do not count. The file handle passes to the result.
 */
export async function openJsonlFile(file: FileHandle, path: string): Promise<DataFile> {
  const name = basename(path);
  const total = (await file.stat()).size;
  let position = 0;
  return {
    name,
    columns: undefined,
    together: [],
    extent: { unit: 'bytes', total, position: () => position },
    rows: async function* (columns, from): AsyncIterable<DataRow> {
      let index = 0;
      for await (const line of splitLines(fileRange(file, name, 0, total).stream(0), lineCapBytes)) {
        position = line.end;
        if (line.bytes !== undefined && isBlank(line.bytes)) continue;
        if (index >= from) yield toRow(name, index, line, columns);
        index += 1;
      }
    },
    close: () => file.close(),
  };
}

/** A line of a file, without its end. */
export interface Line {
  /** Counted from 1. */
  readonly number: number;
  /** Absent if the line is longer than the cap. */
  readonly bytes?: Uint8Array;
  /** Where the next line begins. */
  readonly end: number;
}

/** Splits a stream at line feeds, in memory bounded by the cap. A line end after the last line makes no further line. */
export async function* splitLines(stream: AsyncIterable<Uint8Array>, capBytes: number): AsyncIterable<Line> {
  let parts: Uint8Array[] = [];
  let length = 0;
  let number = 1;
  let end = 0;
  const takeLine = (): Line => {
    const line = { number, end, ...(length <= capBytes && { bytes: Buffer.concat(parts) }) };
    parts = [];
    length = 0;
    number += 1;
    return line;
  };
  const add = (part: Uint8Array): void => {
    length += part.length;
    end += part.length;
    if (length <= capBytes) parts.push(part);
    else parts = [];
  };
  for await (const piece of stream) {
    let at = 0;
    for (let feed = piece.indexOf(10); feed >= 0; feed = piece.indexOf(10, at)) {
      add(piece.subarray(at, feed));
      end += 1;
      yield takeLine();
      at = feed + 1;
    }
    if (at < piece.length) add(piece.subarray(at));
  }
  if (length > 0) yield takeLine();
}

function isBlank(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d);
}

function toRow(name: string, index: number, line: Line, columns: readonly string[]): DataRow {
  const place = `line ${line.number}`;
  const bad = (what: string): DataRow => ({
    index,
    place,
    cells: {},
    error: invalidData(`${place[0]?.toUpperCase()}${place.slice(1)} of ${name}`, what),
  });
  if (line.bytes === undefined) return bad(`it is longer than ${lineCapBytes} bytes`);
  let value: JsonValue;
  try {
    // A byte order mark, which some editors write, is dropped by the decoder.
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(line.bytes)) as JsonValue;
  } catch (error) {
    // The message of the parser quotes the line.
    return bad(error instanceof SyntaxError ? 'it is no JSON' : 'it is not UTF-8');
  }
  const cells: Record<string, Cell> = {};
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    const record = value as Readonly<Record<string, JsonValue>>;
    for (const column of columns) {
      const cell = Object.hasOwn(record, column) ? record[column] : undefined;
      if (cell !== undefined) cells[column] = { kind: 'json', value: cell };
    }
    return { index, place, cells };
  }
  const [only, second] = columns;
  if (only === undefined || second !== undefined) return bad('it is no object with one entry per input');
  return { index, place, cells: { [only]: { kind: 'json', value } } };
}
