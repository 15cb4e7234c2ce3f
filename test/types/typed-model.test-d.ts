/** Rules of the types that `inlay types` writes. `tsc -b` checks them; nothing here runs. */
import { expectTypeOf } from 'vitest';
import type { TensorMap } from '../../src/core/backend.ts';
import type { Tensor } from '../../src/core/tensor.ts';
import type { Feeds } from '../../src/engine/feeds.ts';
import type { FeedOf, ModelTypes, OutputName, OutputsOf, TensorOf } from '../../src/engine/typed.ts';

// Feeds of a rank: flat, nested to that rank, or a tensor.
expectTypeOf<Float32Array>().toExtend<FeedOf<'float32', 4>>();
expectTypeOf<number[]>().toExtend<FeedOf<'float32', 4>>();
expectTypeOf<number[][][][]>().toExtend<FeedOf<'float32', 4>>();
expectTypeOf<readonly (readonly number[])[]>().toExtend<FeedOf<'float32', 2>>();
expectTypeOf<Tensor<'float32'>>().toExtend<FeedOf<'float32', 4>>();
expectTypeOf<TensorOf<'float32', 4>>().toExtend<FeedOf<'float32', 4>>();
expectTypeOf<number[][]>().not.toExtend<FeedOf<'float32', 4>>();
expectTypeOf<number[][][][][]>().not.toExtend<FeedOf<'float32', 4>>();
expectTypeOf<number>().not.toExtend<FeedOf<'float32', 1>>();
expectTypeOf<Float64Array>().not.toExtend<FeedOf<'float32', 4>>();
expectTypeOf<Tensor<'float64'>>().not.toExtend<FeedOf<'float32', 4>>();
expectTypeOf<string[]>().not.toExtend<FeedOf<'float32', 1>>();

// Rank 0 takes one element; an unknown rank takes any nesting.
expectTypeOf<number>().toExtend<FeedOf<'float32', 0>>();
expectTypeOf<number[][]>().not.toExtend<FeedOf<'float32', 0>>();
expectTypeOf<number>().toExtend<FeedOf<'float32'>>();
expectTypeOf<number[][][]>().toExtend<FeedOf<'float32'>>();
expectTypeOf<string[][]>().not.toExtend<FeedOf<'float32'>>();

// Each dtype takes what its storage and its plain form are.
expectTypeOf<bigint[][]>().toExtend<FeedOf<'int64', 2>>();
expectTypeOf<number[][]>().toExtend<FeedOf<'int64', 2>>();
expectTypeOf<BigInt64Array>().toExtend<FeedOf<'int64', 2>>();
expectTypeOf<bigint[]>().not.toExtend<FeedOf<'int32', 1>>();
expectTypeOf<boolean[]>().toExtend<FeedOf<'bool', 1>>();
expectTypeOf<Uint8Array>().toExtend<FeedOf<'bool', 1>>();
expectTypeOf<number[]>().not.toExtend<FeedOf<'bool', 1>>();
expectTypeOf<string[][]>().toExtend<FeedOf<'string', 2>>();
expectTypeOf<string>().toExtend<FeedOf<'string', 0>>();
expectTypeOf<string>().not.toExtend<FeedOf<'string', 1>>();
expectTypeOf<number[]>().toExtend<FeedOf<'float16', 1>>();
expectTypeOf<Uint16Array>().toExtend<FeedOf<'float16', 1>>();
expectTypeOf<Float32Array>().not.toExtend<FeedOf<'float16', 1>>();
expectTypeOf<Uint8ClampedArray>().toExtend<FeedOf<'uint8', 3>>();
expectTypeOf<Uint8ClampedArray>().not.toExtend<FeedOf<'float32', 3>>();
expectTypeOf<number[]>().not.toExtend<FeedOf<'complex64', 1>>();
expectTypeOf<Float32Array>().toExtend<FeedOf<'complex64', 1>>();

// Outputs know their storage, their axes and their plain form.
declare const logits: TensorOf<'float32', 2>;
expectTypeOf(logits.data).toEqualTypeOf<Float32Array>();
expectTypeOf(logits.shape).toExtend<readonly [number, number]>();
expectTypeOf(logits.toArray()).toEqualTypeOf<number[][]>();
declare const ids: TensorOf<'int64', 1>;
expectTypeOf(ids.toArray()).toEqualTypeOf<bigint[]>();
declare const flag: TensorOf<'bool', 0>;
expectTypeOf(flag.toArray()).toEqualTypeOf<boolean>();
expectTypeOf<TensorOf<'string'>>().toEqualTypeOf<Tensor<'string'>>();
expectTypeOf(logits).toExtend<Tensor>();

// A model as `Model<M>` declares it: what is written here is what `src/engine/model.ts` takes over.
interface TypedModel<M extends ModelTypes = ModelTypes> {
  run<const Name extends string = OutputName<M>>(
    feeds: M['feeds'],
    options?: { readonly outputs?: readonly (Name & OutputName<M>)[] },
  ): Promise<OutputsOf<M, Name>>;
}
interface Speech extends ModelTypes {
  readonly feeds: {
    readonly input: FeedOf<'float32', 2>;
    readonly sr: FeedOf<'int64', 0>;
    readonly 'state/h': FeedOf<'float32', 3>;
  };
  readonly outputs: {
    readonly output: TensorOf<'float32', 2>;
    readonly stateN: TensorOf<'float32', 3>;
  };
}
declare const speech: TypedModel<Speech>;
declare const samples: Float32Array;
declare const tensor: Tensor<'float32'>;

const everything = speech.run({ input: samples, sr: 16_000n, 'state/h': tensor });
expectTypeOf(everything).resolves.toEqualTypeOf<Speech['outputs']>();
const one = speech.run({ input: [[0]], sr: 16_000, 'state/h': tensor }, { outputs: ['output'] });
expectTypeOf(one).resolves.toHaveProperty('output');
expectTypeOf(one).resolves.not.toHaveProperty('stateN');
// @ts-expect-error: an input is missing.
void speech.run({ input: samples, sr: 16_000n });
// @ts-expect-error: there is no such input.
void speech.run({ input: samples, sr: 16_000n, 'state/h': tensor, rate: 1 });
// @ts-expect-error: the dtype is float32.
void speech.run({ input: new Float64Array(1), sr: 16_000n, 'state/h': tensor });
// @ts-expect-error: the rank is 2.
void speech.run({ input: [[[0]]], sr: 16_000n, 'state/h': tensor });
// @ts-expect-error: there is no such output.
void speech.run({ input: samples, sr: 16_000n, 'state/h': tensor }, { outputs: ['hidden'] });

// Untyped, all names go, and a typed model is as good as an untyped one.
declare const untyped: TypedModel;
declare const someFeeds: Feeds;
expectTypeOf(untyped.run(someFeeds)).resolves.toEqualTypeOf<TensorMap>();
expectTypeOf(untyped.run({ x: [1, 2] }, { outputs: ['y'] })).resolves.toEqualTypeOf<TensorMap>();
export const asUntyped: TypedModel = speech;
