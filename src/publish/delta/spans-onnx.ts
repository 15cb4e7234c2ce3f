/** Tensors of an ONNX file, wherever it holds them: the wire format is walked, and nothing is decoded or copied. */
import { showUtf8 } from '../../core/bytes.ts';
import { dtypeFromOnnx, type DType } from '../../core/dtype.ts';
import { isInlayError } from '../../core/errors.ts';
import { decodeMessage } from '../../onnx/decode.ts';
import { TENSOR_FIELDS } from '../../onnx/map-tensors.ts';
import type { MessageName } from '../../onnx/messages.ts';
import { externalReference, isExternal } from '../../onnx/tensors.ts';
import {
  createCursor,
  MAX_DEPTH,
  readBytes,
  readInt32,
  readLength,
  readSafeInt,
  readTag,
  skipField,
  WIRE,
  type Cursor,
} from '../../onnx/wire.ts';
import type { NumberKind } from '../../update/delta/head.ts';
import type { Span } from './spans.ts';

const kinds: Partial<Record<DType, NumberKind>> = {
  float32: 'float32',
  float16: 'float16',
  bfloat16: 'bfloat16',
  int8: 'int8',
  uint8: 'int8',
  bool: 'int8',
  float8e4m3fn: 'int8',
  float8e4m3fnuz: 'int8',
  float8e5m2: 'int8',
  float8e5m2fnuz: 'int8',
  int4: 'int4',
  uint4: 'int4',
  float4e2m1: 'int4',
};

const unsigned: ReadonlySet<DType> = /* @__PURE__ */ new Set<DType>(['uint8', 'uint4']);

/** Fields of a `TensorProto` (onnx.proto). */
const DIMS = 1;
const DATA_TYPE = 2;
const FLOAT_DATA = 4;
const NAME = 8;
const RAW_DATA = 9;

/** Field of a `NodeProto`. */
const OP_TYPE = 4;
/** Weights in blocks. */
const BLOCKS = 'MatMulNBits';

/** @returns `undefined` if the file is no ONNX model. */
export function onnxSpans(file: Uint8Array): readonly Span[] | undefined {
  const spans: Span[] = [];
  const halves = new Set<string>();
  const isModel = visit(file, {
    tensor: (cursor) => {
      const span = spanOf(cursor);
      if (span) spans.push(span);
    },
    node: (cursor) => addHalves(cursor, halves),
  });
  return isModel ? spans.map((span) => toHalves(span, halves)) : undefined;
}

/**
 * Remembers the weights and zero points of `MatMulNBits` with 4 bits: bytes of two numbers each
 * (onnxruntime docs/ContribOperators.md).
 */
function addHalves({ bytes, at, end }: Cursor, halves: Set<string>): void {
  const cursor = { ...createCursor(bytes), at, end };
  let isBlocks = false;
  while (cursor.at < end && !isBlocks) {
    const tag = readTag(cursor);
    if (tag >>> 3 === OP_TYPE && (tag & 7) === WIRE.bytes) isBlocks = showUtf8(readBytes(cursor)) === BLOCKS;
    else skipField(cursor, tag);
  }
  if (!isBlocks) return;
  const { input, attribute } = decodeMessage('NodeProto', bytes.subarray(at, end));
  if (Number(attribute.find(({ name }) => name === 'bits')?.i ?? 4) !== 4) return;
  for (const name of [input[1], input[3]]) if (name !== undefined && name !== '') halves.add(name);
}

/** Unsigned numbers of 4 bits, about 8, that are stored as bytes. */
function toHalves(span: Span, halves: ReadonlySet<string>): Span {
  const { name, numbers, isUnsigned, shape } = span;
  if (numbers !== 'int8' || isUnsigned !== true || !halves.has(name) || shape.length === 0) return span;
  return { ...span, numbers: 'int4', shape: [...shape.slice(0, -1), 2 * (shape.at(-1) ?? 0)] };
}

/**
 * Finds the tensors that a model keeps in a data file beside it.
 * @param location - the data file's name, as the model has it.
 */
export function externalSpans(model: Uint8Array, location: string): readonly Span[] {
  const spans: Span[] = [];
  const halves = new Set<string>();
  const tensor = ({ bytes, at, end }: Cursor): void => {
    const proto = decodeMessage('TensorProto', bytes.subarray(at, end));
    if (!isExternal(proto)) return;
    const reference = externalReference(proto);
    const dtype = dtypeFromOnnx(proto.dataType ?? 0) ?? 'string';
    const numbers = kinds[dtype];
    if (reference.location !== location || numbers === undefined) return;
    const { offsetBytes, lengthBytes } = reference;
    const { name = '', dims } = proto;
    const place = { offset: offsetBytes, sizeBytes: lengthBytes };
    spans.push({ name, numbers, isUnsigned: unsigned.has(dtype), shape: dims, ...place });
  };
  visit(model, { tensor, node: (cursor) => addHalves(cursor, halves) });
  return spans.map((span) => toHalves(span, halves));
}

interface Visitor {
  tensor(cursor: Cursor): void;
  node(cursor: Cursor): void;
}

/** @returns whether the file is a model. */
function visit(file: Uint8Array, { tensor, node }: Visitor): boolean {
  const cursor = createCursor(file);
  const walk = (name: MessageName, depth: number): void => {
    const leading = TENSOR_FIELDS[name];
    while (cursor.at < cursor.end) {
      const tag = readTag(cursor);
      const field = leading.find(({ number }) => number === tag >>> 3);
      if (field === undefined || (tag & 7) !== WIRE.bytes || depth > MAX_DEPTH) {
        skipField(cursor, tag);
        continue;
      }
      const length = readLength(cursor);
      const { at, end } = cursor;
      const inner = { ...cursor, end: at + length };
      if (field.kind === 'TensorProto') tensor(inner);
      else {
        if (field.kind === 'NodeProto') node(inner);
        cursor.end = at + length;
        walk(field.kind as MessageName, depth + 1);
        cursor.end = end;
      }
      cursor.at = at + length;
    }
  };
  try {
    walk('ModelProto', 1);
    return true;
  } catch (error) {
    if (isInlayError(error)) return false;
    throw error;
  }
}

function spanOf(cursor: Cursor): Span | undefined {
  const shape: number[] = [];
  let name = '';
  let dataType = 0;
  let place: { readonly offset: number; readonly sizeBytes: number } | undefined;
  while (cursor.at < cursor.end) {
    const tag = readTag(cursor);
    const field = tag >>> 3;
    const isBytes = (tag & 7) === WIRE.bytes;
    if (field === DIMS && !isBytes) shape.push(readSafeInt(cursor));
    else if (field === DIMS) {
      const length = readLength(cursor);
      const end = cursor.at + length;
      while (cursor.at < end) shape.push(readSafeInt(cursor));
    } else if (field === DATA_TYPE && !isBytes) dataType = readInt32(cursor);
    else if (field === NAME && isBytes) name = showUtf8(readBytes(cursor));
    else if ((field === RAW_DATA || field === FLOAT_DATA) && isBytes) {
      const { length } = readBytes(cursor);
      place = { offset: cursor.at - length, sizeBytes: length };
    } else skipField(cursor, tag);
  }
  const dtype = dtypeFromOnnx(dataType) ?? 'string';
  const numbers = kinds[dtype];
  return numbers && place && { name, numbers, isUnsigned: unsigned.has(dtype), shape, ...place };
}
