/** All constants of a model, wherever they are: initializers, attributes, sparse parts, functions, training graphs. */
import type { MessageName, Messages, ModelProto, TensorProto } from './messages.ts';
import { FIELDS, type Field } from './schema.ts';

type Loose = Readonly<Record<string, unknown>>;

/** Fields of each message that are tensors or lead to some. */
export const TENSOR_FIELDS: Readonly<Record<MessageName, readonly Field[]>> = /* @__PURE__ */ findFields();

/**
 * Replaces constants. What holds none that changes is shared with the model that it came from.
 * @param change is told which message holds the constant; initializers are those of `GraphProto`.
 */
export function mapTensors(
  model: ModelProto,
  change: (tensor: TensorProto, holder: MessageName) => TensorProto,
): ModelProto {
  const mapMessage = <Name extends MessageName>(name: Name, message: Messages[Name]): Messages[Name] => {
    const loose = message as unknown as Loose;
    let changed: Record<string, unknown> | undefined;
    for (const { name: key, kind, isList } of TENSOR_FIELDS[name]) {
      const value = loose[key];
      if (value === undefined || (isList && (value as readonly unknown[]).length === 0)) continue;
      const mapItem = (item: unknown): unknown =>
        kind === 'TensorProto'
          ? change(item as TensorProto, name)
          : mapMessage(kind as MessageName, item as Messages[MessageName]);
      const mapped = isList ? mapList(value as readonly unknown[], mapItem) : mapItem(value);
      if (mapped !== value) (changed ??= {})[key] = mapped;
    }
    return changed ? { ...message, ...changed } : message;
  };
  return mapMessage('ModelProto', model);
}

/** All constants, in the order of the file. */
export function allTensors(model: ModelProto): readonly TensorProto[] {
  const tensors: TensorProto[] = [];
  mapTensors(model, (tensor) => {
    tensors.push(tensor);
    return tensor;
  });
  return tensors;
}

function mapList(items: readonly unknown[], map: (item: unknown) => unknown): readonly unknown[] {
  let changed: unknown[] | undefined;
  for (const [i, item] of items.entries()) {
    const mapped = map(item);
    if (mapped !== item) (changed ??= [...items])[i] = mapped;
  }
  return changed ?? items;
}

function findFields(): Record<MessageName, readonly Field[]> {
  const names = Object.keys(FIELDS) as MessageName[];
  const leading = new Set<string>(['TensorProto']);
  // As often as paths are long: each pass finds the messages that are one step further from a tensor.
  for (let before = 0; before < leading.size;) {
    before = leading.size;
    for (const name of names) if (FIELDS[name].some(({ kind }) => leading.has(kind))) leading.add(name);
  }
  const found: Partial<Record<MessageName, readonly Field[]>> = {};
  for (const name of names) found[name] = FIELDS[name].filter(({ kind }) => leading.has(kind));
  return found as Record<MessageName, readonly Field[]>;
}
