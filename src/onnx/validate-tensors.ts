/** Whether the constants of a model are what they say. */

import { sizeBytesOf, type DType } from '../core/dtype.ts';
import { ModelError } from '../core/errors.ts';
import type { Tensor } from '../core/tensor.ts';
import type { SparseTensorProto, TensorProto } from './messages.ts';
import { dtypeOf, elementsOf, externalReference, fromTensorProto, isExternal } from './tensors.ts';
import type { Problem, Report, ValidateOptions } from './validate.ts';

/** Checks constants. */
export interface TensorCheck {
  dense(tensor: TensorProto, path: string): void;
  sparse(tensor: SparseTensorProto, path: string): void;
}

/** Makes what checks constants: dims × dtype against payload, external paths, values that are not finite. */
export function createTensorCheck(
  { files, source, readsWeights = true, judged }: ValidateOptions,
  report: Report,
): TensorCheck {
  const offsetOf = ({ rawData }: TensorProto): { offset?: number } =>
    source !== undefined && rawData?.buffer === source.buffer
      ? { offset: rawData.byteOffset - source.byteOffset }
      : {};
  const dense = (proto: TensorProto, path: string): void => {
    const known = judged?.get(proto);
    if (known !== undefined) {
      for (const finding of known) report({ ...finding, path });
      return;
    }
    const problem = (severity: Problem['severity'], code: Problem['code'], message: string): void => {
      report({ severity, code, path, message, ...offsetOf(proto) });
    };
    try {
      if (isExternal(proto)) {
        const missing = missingOf(proto, files);
        if (missing !== undefined) problem('error', 'external-missing', missing);
        return;
      }
      if (!readsWeights && fits(proto)) return;
      const odd = oddityOf(fromTensorProto(proto));
      if (odd !== undefined)
        problem('warning', 'tensor-not-finite', `the constant "${proto.name ?? ''}" ${odd}`);
    } catch (error) {
      if (!(error instanceof ModelError)) throw error;
      const isKnown = error.code !== 'ERR_INLAY_MODEL_UNSUPPORTED';
      const code = isExternal(proto) ? 'external-invalid' : isKnown ? 'tensor-invalid' : 'tensor-unsupported';
      problem('error', code, toClause(error.message));
    }
  };
  return {
    dense,
    sparse: ({ values, indices, dims }, path) => {
      for (const [name, part] of Object.entries({ values, indices })) {
        if (part !== undefined) dense(part, `${path}.${name}`);
        else problemOf(report, path, `the sparse constant has no ${name}`);
      }
      if (dims.some((length) => length < 0)) {
        problemOf(report, path, `the sparse constant has the impossible shape [${dims.join(', ')}]`);
      }
    },
  };
}

function problemOf(report: Report, path: string, message: string): void {
  report({ severity: 'error', code: 'tensor-invalid', path, message });
}

/** Whether a payload is as long as its shape says, without a look at the elements. */
function fits(proto: TensorProto): boolean {
  const dtype = dtypeOf(proto);
  return dtype !== 'string' && proto.rawData?.length === sizeBytesOf(dtype, elementsOf(proto));
}

function missingOf(proto: TensorProto, files: ValidateOptions['files']): string | undefined {
  const { location, offsetBytes, lengthBytes } = externalReference(proto);
  const name = proto.name ?? '';
  const needed = sizeBytesOf(dtypeOf(proto), elementsOf(proto));
  if (lengthBytes !== needed) {
    throw new ModelError(
      'ERR_INLAY_MODEL_INVALID',
      `The constant "${name}" needs ${needed} bytes, but its external length is ${lengthBytes}.`,
    );
  }
  if (files === undefined) return undefined;
  const size = files.get(location);
  if (size === undefined)
    return `the constant "${name}" is in the file "${location}", which is not in the model's folder`;
  const end = offsetBytes + lengthBytes;
  return end <= size
    ? undefined
    : `the constant "${name}" ends at byte ${end} of the file "${location}", which has only ${size}`;
}

/** What is not finite in a constant. A single infinity is a mask or a bound, and meant. */
function oddityOf({ dtype, data, size }: Tensor): string | undefined {
  const fraction = FRACTION_BITS[dtype];
  const isWide = dtype === 'float32' || dtype === 'float64';
  if (!isWide && fraction === undefined) return undefined;
  const { nans, infinities } = isWide
    ? countWide(data as Float32Array | Float64Array)
    : countNarrow(data as Uint16Array, fraction ?? 0);
  if (nans > 0) return `holds ${nans} NaN`;
  return infinities > 0 && size > 1
    ? `holds ${infinities} infinite ${infinities === 1 ? 'value' : 'values'}`
    : undefined;
}

/** Bits of the fraction of 16-bit floats, which are held as bit patterns. */
const FRACTION_BITS: Partial<Record<DType, number>> = { float16: 0x3ff, bfloat16: 0x7f };

interface Oddities {
  readonly nans: number;
  readonly infinities: number;
}

// Loops by index: iterators take several times as long, and weights have millions of elements.
function countWide(data: Float32Array | Float64Array): Oddities {
  let nans = 0;
  let infinities = 0;
  for (let i = 0; i < data.length; i += 1) {
    const value = data[i] as number;
    // The difference of a number with itself is zero only if it is finite.
    if (value - value === 0) continue;
    if (Number.isNaN(value)) nans += 1;
    else infinities += 1;
  }
  return { nans, infinities };
}

function countNarrow(data: Uint16Array, fraction: number): Oddities {
  const exponent = 0x7fff & ~fraction;
  let nans = 0;
  let infinities = 0;
  for (let i = 0; i < data.length; i += 1) {
    const bits = data[i] as number;
    if ((bits & exponent) !== exponent) continue;
    if ((bits & fraction) !== 0) nans += 1;
    else infinities += 1;
  }
  return { nans, infinities };
}

function toClause(sentence: string): string {
  return `${sentence.charAt(0).toLowerCase()}${sentence.slice(1).replace(/\.$/, '')}`;
}
