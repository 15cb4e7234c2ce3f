/** Rules of the public types. `tsc -b` checks them; nothing here runs. */
import {
  createInlay,
  isInlayError,
  Tensor,
  type DType,
  type EmbeddedRelease,
  type Feeds,
  type Model,
  type TensorMap,
  type VariantsReference,
} from 'inlay';
import { expectTypeOf } from 'vitest';

declare const model: Model;
declare const caught: unknown;

// A tensor knows the array type of its dtype.
expectTypeOf(new Tensor('int64', [1], new BigInt64Array(1)).data).toEqualTypeOf<BigInt64Array>();
expectTypeOf(new Tensor('float16', [1], new Uint16Array(1)).data).toEqualTypeOf<Uint16Array>();
expectTypeOf<Tensor['dtype']>().toEqualTypeOf<DType>();
// @ts-expect-error: float32 is held in a Float32Array.
void new Tensor('float32', [1], new Float64Array(1));
// @ts-expect-error: there is no such dtype.
void new Tensor('float31', [1], new Float32Array(1));

// Feeds are what a host has at hand.
expectTypeOf<{ x: Float32Array; rate: 16000; mask: boolean[]; text: string[] }>().toExtend<Feeds>();
expectTypeOf<{ x: Tensor<'float32'>; y: number[][] }>().toExtend<Feeds>();
expectTypeOf<{ x: Date }>().not.toExtend<Feeds>();
expectTypeOf(model.run({ x: [1, 2] })).resolves.toEqualTypeOf<TensorMap>();

// The code of an error narrows to its class.
if (isInlayError(caught) && caught.code === 'ERR_INLAY_HASH') {
  expectTypeOf(caught.name).toEqualTypeOf<'TrustError'>();
}

// A model is found by path, URL, bytes, name or variants, and by nothing else.
const inlay = createInlay({ device: ['cuda', 'cpu'], placement: 'inline' });
expectTypeOf(inlay.load).parameter(0).toEqualTypeOf<
  | string
  | URL
  | Uint8Array
  | ArrayBuffer
  | {
      readonly name: string;
      readonly embedded?: string | URL | Uint8Array | ArrayBuffer | EmbeddedRelease;
    }
  | VariantsReference
>();
// @ts-expect-error: a device preference is one of three words or a list.
createInlay({ device: 'tpu' });
