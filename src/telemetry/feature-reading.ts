/** Reads features off tensors, at a bounded cost whatever their size. */

import { DTYPES, type DType } from '../core/dtype.ts';
import { fromBfloat16Bits, fromFloat16Bits } from '../core/float.ts';
import type { Tensor } from '../core/tensor.ts';
import type { FeatureReading } from './profile.ts';

/** What a feature was in a call: a number, NaN for null, or text. */
export type FeatureValue = number | string;
/** Is told each value of a call. */
export type Visit = (value: FeatureValue) => void;

/** Elements that are looked at in one call, evenly spaced over the tensor. */
const MOST_ELEMENTS = 256;
/** Elements that scores may take in one call: rows beyond are left out, evenly; a longer row is null. */
const MOST_SCORES = 4096;
const LONGEST_ROW = 8192;

/**
 * Reads a feature of one call.
 * @param tensor - absent, empty or of a type without numbers: the value is null. One whose memory was handed over has no
 * values, which is no null.
 */
export function readFeature(reading: FeatureReading, tensor: Tensor | undefined, visit: Visit): void {
  const size = tensor?.size ?? 0;
  if (reading === 'size' && tensor !== undefined) visit(size);
  else if (tensor === undefined || size === 0) visit(Number.NaN);
  else if (tensor.data.length > 0) readings[reading](tensor, size, visit);
}

/** The first value of a call, that of the first row; null where there is none. */
export function readFirst(reading: FeatureReading, tensor: Tensor | undefined): FeatureValue {
  let first: FeatureValue | undefined;
  readFeature(reading, tensor, (value) => {
    first ??= value;
  });
  return first ?? Number.NaN;
}

type Reading = (tensor: Tensor, size: number, visit: Visit) => void;

const readings: Readonly<Record<FeatureReading, Reading>> = {
  elements: (tensor, size, visit) => {
    const at = elementOf(tensor.dtype);
    const looked = Math.min(size, MOST_ELEMENTS);
    for (let i = 0; i < looked; i += 1) visit(at(tensor.data, Math.floor((i * size) / looked)));
  },
  mean: (tensor, size, visit) => {
    visit(momentsOf(tensor, size).mean);
  },
  std: (tensor, size, visit) => {
    visit(momentsOf(tensor, size).std);
  },
  size: (_, size, visit) => {
    visit(size);
  },
  argmax: (tensor, size, visit) => {
    forRows(tensor, size, visit, (best) => best);
  },
  max: (tensor, size, visit) => {
    forRows(tensor, size, visit, (_, value) => value);
  },
};

/** Mean and standard deviation of the elements that are looked at, after Welford (1962). */
function momentsOf(tensor: Tensor, size: number): { readonly mean: number; readonly std: number } {
  const at = elementOf(tensor.dtype);
  const looked = Math.min(size, MOST_ELEMENTS);
  let mean = 0;
  let squares = 0;
  for (let i = 0; i < looked; i += 1) {
    const element = at(tensor.data, Math.floor((i * size) / looked));
    const value = typeof element === 'number' ? element : Number.NaN;
    const off = value - mean;
    mean += off / (i + 1);
    squares += off * (value - mean);
  }
  return { mean, std: Math.sqrt(squares / looked) };
}

/** Finds the largest element of each row of the last axis; the first of several, and none where all are NaN. */
function forRows(
  tensor: Tensor,
  size: number,
  visit: Visit,
  pick: (index: number, value: number) => number,
): void {
  const at = elementOf(tensor.dtype);
  const width = tensor.shape.at(-1) ?? 1;
  if (width > LONGEST_ROW || tensor.dtype === 'string') {
    visit(Number.NaN);
    return;
  }
  const rows = size / width;
  const looked = Math.min(rows, MOST_ELEMENTS, Math.max(1, Math.floor(MOST_SCORES / width)));
  for (let row = 0; row < looked; row += 1) {
    const from = Math.floor((row * rows) / looked) * width;
    let best = Number.NaN;
    let most = -Infinity;
    for (let i = 0; i < width; i += 1) {
      const value = at(tensor.data, from + i) as number;
      if (value > most || (value === -Infinity && Number.isNaN(best))) {
        best = i;
        most = value;
      }
    }
    visit(Number.isNaN(best) ? best : pick(best, most));
  }
}

type ElementOf = (data: Tensor['data'], index: number) => FeatureValue;

/** How one element of a dtype is read without unpacking the others. */
function elementOf(dtype: DType): ElementOf {
  const { kind, bits } = DTYPES[dtype];
  if (dtype === 'float16') return (data, index) => fromFloat16Bits(data[index] as number);
  if (dtype === 'bfloat16') return (data, index) => fromBfloat16Bits(data[index] as number);
  // Small floats and complex numbers have no plain form.
  if (kind === 'complex' || (kind === 'float' && bits < 16)) return () => Number.NaN;
  if (bits === 64 && kind !== 'float') return (data, index) => Number(data[index]);
  if (bits === 0 || bits >= 8) return (data, index) => data[index] as FeatureValue;
  const perByte = 8 / bits;
  const span = 2 ** bits;
  return (data, index) => {
    const byte = data[Math.floor(index / perByte)] as number;
    const field = (byte >> ((index % perByte) * bits)) & (span - 1);
    return kind === 'int' && field >= span / 2 ? field - span : field;
  };
}
