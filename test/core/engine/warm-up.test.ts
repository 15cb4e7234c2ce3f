import { expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { BackendError } from '../../../src/core/errors.ts';
import { silentLogger } from '../../../src/core/logger.ts';
import type { Signature } from '../../../src/core/signature.ts';
import type { Store } from '../../../src/core/store.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { createMemory } from '../../../src/engine/memory.ts';
import { openServing, type Serving } from '../../../src/engine/serving.ts';
import { createMetrics } from '../../../src/schedule/metrics.ts';
import type { PaddingOptions } from '../../../src/schedule/padding.ts';
import { createScheduler } from '../../../src/schedule/scheduler.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { fakeBackend, manualClock, noDemotions } from './fakes.ts';

const signature: Signature = {
  inputs: [
    { name: 'ids', dtype: 'int32', shape: ['batch', 'sequence'] },
    { name: 'mask', dtype: 'int32', shape: ['batch', 'sequence'] },
  ],
  outputs: [{ name: 'y', dtype: 'int32', shape: ['batch', 'sequence'] }],
};
const padding: PaddingOptions = {
  dimension: 'sequence',
  values: { ids: 0, mask: 0 },
  mask: 'mask',
  sizes: [16, 64, 256],
};

interface Warmed {
  readonly serving: Serving;
  /** Lengths of the sequences that were run, before it was ready and since. */
  readonly lengths: number[];
}

/** Opens a model whose runs are recorded; those of the lengths in `broken` fail. */
async function open(
  provider: 'webgpu' | 'cpu',
  options: { padding?: PaddingOptions; broken?: readonly number[]; store?: Store } = {},
): Promise<Warmed> {
  const { broken = [], store = createMemoryStore() } = options;
  const lengths: number[] = [];
  const backend = fakeBackend({
    signature,
    providers: [{ name: provider, device: provider === 'cpu' ? 'cpu' : 'gpu' }],
    onRun: ({ ids }): TensorMap => {
      const length = ids?.shape[1] ?? 0;
      lengths.push(length);
      if (broken.includes(length)) throw new BackendError('ERR_INLAY_RUN_FAILED', 'Too long for this GPU.');
      return { y: ids as Tensor };
    },
  });
  const platform = { ...manualClock(), hardware: 'test' };
  const parts = {
    platform,
    store,
    backends: [backend],
    scheduler: createScheduler({ platform }),
    memory: createMemory(undefined, () => {}),
    demotions: noDemotions,
    logger: silentLogger,
  };
  const serving = await openServing(
    parts,
    { bytes: Uint8Array.of(7) },
    {
      device: [provider],
      placement: 'auto',
      metrics: createMetrics(),
      mustRun: true,
      ...(options.padding && { padding: options.padding }),
    },
  );
  return { serving, lengths };
}

/** Lengths that are no example of the smallest size. */
const declared = (lengths: readonly number[]): number[] => lengths.filter((length) => length > 1);

async function run(serving: Serving, length: number): Promise<readonly number[]> {
  const ones = new Tensor('int32', [1, length], new Int32Array(length).fill(1));
  return (await serving.run({ ids: ones, mask: ones }, {}, () => {}))['y']?.shape ?? [];
}

it('runs a GPU once for each declared size, ascending, before the model is ready', async () => {
  const { serving, lengths } = await open('webgpu', { padding });
  expect(declared(lengths)).toEqual([16, 64, 256]);
  await serving.close();
});

it('does so again at the next start, which compares and measures nothing', async () => {
  const store = createMemoryStore();
  const first = await open('webgpu', { padding, store });
  await first.serving.close();
  const { serving, lengths } = await open('webgpu', { padding, store });
  expect(declared(lengths)).toEqual([16, 64, 256]);
  expect(lengths.length).toBeLessThan(first.lengths.length);
  await serving.close();
});

it('runs no sizes on the CPU, which compiles nothing', async () => {
  const { serving, lengths } = await open('cpu', { padding });
  expect(declared(lengths)).toEqual([]);
  await serving.close();
});

it('makes no sizes up where none are declared', async () => {
  const { sizes: _, ...endless } = padding;
  const { serving, lengths } = await open('webgpu', { padding: endless });
  expect(declared(lengths)).toEqual([]);
  await serving.close();
});

it('goes on with the next size when one fails, and the model answers calls of the others', async () => {
  const { serving, lengths } = await open('webgpu', { padding, broken: [64] });
  expect(declared(lengths)).toEqual([16, 64, 256]);
  expect(await run(serving, 16)).toEqual([1, 16]);
  expect(await run(serving, 256)).toEqual([1, 256]);
  await expect(run(serving, 64)).rejects.toMatchObject({ code: 'ERR_INLAY_RUN_FAILED' });
  await serving.close();
});
