/** Where the numbers of a model lie in its file. What lies between them is glue. */
import { NUMBER_BITS } from '../../update/delta/bounds.ts';
import type { NumberKind } from '../../update/delta/head.ts';
import { onnxSpans } from './spans-onnx.ts';
import { safetensorsSpans } from './spans-safetensors.ts';
import { tfjsSpans } from './spans-tfjs.ts';

/** A tensor in a file. */
export interface Span {
  readonly name: string;
  readonly numbers: NumberKind;
  /** Whether integers are unsigned about their middle. */
  readonly isUnsigned?: boolean;
  /** Axes, as the file states them; their product is the count of numbers, at least 1. */
  readonly shape: readonly number[];
  /** Position of the first byte in the file. */
  readonly offset: number;
  readonly sizeBytes: number;
}

/**
 * Finds the tensors of a file, in the order of the file; they do not overlap. ONNX, safetensors and models of TensorFlow.js in a
 * ZIP archive that stores them are known; a file of another format, and one that is malformed, has none: it is glue altogether.
 */
export function segmentsOf(file: Uint8Array): readonly Span[] {
  return inOrder(safetensorsSpans(file) ?? tfjsSpans(file) ?? onnxSpans(file) ?? [], file.length);
}

/** Sorts tensors by where they lie. Left out is what is not as long as its shape says, or overlaps the one before. */
export function inOrder(spans: readonly Span[], fileBytes: number): readonly Span[] {
  let end = 0;
  const sorted = [...spans].sort((a, b) => a.offset - b.offset);
  return sorted.filter(({ offset, sizeBytes, shape, numbers }) => {
    const count = shape.reduce((product, length) => product * length, 1);
    const isExact = count > 0 && count * NUMBER_BITS[numbers] === sizeBytes * 8;
    // Two numbers share a byte, and a row has to end with one.
    const isWhole = numbers !== 'int4' || (shape.at(-1) ?? 1) % 2 === 0;
    if (!isExact || !isWhole || offset < end || offset + sizeBytes > fileBytes) return false;
    end = offset + sizeBytes;
    return true;
  });
}
