/** Random messages, drawn from the schema. */
import fc from 'fast-check';
import { FIELDS, type Field, type Kind } from '../../../src/onnx/schema.ts';
import type { MessageName } from '../../../src/onnx/messages.ts';

const scalars: Partial<Record<Kind, fc.Arbitrary<unknown>>> = {
  int32: fc.integer(),
  int64: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
  uint64: fc.bigInt(0n, 2n ** 64n - 1n),
  size: fc.maxSafeInteger(),
  float: fc.float(),
  double: fc.double(),
  string: fc.string({ unit: 'grapheme', maxLength: 6 }),
  bytes: fc.uint8Array({ maxLength: 6 }),
};

const storage: Partial<Record<Kind, { from(values: never[]): unknown }>> = {
  int32: Int32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  float: Float32Array,
  double: Float64Array,
};

/** A message with any of its fields, `levels` messages deep. */
export function anyMessage(name: MessageName, levels = 4): fc.Arbitrary<Record<string, unknown>> {
  const fields = FIELDS[name].filter(({ kind, mode }) => mode === 'many' || kind in scalars || levels > 1);
  const options = fields.filter(({ mode }) => mode === 'oneof');
  const model: Record<string, fc.Arbitrary<unknown>> = {
    ...Object.fromEntries(fields.map((field) => [field.name, valueOf(field, levels)])),
    unknown: fc.uint8Array({ maxLength: 4 }).map((bytes) => [
      // Field 999, length-delimited: no message of the schema has it.
      Uint8Array.of(0xba, 0x3e, bytes.length, ...bytes),
    ]),
    choice: fc.nat({ max: Math.max(0, options.length - 1) }),
  };
  const requiredKeys = fields.filter(({ mode }) => mode === 'many').map((field) => field.name);
  return fc.record(model, { requiredKeys }).map(({ choice, ...message }: Record<string, unknown>) => {
    options.forEach((option, index) => {
      if (index !== (choice ?? 0)) delete message[option.name];
    });
    return message;
  });
}

function valueOf({ kind, mode }: Field, levels: number): fc.Arbitrary<unknown> {
  const item = scalars[kind] ?? anyMessage(kind as MessageName, levels - 1);
  if (mode === 'one' || mode === 'oneof') return item;
  const isDeepest = levels <= 1 && !(kind in scalars);
  const list = fc.array(item, { minLength: mode === 'many' ? 0 : 1, maxLength: isDeepest ? 0 : 3 });
  const array = storage[kind];
  return array === undefined ? list : list.map((values) => array.from(values as never[]));
}
