/** Writing of models whose weights stay where they are. */
import { encodeMessagePieces, measureMessage } from './encode.ts';
import type { ModelProto } from './messages.ts';

/** Smaller values are copied: a piece costs more than so many bytes. */
const SHARE_FROM_BYTES = 1024;

/**
 * Writes an ONNX model as pieces, which one after the other are its bytes: those that `encodeModel` gives. Weights are
 * not copied: those of 1,024 bytes and more are pieces, as the views that the model holds. The rest lies in one new
 * buffer. So a model goes to a file, a hash or a network with no second copy of it in memory.
 * @returns Pieces to be read only, as long as the model is not changed.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` from 2 GiB on, `ERR_INLAY_MODEL_INVALID` if messages nest
 * deeper than 100; `RangeError` if an integer has more than 64 bits.
 */
export function encodePieces(model: ModelProto): readonly Uint8Array[] {
  return encodeMessagePieces('ModelProto', model, SHARE_FROM_BYTES);
}

/**
 * Bytes that a model takes as a file, also from 2 GiB on, external data not counted.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` if messages nest deeper than 100.
 */
export function encodedSizeBytes(model: ModelProto): number {
  return measureMessage('ModelProto', model);
}
