/**
 * Golden inputs: what a release must answer before any call depends on it. The file is a target of the release, so what
 * it says is signed offline.
 *
 * `{"v":1,"cases":[{"inputs":{name:{"dtype","dims","data"}},"outputs":{…}}]}`, where `data` is the little-endian storage
 * of the tensor in base64, or the list of its strings.
 */

import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import type { TensorMap } from '../core/backend.ts';
import { DTYPES, isDType, sizeBytesOf, storageLength, type DType, type TypedArray } from '../core/dtype.ts';
import { TrustError } from '../core/errors.ts';
import { fromBfloat16Bits, fromFloat16Bits } from '../core/float.ts';
import { readElements, Tensor } from '../core/tensor.ts';
import { isFields, isSize, type Fields } from '../trust/parse.ts';
import { decodeBase64, encodeBase64 } from './golden-base64.ts';
import type { GoldenTolerance } from './manifest.ts';

/** Inputs, and the outputs that they must give. Outputs that are not named here may be anything. */
export interface GoldenCase {
  readonly inputs: TensorMap;
  readonly outputs: TensorMap;
}

/** What a golden file may be at most: it is read on every device, and run before every activation. */
export const goldenLimits: {
  readonly bytes: number;
  readonly cases: number;
  /** Inputs, and outputs, of one case. */
  readonly tensors: number;
  readonly rank: number;
} = { bytes: 2 ** 23, cases: 64, tensors: 64, rank: 32 };

/**
 * Reads a golden file.
 * @throws {@link TrustError} `ERR_INLAY_METADATA_INVALID` for one that is malformed or beyond {@link goldenLimits}.
 */
