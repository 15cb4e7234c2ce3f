/** How far the answers of one model are from those of another. */

import type { TensorMap } from '../core/backend.ts';
import { DTYPES, type DType } from '../core/dtype.ts';
import type { Tensor } from '../core/tensor.ts';
import { createFloats, type FloatFigures } from './compare-floats.ts';

/** One output in two models, over all samples. */
export interface OutputComparison {
  readonly name: string;
  /** In the first model. */
  readonly dtype: DType;
  /** Elements of the first model's output. */
  readonly elements: number;
  /** Whether every element is the same, bit for bit but for the sign of NaN. */
  readonly isIdentical: boolean;
  /**
   * Signal-to-noise ratio of floats, dB: 20·log10 ‖x‖ / ‖x − y‖ over all samples, `Infinity` where the values are equal, and
   * `-Infinity` where they cannot be compared; absent for other dtypes.
   */
  readonly sqnrDb?: number;
  /** Cosine of the angle between floats, over all samples. */
  readonly cosine?: number;
  /** Largest absolute difference of floats. */
  readonly maxAbs?: number;
  /**
   * Share in [0, 1] of the rows along the last axis whose largest element is in the same place; of all elements that are
   * equal where they are no floats. Absent where the last axis has one element only.
   */
  readonly agreement?: number;
}

/** What makes outputs differ in kind. */
export interface ComparisonFinding {
  readonly output: string;
  readonly kind: 'missing' | 'dtype' | 'shape' | 'not-finite';
  /** For people, one clause. */
  readonly message: string;
}

/** Answers of two models to the same samples. */
export interface Comparison {
  readonly samples: number;
  /** Least of the outputs' ratios, dB; `Infinity` where all are equal. */
  readonly sqnrDb: number;
  /** Least of the outputs' agreements; absent where none has one. */
  readonly agreement?: number;
  readonly outputs: readonly OutputComparison[];
  /** What was seen, each once for each output. */
  readonly findings: readonly ComparisonFinding[];
}

/** Compares sample by sample, in memory that does not grow. */
export interface Comparer {
  add(expected: TensorMap, actual: TensorMap): void;
  result(): Comparison;
}

/** Starts a comparison. */
export function createComparer(): Comparer {
  const outputs = new Map<string, OutputComparer>();
  const findings = new Map<string, ComparisonFinding>();
  let samples = 0;
  const find = (output: string, kind: ComparisonFinding['kind'], message: string): void => {
    const key = `${kind} ${output}`;
    if (!findings.has(key)) findings.set(key, { output, kind, message });
  };
  return {
    add: (expected, actual) => {
      samples += 1;
      for (const [name, tensor] of Object.entries(expected)) {
        let output = outputs.get(name);
        if (output === undefined) {
          output = createOutput(name, tensor.dtype, (kind, message) => find(name, kind, message));
          outputs.set(name, output);
        }
        output.add(tensor, actual[name]);
      }
    },
    result: () => {
      const compared = Array.from(outputs.values(), (output) => output.result());
      const agreements = compared.flatMap(({ agreement }) => agreement ?? []);
      return {
        samples,
        sqnrDb: Math.min(...compared.map(({ sqnrDb = Number.POSITIVE_INFINITY }) => sqnrDb)),
        ...(agreements.length > 0 && { agreement: Math.min(...agreements) }),
        outputs: compared,
        findings: [...findings.values()],
      };
    },
  };
}

/**
 * Compares answers to the same samples, in order.
 * @throws `RangeError` if there are more on one side.
 */
export function compareOutputs(expected: readonly TensorMap[], actual: readonly TensorMap[]): Comparison {
  if (expected.length !== actual.length) {
    throw new RangeError(`${expected.length} answers cannot be compared with ${actual.length}.`);
  }
  const comparer = createComparer();
  expected.forEach((outputs, sample) => {
    comparer.add(outputs, actual[sample] ?? {});
  });
  return comparer.result();
}

interface OutputComparer {
  add(expected: Tensor, actual: Tensor | undefined): void;
  result(): OutputComparison;
}

/** Compares one output. Sums of squares are of float64, which squares of float32 do not overflow. */
function createOutput(
  name: string,
  dtype: DType,
  find: (kind: ComparisonFinding['kind'], message: string) => void,
): OutputComparer {
  const isFloat = DTYPES[dtype].kind === 'float' && DTYPES[dtype].bits >= 16;
  const floats = createFloats(find);
  let elements = 0;
  let rows = 0;
  let agreeing = 0;
  let isIdentical = true;
  let isComparable = true;

  const refuse = (expected: Tensor, kind: ComparisonFinding['kind'], message: string): void => {
    find(kind, message);
    isComparable = false;
    isIdentical = false;
    rows += isFloat ? rowsOf(expected) : expected.size;
  };
  return {
    add: (expected, actual) => {
      elements += expected.size;
      if (actual === undefined) return refuse(expected, 'missing', 'is missing in the second model');
      const shape = actual.shape.join(', ');
      if (expected.shape.join(', ') !== shape) {
        return refuse(expected, 'shape', `is of shape [${shape}], not [${expected.shape.join(', ')}]`);
      }
      if (expected.dtype !== actual.dtype) {
        const message = `is ${actual.dtype}, not ${expected.dtype}`;
        const { kind, bits } = DTYPES[actual.dtype];
        if (!isFloat || kind !== 'float' || bits < 16) return refuse(expected, 'dtype', message);
        find('dtype', message);
        isIdentical = false;
      }
      if (isFloat) {
        const seen = floats.add(expected, actual);
        rows += seen.rows;
        agreeing += seen.agreeing;
        isIdentical &&= seen.isIdentical;
        return;
      }
      const before = agreeing;
      for (let i = 0; i < expected.data.length; i += 1)
        if (expected.data[i] === actual.data[i]) agreeing += 1;
      rows += expected.data.length;
      isIdentical &&= agreeing - before === expected.data.length;
    },
    result: () => ({
      name,
      dtype,
      elements,
      isIdentical,
      ...(isFloat && (isComparable ? floats.figures() : INCOMPARABLE)),
      ...(rows > 0 && { agreement: agreeing / rows }),
    }),
  };
}

const INCOMPARABLE: FloatFigures = { sqnrDb: Number.NEGATIVE_INFINITY, cosine: 0, maxAbs: Infinity };

/** Rows along the last axis that have a largest element. */
function rowsOf({ shape, size }: Tensor): number {
  const width = shape.at(-1) ?? 1;
  return width > 1 ? size / width : 0;
}
