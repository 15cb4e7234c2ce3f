/** Data files as rows of cells, whatever their format. */
import type { Tensor } from '../../core/tensor.ts';

/** A value as JSON has it. */
export type JsonValue =
  | null
  | boolean
  | number
  | string
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue };

/** One value of a row: a slice of an array, a value of JSON, or the text of a CSV field. */
export type Cell =
  | { readonly kind: 'tensor'; readonly tensor: Tensor }
  | { readonly kind: 'json'; readonly value: JsonValue }
  | { readonly kind: 'text'; readonly text: string };

/** One sample: its cells by column, or why there are none. */
export interface DataRow {
  readonly index: number;
  /** Where it stands in the file, for messages: `line 4`. */
  readonly place: string;
  readonly cells: Readonly<Record<string, Cell>>;
  readonly error?: Error;
}

/** A data file. */
export interface DataFile {
  /** Name for messages. */
  readonly name: string;
  /** Names of the columns; `undefined` where each row says its own. */
  readonly columns: readonly string[] | undefined;
  /** The columns that stand together for the only input of a model which is not called like one of them. */
  readonly together: readonly string[];
  /** How far reading has come, for progress: in rows where their number is known, else in bytes. */
  readonly extent: { readonly unit: 'rows' | 'bytes'; readonly total: number; position(): number };
  /**
   * Reads rows in order, as many as are asked for. What is wrong with the file as a whole throws before the first row.
   * @param columns - those to read.
   * @param from - number of rows to leave out.
   */
  rows(columns: readonly string[], from: number): AsyncIterable<DataRow>;
  close(): Promise<void>;
}
