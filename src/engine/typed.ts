/** Types of one model's feeds and outputs, for the declarations that `inlay types` writes. They cost nothing at run time. */
import type { TensorMap } from '../core/backend.ts';
import type { DType, DTypeStorage } from '../core/dtype.ts';
import type { NestedArray, Tensor } from '../core/tensor.ts';
import type { Feeds } from './feeds.ts';

/**
 * What a model takes and gives, by name. Used as it stands, it says nothing: every name and every feed goes.
 * @example
 * interface Digits extends ModelTypes {
 *   readonly feeds: { readonly image: FeedOf<'float32', 4> };
 *   readonly outputs: { readonly logits: TensorOf<'float32', 2> };
 * }
 * const model = await inlay.load<Digits>('./digits.onnx');
 */
export interface ModelTypes {
  readonly feeds: Feeds;
  readonly outputs: TensorMap;
}

/**
 * What a host may give for an input of a dtype and a rank: a tensor, the typed array that holds the dtype, a flat array
 * of elements, arrays nested to the rank, and for rank 0 a single element. `null`: rank unknown, any nesting goes.
 * 16-bit floats are numbers, or bit patterns in a `Uint16Array`; dtypes without a plain form (complex, 8-bit floats)
 * take tensors and typed arrays only.
 */
export type FeedOf<D extends DType, Rank extends number | null = null> =
  | Tensor<D>
  | Storage<D>
  | readonly InputElement<D>[]
  | Nested<InputElement<D>, Rank>;

/** A tensor of a dtype and a rank: `shape` is a tuple, `toArray()` nests to that depth. `null`: rank unknown. */
export type TensorOf<D extends DType, Rank extends number | null = null> = Rank extends number
  ? {
      readonly shape: Repeat<number, Rank>;
      toArray(): Plain<OutputElement<D>, Rank>;
    } & Tensor<D>
  : Tensor<D>;

/** Names of a model's outputs. */
export type OutputName<M extends ModelTypes> = keyof M['outputs'] & string;

/**
 * The outputs of a run that asks for some by `Name`: those alone, where the model says which there are. A conditional
 * type over `M` would say the same but keep a typed model from being passed where any model goes.
 */
export type OutputsOf<M extends ModelTypes, Name extends string> = {
  readonly [Key in keyof M['outputs'] as string extends Key ? Key : Extract<Key, Name>]: M['outputs'][Key];
};

type Storage<D extends DType> = D extends 'string'
  ? never
  : Uint8Array extends DTypeStorage[D]
    ? DTypeStorage[D] | Uint8ClampedArray
    : DTypeStorage[D];

type PlainFloat = 'float16' | 'bfloat16' | 'float32' | 'float64';
type Integer =
  | 'int2'
  | 'uint2'
  | 'int4'
  | 'uint4'
  | 'int8'
  | 'uint8'
  | 'int16'
  | 'uint16'
  | 'int32'
  | 'uint32';
type BigInteger = 'int64' | 'uint64';

/** One element as a host writes it. */
type InputElement<D extends DType> = D extends PlainFloat | Integer
  ? number
  : D extends BigInteger
    ? number | bigint
    : D extends 'bool'
      ? boolean | 0 | 1
      : D extends 'string'
        ? string
        : never;

/** One element as `toArray()` gives it. */
type OutputElement<D extends DType> = D extends BigInteger
  ? bigint
  : D extends 'bool'
    ? boolean
    : D extends 'string'
      ? string
      : number;

/** `Element` in arrays, `Rank` deep; in arrays of any depth where the rank is unknown. */
type Nested<Element, Rank extends number | null> = [Element] extends [never]
  ? never
  : Rank extends number
    ? number extends Rank
      ? AnyDepth<Element>
      : Deep<Element, Rank>
    : AnyDepth<Element>;

type Deep<Element, Rank extends number, Depth extends readonly unknown[] = []> = Depth['length'] extends Rank
  ? Element
  : readonly Deep<Element, Rank, [...Depth, unknown]>[];

type Plain<Element, Rank extends number, Depth extends readonly unknown[] = []> = number extends Rank
  ? NestedArray
  : Depth['length'] extends Rank
    ? Element
    : Plain<Element, Rank, [...Depth, unknown]>[];

type AnyDepth<Element> = Element | readonly AnyDepth<Element>[];

type Repeat<Element, Rank extends number, Items extends readonly Element[] = []> = number extends Rank
  ? readonly Element[]
  : Items['length'] extends Rank
    ? Readonly<Items>
    : Repeat<Element, Rank, [...Items, Element]>;
