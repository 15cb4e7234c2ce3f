/** What a patch of Inlay's own format says of itself (docs/spec/idp.md). Encoder and decoder share these types. */

/** Ways to make a segment, in the order of their codes. */
export const MODES = ['same', 'raw', 'packed', 'self', 'delta', 'update', 'grid'] as const;

/** Numbers that a segment holds, in the order of their codes. */
export const NUMBER_KINDS = ['float32', 'float16', 'bfloat16', 'int8', 'int4'] as const;
/** Kind of the numbers of a segment; `int8` and `int4` stand for unsigned ones as well. */
export type NumberKind = (typeof NUMBER_KINDS)[number];

/** Predictors in the order of their codes. */
export const PREDICTORS = ['same', 'gain', 'low-rank', 'requantized', 'requantized-unsigned'] as const;
/**
 * How what is expected comes from the base: the number there, that times a gain of its row, that plus a product of two
 * thin matrices, or an integer requantized by a gain, which is taken as signed (two's complement) or as unsigned about
 * the middle (128 or 8).
 */
export type Predictor = (typeof PREDICTORS)[number];

/** Two thin matrices of whole numbers, whose product is added to a tensor of the base. */
export interface Factors {
  /** Columns of the first and rows of the second. */
  readonly rank: number;
  /** Bytes of each number. */
  readonly width: number;
  /** Of their bytes: a context for each byte of a number, the highest first. */
  readonly table: number;
}

/** Which of the probabilities hold for a number. */
export type PatchContext =
  | { readonly kind: 'constant'; readonly context: number }
  | { readonly kind: 'scales'; readonly bias: number; readonly sideTable: number }
  | { readonly kind: 'fraction' };

/** Numbers in C order. */
export interface NumberShape {
  readonly numbers: NumberKind;
  readonly rows: number;
  readonly columns: number;
}

/** One multiple of a step that an update adds. */
export interface Layer {
  readonly step: number;
  readonly table: number;
}

/** A run of bytes of the file that comes out, and how they come about. */
export type Segment =
  | { readonly mode: 'same'; readonly baseOffset: number; readonly sizeBytes: number }
  | { readonly mode: 'raw'; readonly sizeBytes: number }
  | { readonly mode: 'packed'; readonly sizeBytes: number; readonly table: number }
  | (NumberShape & { readonly mode: 'self'; readonly context: PatchContext; readonly table: number })
  | (NumberShape & {
      readonly mode: 'delta';
      readonly baseOffset: number;
      readonly predictor: Predictor;
      /** Of the predictor `low-rank`, and of no other. */
      readonly factors?: Factors | undefined;
      readonly context: PatchContext;
      readonly table: number;
    })
  | (NumberShape & {
      readonly mode: 'update';
      readonly baseOffset: number;
      readonly predictor: Predictor;
      readonly context: PatchContext;
      readonly layers: readonly Layer[];
    })
  | (NumberShape & {
      readonly mode: 'grid';
      /** Exponent field of the power of two that all numbers are whole multiples of, 1 to 254. */
      readonly exponent: number;
      readonly context: PatchContext;
      readonly table: number;
    });

/** A segment of numbers. */
export type NumberSegment = Extract<Segment, NumberShape>;

/** A piece of payload. */
export interface PatchBlock {
  readonly sizeBytes: number;
  /** 32 bytes. */
  readonly sha256: Uint8Array;
}

/** Frequencies of symbols by context, of 4096: `contexts * symbols` of them. */
export interface FrequencyTable {
  readonly symbols: number;
  readonly frequencies: Uint16Array;
}

/** The head of a patch. */
export interface PatchHead {
  /** SHA-256, 32 bytes; all zero: there is no base. */
  readonly base: Uint8Array;
  readonly target: Uint8Array;
  readonly baseBytes: number;
  readonly targetBytes: number;
  readonly tables: readonly FrequencyTable[];
  readonly segments: readonly Segment[];
  readonly blocks: readonly PatchBlock[];
}

/** Numbers in a block of the modes `self`, `delta` and `grid`. */
export const NUMBERS_PER_BLOCK = 65_536;
/** Numbers in a block of the mode `update`. */
export const UPDATES_PER_BLOCK = 262_144;
/** Bytes in a block of the modes `raw` and `packed`. */
export const BYTES_PER_BLOCK = 262_144;
