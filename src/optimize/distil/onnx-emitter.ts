/** Writes the nodes of a network, whose images TensorFlow keeps channels last and ONNX channels first. */

import { DTYPES, type DType } from '../../core/dtype.ts';
import { Tensor } from '../../core/tensor.ts';
import type { Attributes, ModelBuilder } from '../../onnx/build.ts';
import { transposed } from './transpose.ts';
import type { TfShape, WeightArray } from './library.ts';

/**
 * How a value lies in memory: `last` as TensorFlow has it, `first` with the channels of an image before rows and columns,
 * `flat` as one axis of an image that was channels first.
 */
export type Layout = 'last' | 'first' | 'flat';

/** A value of the network, under its name in each layout that was asked for. */
export interface Value {
  /** As TensorFlow sees it, the batch first. */
  readonly shape: TfShape;
  readonly dtype: DType;
  readonly names: Map<Layout, string>;
  /** Rows, columns and channels of what was made `flat`. */
  readonly image?: readonly [number, number, number];
}

/** Makes a value that exists in one layout. */
export function toValue(shape: TfShape, layout: Layout, name: string, image?: Value['image']): Value {
  return { shape, dtype: 'float32', names: new Map([[layout, name]]), ...(image && { image }) };
}

/** Adds nodes and constants for one layer after the other. */
export interface Emitter {
  /** What follows is named after this layer. */
  enter(layer: string): void;
  /** @returns Name of the output. */
  node(op: string, inputs: readonly string[], attributes?: Attributes): string;
  /** Adds a weight once for each layer and stem. */
  weight(stem: string, make: () => WeightArray): string;
  /** Adds int64 numbers once. */
  integers(values: readonly number[]): string;
  scalar(value: number): string;
  /** Name of a value in a layout; converts it at its first use. */
  as(value: Value, layout: Layout): string;
  /** A value as another dtype. */
  cast(value: Value, dtype: DType): Value;
}

/** Order in which the axes of channels-first images are found in channels-last ones, and the way back. */
const TO_FIRST = [0, 3, 1, 2];
const TO_LAST = [0, 2, 3, 1];

/** Axis of a channels-first image that is the given one channels last. */
export function axisIn(layout: Layout, axis: number): number {
  return layout === 'first' ? TO_FIRST.indexOf(axis) : axis;
}

/** A weight that is broadcast over images, as it must lie for the layout. */
export function weightIn(layout: Layout, { shape, data }: WeightArray): WeightArray {
  return layout === 'first' && shape.length === 3 ? transposed(data, shape, [2, 0, 1]) : { shape, data };
}

/**
 * Starts to write into a graph.
 * @param reserved - names that no value inside may take.
 */
export function createEmitter(graph: ModelBuilder, reserved: Iterable<string>): Emitter {
  const taken = new Set(reserved);
  const constants = new Map<string, string>();
  let layer = '';

  const fresh = (stem: string): string => {
    let name = stem;
    for (let next = 1; taken.has(name); next += 1) name = `${stem}_${next}`;
    taken.add(name);
    return name;
  };
  const once = (key: string, make: () => Tensor): string => {
    const known = constants.get(key) ?? graph.initializer(fresh(key), make());
    constants.set(key, known);
    return known;
  };
  const node = (op: string, inputs: readonly string[], attributes: Attributes = {}): string => {
    const name = fresh(`${layer}/${op}`);
    return graph.node(op, inputs, attributes, { name, outputs: name });
  };
  const integers = (values: readonly number[]): string =>
    once(
      `integers/${values.join('_')}`,
      () => new Tensor('int64', [values.length], BigInt64Array.from(values, BigInt)),
    );
  const reshape = (name: string, shape: readonly number[]): string =>
    node('Reshape', [name, integers(shape)]);

  const convert = (value: Value, layout: Layout): string => {
    const flat = value.names.get('flat');
    if (flat !== undefined && value.image !== undefined) {
      const [rows, columns, channels] = value.image;
      const image = reshape(flat, [0, channels, rows, columns]);
      return node('Flatten', [node('Transpose', [image], { perm: TO_LAST })], { axis: 1 });
    }
    const from = value.names.get(layout === 'first' ? 'last' : 'first');
    if (from === undefined)
      throw new RangeError(`No value of shape [${value.shape.join(', ')}] is ${layout}.`);
    const [, rows, columns, channels] = value.shape;
    const isStatic = typeof rows === 'number' && typeof columns === 'number' && typeof channels === 'number';
    // The elements are in the same order either way.
    if (isStatic && (channels === 1 || rows * columns === 1)) {
      return reshape(from, layout === 'first' ? [0, channels, rows, columns] : [0, rows, columns, channels]);
    }
    return node('Transpose', [from], { perm: layout === 'first' ? TO_FIRST : TO_LAST });
  };

  return {
    enter: (name) => {
      layer = name;
    },
    node,
    weight: (stem, make) =>
      once(`${layer}/${stem}`, () => {
        const { shape, data } = make();
        return new Tensor('float32', shape, data);
      }),
    integers,
    scalar: (value) => once(`scalar/${value}`, () => new Tensor('float32', [], Float32Array.of(value))),
    as: (value, layout) => {
      const name = value.names.get(layout) ?? convert(value, layout);
      value.names.set(layout, name);
      return name;
    },
    cast: (value, dtype) => {
      if (value.dtype === dtype) return value;
      const names = [...value.names].map(([layout, name]): [Layout, string] => [
        layout,
        node('Cast', [name], { to: DTYPES[dtype].onnx }),
      ]);
      return { ...value, dtype, names: new Map(names) };
    },
  };
}
