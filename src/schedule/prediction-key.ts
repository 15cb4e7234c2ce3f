import type { TensorMap } from '../core/backend.ts';
import { toUtf8 } from '../core/bytes.ts';
import type { Hasher } from '../core/hash.ts';

/**
 * Names a question to a model: SHA-256 over the model and its feeds, as 32 characters of one byte each.
 *
 * What is hashed has one reading. It begins with a JSON array, which shows where it ends: the model, then per input,
 * sorted by name, its name, dtype, shape and either its length in bytes or, for strings, its elements. The bytes of the
 * inputs follow in the same order, so -0 and 0 are different questions.
 * @param model number of the model.
 */
export function predictionKey(hasher: Hasher, model: number, feeds: TensorMap): string {
  const inputs = Object.entries(feeds).sort(([a], [b]) => (a < b ? -1 : 1));
  const header = inputs.map(([name, { dtype, shape, data }]) => [
    name,
    dtype,
    shape,
    ArrayBuffer.isView(data) ? data.byteLength : data,
  ]);
  hasher.update(toUtf8(JSON.stringify([model, header])));
  for (const [, { data }] of inputs) {
    if (ArrayBuffer.isView(data)) {
      hasher.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    }
  }
  return String.fromCharCode(...hasher.digest());
}