export function readGolden(bytes: Uint8Array): GoldenCase[] {
  demand(bytes.length <= goldenLimits.bytes, `it has more than ${goldenLimits.bytes} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(fromUtf8(bytes));
  } catch (cause) {
    throw malformed('it is no JSON', cause);
  }
  const file = fieldsOf(value, ['v', 'cases'], 'the file');
  demand(file['v'] === 1, 'its version is not 1');
  const cases = file['cases'];
  demand(Array.isArray(cases), 'it has no list of cases');
  demand(
    cases.length > 0 && cases.length <= goldenLimits.cases,
    `it has not 1 to ${goldenLimits.cases} cases`,
  );
  return cases.map((item: unknown, i) => {
    const { inputs, outputs } = fieldsOf(item, ['inputs', 'outputs'], `case ${i}`);
    const read = {
      inputs: tensorsOf(inputs, `inputs of case ${i}`),
      outputs: tensorsOf(outputs, `outputs of case ${i}`),
    };
    demand(Object.keys(read.outputs).length > 0, `case ${i} has no outputs`);
    return read;
  });
}

/**
 * Writes a golden file.
 * @throws `RangeError` for cases that {@link readGolden} would refuse.
 */
export function writeGolden(cases: readonly GoldenCase[]): Uint8Array<ArrayBuffer> {
  const bytes = toUtf8(
    JSON.stringify({
      v: 1,
      cases: cases.map(({ inputs, outputs }) => ({ inputs: describe(inputs), outputs: describe(outputs) })),
    }),
  );
  try {
    readGolden(bytes);
  } catch (error) {
    throw new RangeError('These golden cases do not make a file that devices read.', { cause: error });
  }
  return bytes;
}

/**
 * Compares what a release answers with what it must. Floats may differ by |a − b| ≤ absolute + relative · |b|, where b is
 * the golden value; infinity equals infinity of the same sign only, and NaN NaN only. Everything else is exact, 8-bit and
 * smaller floats, which have no plain numbers here, bit by bit.
 * @returns `undefined` if they agree, otherwise the first difference in words: output, element, got, want.
 */
export function compareGolden(
  actual: TensorMap,
  golden: TensorMap,
  tolerance: GoldenTolerance,
): string | undefined {
  for (const [name, want] of Object.entries(golden)) {
    const got = Object.hasOwn(actual, name) ? actual[name] : undefined;
    const found = got === undefined ? 'is missing' : differenceOf(got, want, tolerance);
    if (found !== undefined) return `output ${JSON.stringify(name)} ${found}`;
  }
  return undefined;
}

function differenceOf(got: Tensor, want: Tensor, tolerance: GoldenTolerance): string | undefined {
  if (got.dtype !== want.dtype) return `is ${got.dtype}, not ${want.dtype}`;
  if (got.shape.join() !== want.shape.join())
    return `has shape [${got.shape.join(', ')}], not [${want.shape.join(', ')}]`;
  const toNumber = FLOATS[want.dtype];
  const isPacked = DTYPES[want.dtype].bits > 0 && DTYPES[want.dtype].bits < 8;
  // What is left over in the last byte of packed elements may be anything.
  const a: ArrayLike<unknown> = isPacked ? readElements(got.dtype, got.data, got.size) : got.data;
  const b: ArrayLike<unknown> = isPacked ? readElements(want.dtype, want.data, want.size) : want.data;
  for (let i = 0; i < b.length; i += 1) {
    const x = toNumber ? toNumber(a[i] as number) : a[i];
    const y = toNumber ? toNumber(b[i] as number) : b[i];
    const isEqual = toNumber ? isNear(x as number, y as number, tolerance) : x === y;
    if (!isEqual) return `differs at element ${i}: got ${show(x)}, want ${show(y)}`;
  }
  return undefined;
}

function isNear(got: number, want: number, { absoluteE6, relativeE6 }: GoldenTolerance): boolean {
  if (got === want || (Number.isNaN(got) && Number.isNaN(want))) return true;
  // A share of infinity would allow any number.
  if (!Number.isFinite(want)) return false;
  return Math.abs(got - want) <= absoluteE6 / 1e6 + (relativeE6 / 1e6) * Math.abs(want);
}

function show(value: unknown): string {
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 40)) : String(value);
}

const same = (value: number): number => value;
/** How the stored elements of floats become numbers; complex ones are pairs of them. */
const FLOATS: Readonly<Partial<Record<DType, (stored: number) => number>>> = {
  float32: same,
  float64: same,
  complex64: same,
  complex128: same,
  float16: fromFloat16Bits,
  bfloat16: fromBfloat16Bits,
};

function describe(tensors: TensorMap): Fields {
  return Object.fromEntries(
    Object.entries(tensors).map(([name, { dtype, shape, data }]) => [
      name,
      {
        dtype,
        dims: shape,
        data: ArrayBuffer.isView(data)
          ? encodeBase64(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
          : data,
      },
    ]),
  );
}

function tensorsOf(value: unknown, where: string): TensorMap {
  demand(isFields(value), `the ${where} are no table`);
  const entries = Object.entries(value);
  demand(entries.length <= goldenLimits.tensors, `the ${where} are more than ${goldenLimits.tensors}`);
  return Object.fromEntries(
    entries.map(([name, item]) => [
      name,
      tensorOf(item, `${JSON.stringify(name.slice(0, 80))} of the ${where}`),
    ]),
  );
}

function tensorOf(value: unknown, where: string): Tensor {
  const { dtype, dims, data } = fieldsOf(value, ['dtype', 'dims', 'data'], where);
  demand(typeof dtype === 'string' && isDType(dtype), `${where} has no known dtype`);
  demand(
    Array.isArray(dims) && dims.length <= goldenLimits.rank && dims.every(isSize),
    `${where} has malformed dims`,
  );
  const size = dims.reduce((product: number, length: number) => product * length, 1);
  // More elements than that do not fit the file, and would only make the sizes below inexact.
  demand(size <= 8 * goldenLimits.bytes, `${where} is too large`);
  if (dtype === 'string') {
    demand(
      Array.isArray(data) && data.length === size && data.every((text) => typeof text === 'string'),
      `${where} has not ${size} strings`,
    );
    return new Tensor(dtype, dims, data);
  }
  const bytes = typeof data === 'string' ? decodeBase64(data) : undefined;
  demand(bytes?.length === sizeBytesOf(dtype, size), `${where} has not the data of ${size} elements`);
  demand(dtype !== 'bool' || bytes.every((byte) => byte <= 1), `${where} has a bool that is neither 0 nor 1`);
  const Storage = DTYPES[dtype].storage as new (
    buffer: ArrayBuffer,
    at: number,
    length: number,
  ) => TypedArray;
  return new Tensor<DType>(dtype, dims, new Storage(bytes.buffer, 0, storageLength(dtype, size)));
}

/** An object with these fields and no others. */
function fieldsOf(value: unknown, names: readonly string[], where: string): Fields {
  demand(
    isFields(value) &&
      names.every((name) => Object.hasOwn(value, name)) &&
      Object.keys(value).length === names.length,
    `${where} has not exactly the fields ${names.join(', ')}`,
  );
  return value;
}

function demand(holds: boolean, problem: string): asserts holds {
  if (!holds) throw malformed(problem);
}

function malformed(problem: string, cause?: unknown): TrustError {
  return new TrustError(
    'ERR_INLAY_METADATA_INVALID',
    `The golden file is malformed: ${problem}; publish the release anew.`,
    cause === undefined ? {} : { cause },
  );
}
