import { expect, onTestFinished } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import type { Feeds } from '../../../src/engine/feeds.ts';
import type { PipelineModel } from '../../../src/engine/pipeline-definition.ts';

/** One call of a {@link testModel}, which the test answers. */
export interface ModelCall {
  readonly feeds: Feeds;
  readonly options: NonNullable<Parameters<PipelineModel['run']>[1]>;
  answer(value: number): void;
  fail(error: unknown): void;
}

/** A scalar tensor. */
export function scalar(value: number): Tensor<'float32'> {
  return new Tensor('float32', [], new Float32Array([value]));
}

/** A model with scalar inputs `x` and outputs `y` and `z`, whose calls wait until the test answers them. */
export function testModel(
  inputs: readonly string[] = ['x'],
): PipelineModel & { readonly calls: ModelCall[] } {
  const calls: ModelCall[] = [];
  const spec = (name: string) => ({ name, dtype: 'float32' as const, shape: [] });
  return {
    calls,
    signature: { inputs: inputs.map(spec), outputs: ['y', 'z'].map(spec) },
    run: (feeds, options = {}) =>
      new Promise<TensorMap>((resolve, reject) => {
        calls.push({
          feeds,
          options,
          answer: (value) => {
            resolve({ y: scalar(value), z: scalar(-value) });
          },
          fail: reject,
        });
        options.signal?.addEventListener('abort', () => {
          reject(options.signal?.reason as Error);
        });
      }),
  };
}

/** Lets every promise that is due settle. */
export async function settleAll(): Promise<void> {
  await new Promise((resolve) => {
    setTimeout(resolve, 0);
  });
}

/** Fails the test if a rejection stays unhandled; where the runtime does not tell, it does nothing. */
export function watchRejections(): void {
  if (typeof process === 'undefined' || typeof process.on !== 'function') return;
  const unhandled: unknown[] = [];
  const listen = (error: unknown): void => void unhandled.push(error);
  process.on('unhandledRejection', listen);
  onTestFinished(async () => {
    await settleAll();
    process.off('unhandledRejection', listen);
    expect(unhandled).toEqual([]);
  });
}
