/** Attributes of nodes from plain values. */
import { toUtf8 } from '../core/bytes.ts';
import { Tensor } from '../core/tensor.ts';
import type { AttributeProto, GraphProto } from './messages.ts';
import { ATTRIBUTE } from './schema.ts';
import { toTensorProto } from './tensors.ts';

/** Something that becomes a graph: the body of an `If`, `Loop` or `Scan`. */
export interface GraphSource {
  toGraph(): GraphProto;
}

/**
 * A value of an attribute. Integers, bigints and booleans become INT, other numbers FLOAT; lists accordingly. A FLOAT
 * that may happen to be whole is written `{ float: 1 }`; empty lists are written `{ ints: [] }`, `{ floats: [] }` or
 * `{ strings: [] }`.
 */
export type AttributeValue =
  | number
  | bigint
  | boolean
  | string
  | Uint8Array
  | Tensor
  | GraphSource
  | { readonly float: number }
  | { readonly floats: readonly number[] }
  | { readonly ints: readonly (number | bigint)[] }
  | { readonly strings: readonly string[] }
  | readonly number[]
  | readonly bigint[]
  | readonly string[]
  | readonly Tensor[]
  | readonly GraphSource[];

/**
 * Writes an attribute.
 * @throws TypeError if the value has no ONNX form or its type cannot be told.
 */
export function toAttribute(name: string, value: AttributeValue): AttributeProto {
  const { float, int, string, tensor, graph } = ATTRIBUTE;
  switch (typeof value) {
    case 'boolean':
    case 'bigint':
      return { name, i: BigInt(value), type: int };
    case 'number':
      return Number.isSafeInteger(value) && !Object.is(value, -0)
        ? { name, i: BigInt(value), type: int }
        : { name, f: value, type: float };
    case 'string':
      return { name, s: toUtf8(value), type: string };
    case 'object':
      break;
    default:
      throw unsupported(name);
  }
  if (value === null) throw unsupported(name);
  if (value instanceof Uint8Array) return { name, s: value, type: string };
  if (value instanceof Tensor) return { name, t: toTensorProto('', value), type: tensor };
  if (isArray(value)) return toListAttribute(name, value);
  if ('toGraph' in value) return { name, g: value.toGraph(), type: graph };
  if ('float' in value) return { name, f: value.float, type: float };
  if ('floats' in value) return { name, floats: Float32Array.from(value.floats), type: ATTRIBUTE.floats };
  if ('ints' in value) return { name, ints: BigInt64Array.from(value.ints, BigInt), type: ATTRIBUTE.ints };
  if ('strings' in value) {
    return { name, strings: value.strings.map((text) => toUtf8(text)), type: ATTRIBUTE.strings };
  }
  throw unsupported(name);
}

function toListAttribute(name: string, list: readonly unknown[]): AttributeProto {
  const { floats, ints, strings, tensors, graphs } = ATTRIBUTE;
  if (list.length === 0) {
    throw new TypeError(`The attribute "${name}" is an empty list; say of what, as in { ints: [] }.`);
  }
  if (list.every((item) => typeof item === 'bigint' || Number.isSafeInteger(item))) {
    return { name, ints: BigInt64Array.from(list as readonly (number | bigint)[], BigInt), type: ints };
  }
  if (list.every((item) => typeof item === 'number'))
    return { name, floats: Float32Array.from(list), type: floats };
  if (list.every((item) => typeof item === 'string')) {
    return { name, strings: list.map((text) => toUtf8(text)), type: strings };
  }
  if (list.every((item) => item instanceof Tensor)) {
    return { name, tensors: list.map((item) => toTensorProto('', item)), type: tensors };
  }
  if (list.every(isGraphSource)) return { name, graphs: list.map((item) => item.toGraph()), type: graphs };
  throw unsupported(name);
}

// Array.isArray does not narrow readonly arrays.
function isArray(value: object): value is readonly unknown[] {
  return Array.isArray(value);
}

function isGraphSource(value: unknown): value is GraphSource {
  return typeof value === 'object' && value !== null && 'toGraph' in value;
}

function unsupported(name: string): TypeError {
  return new TypeError(
    `The attribute "${name}" is no number, string, Tensor or graph, and no list of one kind of those.`,
  );
}
