/** Model files: bytes to messages and back. */
import { toHex } from '../core/bytes.ts';
import { isInlayError, ModelError } from '../core/errors.ts';
import { decodeMessage } from './decode.ts';
import { encodeMessage } from './encode.ts';
import type { ModelProto } from './messages.ts';
import { FIELDS } from './schema.ts';

/**
 * Reads an ONNX model. Nothing is copied: `rawData` and other byte fields are views into `bytes`, so the caller leaves
 * those alone as long as the model is used.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_TRUNCATED` if the bytes end early, `ERR_INLAY_MODEL_INVALID` if they are
 * no ONNX model; `details.offset` is the byte at fault.
 */
export function parseModel(bytes: Uint8Array): ModelProto {
  if (!ArrayBuffer.isView(bytes)) throw new TypeError('A model is parsed from a Uint8Array.');
  // A plain view: `subarray` of a Node Buffer would give Buffers.
  const plain = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    return assertComplete(decodeMessage('ModelProto', plain), plain.length);
  } catch (error) {
    throw explain(error, plain);
  }
}

/**
 * Tells apart what is damaged and what never was a model.
 * @param head The first bytes of the file: all, or at least 8.
 * @returns The error to throw instead.
 */
export function explain(error: unknown, head: Uint8Array): unknown {
  if (!isInlayError(error) || startsLikeModel(head)) return error;
  return head.length > 0
    ? notModel(head)
    : new ModelError('ERR_INLAY_MODEL_INVALID', 'The model file is empty.', at(0));
}

/** Checks that the parts are there which every model has. */
export function assertComplete(model: Partial<ModelProto>, sizeBytes: number): ModelProto {
  if (model.graph === undefined) throw incomplete('graph', sizeBytes);
  // IR version 3 introduced operator sets (onnx.proto, `Version`).
  if (model.opsetImport?.length === 0 && (model.irVersion ?? 0) >= 3)
    throw incomplete('opset_import', sizeBytes);
  if (model.irVersion === undefined) throw incomplete('ir_version', sizeBytes);
  return model as ModelProto;
}

/**
 * Writes an ONNX model: one allocation, weights copied once.
 * @returns Bytes owned by the caller.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` from 2 GiB on, `ERR_INLAY_MODEL_INVALID` if messages nest
 * deeper than 100; `RangeError` if an integer has more than 64 bits.
 */
export function encodeModel(model: ModelProto): Uint8Array<ArrayBuffer> {
  return encodeMessage('ModelProto', model);
}

/** Tells whether the first byte is the tag of a field of ModelProto: all of its numbers fit one byte, or two. */
function startsLikeModel(bytes: Uint8Array): boolean {
  const [first = 0, second = 0] = bytes;
  const tag = first < 0x80 ? first : (first & 0x7f) | (second << 7);
  return FIELDS.ModelProto.some(({ number, wire }) => tag === number * 8 + wire);
}

function notModel(bytes: Uint8Array): ModelError {
  const head = toHex(bytes.subarray(0, 8)).replace(/..(?=.)/g, '$& ');
  return new ModelError(
    'ERR_INLAY_MODEL_INVALID',
    `The file is not an ONNX model: it starts with the bytes ${head}.`,
    at(0),
  );
}

function incomplete(field: string, sizeBytes: number): ModelError {
  return new ModelError(
    'ERR_INLAY_MODEL_INVALID',
    `The model has no ${field}, which every ONNX model has; check that the file is complete.`,
    at(sizeBytes),
  );
}

const at = (offset: number): { details: { offset: number } } => ({ details: { offset } });
