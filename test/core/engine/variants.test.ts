import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Backend, ExecutionProvider, Session, TensorMap } from '../../../src/core/backend.ts';
import { toUtf8 } from '../../../src/core/bytes.ts';
import { BackendError, ModelError, StoreError } from '../../../src/core/errors.ts';
import { silentLogger } from '../../../src/core/logger.ts';
import type { Signature } from '../../../src/core/signature.ts';
import type { Store } from '../../../src/core/store.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { createMemory } from '../../../src/engine/memory.ts';
import type { ServingOptions, ServingParts } from '../../../src/engine/serving.ts';
import { openVariants, type VariantServing } from '../../../src/engine/variants.ts';
import type { VariantRules, VariantSource } from '../../../src/engine/variants-compare.ts';
import { createMetrics } from '../../../src/schedule/metrics.ts';
import { createScheduler } from '../../../src/schedule/scheduler.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { manualClock, noDemotions } from './fakes.ts';

const SIGNATURE: Signature = {
  inputs: [{ name: 'x', dtype: 'float32', shape: ['batch', 2] }],
  outputs: [{ name: 'y', dtype: 'float32', shape: ['batch', 2] }],
};

/** What a file stands for. */
interface Behaviour {
  /** Milliseconds of a run. */
  readonly ms?: (samples: number, provider: string) => number;
  /** Relative error of its answers. */
  readonly error?: number;
  readonly signature?: Signature;
  readonly onCreate?: () => void;
  readonly onRun?: (feeds: TensorMap) => void;
}

const linear = (ms: number) => (samples: number) => ms * samples;

/** A desk on which every file, told by its first byte, behaves as the test says. */
function desk(
  files: Record<string, Behaviour>,
  providers: readonly ExecutionProvider[] = [{ name: 'cpu', device: 'cpu' }],
) {
  const clock = manualClock();
  const names = Object.keys(files);
  const open = new Map<Session, string>();
  const created: string[] = [];
  let mostOpen = 0;
  const backend: Backend = {
    name: 'fake',
    providers: async () => providers,
    createSession: async ({ bytes }, { provider }) => {
      const name = names[bytes?.[0] ?? 0] as string;
      const { ms, error = 0, signature = SIGNATURE, onCreate, onRun } = files[name] as Behaviour;
      created.push(name);
      onCreate?.();
      const session: Session = {
        signature,
        provider,
        placement: 'worker',
        run: async (feeds) => {
          onRun?.(feeds);
          const { shape, data } = feeds['x'] as Tensor<'float32'>;
          clock.advance((ms ?? linear(1))(shape[0] as number, provider));
          return {
            y: new Tensor(
              'float32',
              shape,
              data.map((value) => 2 * value * (1 + error)),
            ),
          };
        },
        release: async () => {
          open.delete(session);
        },
      };
      open.set(session, name);
      mostOpen = Math.max(mostOpen, open.size);
      return session;
    },
    close: async () => {},
  };
  const metrics = createMetrics();
  const store = createMemoryStore();
  const parts: ServingParts = {
    platform: clock,
    store,
    backends: [backend],
    scheduler: createScheduler({ platform: clock }),
    memory: createMemory(undefined, () => {}),
    demotions: noDemotions,
    logger: silentLogger,
  };
  const variants: VariantSource[] = names.map((name, at) => ({
    name,
    source: async () => ({ bytes: new Uint8Array([at]) }),
  }));
  return {
    clock,
    store,
    metrics,
    created,
    parts,
    variants,
    isOpen: () => [...open.values()],
    mostOpen: () => mostOpen,
    load: (
      rules: VariantRules = {},
      options: Partial<ServingOptions> & { signal?: AbortSignal; parts?: Partial<ServingParts> } = {},
    ): Promise<VariantServing> =>
      openVariants({ ...parts, ...options.parts }, variants, rules, {
        device: 'auto',
        placement: 'auto',
        metrics,
        ...options,
      }),
  };
}

const sample = (...values: number[]): TensorMap => ({
  x: new Tensor('float32', [1, 2], Float32Array.from(values)),
});
const ask = (serving: VariantServing, feeds = sample(1, 2)): Promise<TensorMap> =>
  serving.run(feeds, {}, () => {});
const outcomes = (serving: VariantServing) =>
  Object.fromEntries(serving.info().variants.map(({ variant, outcome }) => [variant, outcome]));
const reasonOf = (serving: VariantServing, name: string): string | undefined =>
  serving.info().variants.find(({ variant }) => variant === name)?.reason;
const failed = (): never => {
  throw new BackendError('ERR_INLAY_RUN_FAILED', 'The kernel is missing.');
};

describe('openVariants', () => {
  it('takes the fastest of those that are correct, and says why', async () => {
    const { load, isOpen } = desk({
      fp32: { ms: linear(8) },
      fp16: { ms: linear(6) },
      int8: { ms: linear(2), error: 0.02 },
      int4: { ms: linear(1), error: 0.11 },
    });
    const serving = await load();
    expect(serving.variant).toBe('int8');
    expect(isOpen()).toEqual(['int8']);
    const { variant, variants } = serving.info();
    expect(variant).toBe('int8');
    expect(variants.map(({ variant: name, outcome, reason }) => [name, outcome, reason])).toEqual([
      ['int8', 'chosen', 'it is the fastest that is correct'],
      ['fp16', 'slower', 'int8 is faster'],
      ['fp32', 'slower', 'int8 is faster'],
      ['int4', 'refused', 'its answer is not the answer of fp32: output "y" is off by 11 %, allowed are 5 %'],
    ]);
    expect(variants.map(({ runMs }) => runMs)).toEqual([2, 6, 8, undefined]);
    expect(variants[0]?.difference).toBeCloseTo(0.02);
    await serving.close();
    expect(isOpen()).toEqual([]);
  });

  it('keeps an earlier variant unless a later one is 5 % faster', async () => {
    const { load } = desk({ fp32: { ms: linear(1) }, int8: { ms: linear(0.96) } });
    const serving = await load();
    expect(serving.variant).toBe('fp32');
    expect(reasonOf(serving, 'int8')).toBe('it is not 5 % faster than fp32');
  });

  it('weighs single runs and full batches alike', async () => {
    const { load } = desk({
      fp32: { ms: (samples) => 1 + 0.01 * samples },
      int8: { ms: (samples) => 0.5 + 0.5 * samples },
    });
    const serving = await load();
    expect(serving.variant).toBe('fp32');
    const [fp32, int8] = serving.info().variants;
    expect(fp32?.batchedMs).toBeLessThan(0.05);
    expect(int8?.runMs).toBe(1);
  });

  it('leaves out what does not load, does not fit or does not run, each with its reason', async () => {
    const output = { name: 'y', dtype: 'float32', shape: ['batch', 2] } as const;
    const { load, isOpen } = desk({
      fp32: {},
      broken: {
        onCreate: () => {
          throw new ModelError('ERR_INLAY_MODEL_INVALID', 'It is not ONNX.');
        },
      },
      half: { signature: { ...SIGNATURE, inputs: [{ name: 'x', dtype: 'float16', shape: ['batch', 2] }] } },
      renamed: { signature: { ...SIGNATURE, outputs: [{ ...output, name: 'z' }] } },
      fixed: { signature: { ...SIGNATURE, inputs: [{ name: 'x', dtype: 'float32', shape: [1, 2] }] } },
      flat: { signature: { ...SIGNATURE, outputs: [{ ...output, shape: ['batch'] }] } },
      more: { signature: { ...SIGNATURE, outputs: [output, { ...output, name: 'z' }] } },
      failing: { onRun: failed },
    });
    const serving = await load();
    expect(serving.variant).toBe('fp32');
    expect(
      Object.fromEntries(
        serving
          .info()
          .variants.slice(1)
          .map(({ variant, reason }) => [variant, reason]),
      ),
    ).toEqual({
      broken: 'it does not load: It is not ONNX.',
      half: 'its input "x" is float16, not float32',
      renamed: 'its output "z" is not one of the first variant',
      fixed: 'its input "x" has shape [1, 2], not [batch, 2]',
      flat: 'its output "y" has shape [batch], not [batch, 2]',
      more: 'it has 2 outputs, not 1',
      failing: 'it fails: The kernel is missing.',
    });
    expect(isOpen()).toEqual(['fp32']);
  });

  it('goes on without a variant that cannot be found', async () => {
    const { load, variants } = desk({ fp32: {}, int8: { ms: linear(0.1) } });
    variants[0] = {
      name: 'fp32',
      source: () => Promise.reject(new ModelError('ERR_INLAY_MODEL_NOT_FOUND', 'No file.')),
    };
    const serving = await load();
    expect(serving.variant).toBe('int8');
    expect(reasonOf(serving, 'fp32')).toBe('it does not load: No file.');
  });

  it('rejects with the first error when no variant remains', async () => {
    const { load, isOpen } = desk({
      fp32: {
        onCreate: () => {
          throw new ModelError('ERR_INLAY_MODEL_UNSUPPORTED', 'Opset 99.');
        },
      },
      int8: {
        onCreate: () => {
          throw new ModelError('ERR_INLAY_MODEL_INVALID', 'It is not ONNX.');
        },
      },
    });
    await expect(load()).rejects.toMatchObject({ code: 'ERR_INLAY_MODEL_UNSUPPORTED', message: 'Opset 99.' });
    expect(isOpen()).toEqual([]);
  });

  it('lists all reasons when no variant answers as expected', async () => {
    const { load, isOpen } = desk({ fp32: {}, int8: {} });
    const outputs = { y: new Tensor('float32', [1, 2], new Float32Array([7, 7])) };
    await expect(load({ golden: [{ feeds: sample(1, 2), outputs }] })).rejects.toMatchObject({
      code: 'ERR_INLAY_MODEL_UNSUPPORTED',
      message: expect.stringMatching(/fp32: its answer is not what is expected.*; int8: .*off by/) as string,
    });
    expect(isOpen()).toEqual([]);
  });

  it('judges the reference, too, by outputs that are given', async () => {
    const { load } = desk({ fp32: { error: 0.5 }, int8: { ms: linear(9), error: 0.01 } });
    const outputs = { y: new Tensor('float32', [1, 2], new Float32Array([2, 4])) };
    const serving = await load({ golden: [{ feeds: { x: [1, 2] }, outputs }] });
    expect(outcomes(serving)).toEqual({ int8: 'chosen', fp32: 'refused' });
  });

  it('takes the tolerance of the golden input, of the variant, of all, in this order', async () => {
    const files = { fp32: {}, int4: { ms: linear(0.1), error: 0.11 } };
    const chosen = async (rules: VariantRules): Promise<string> => (await desk(files).load(rules)).variant;
    expect(await chosen({ tolerance: { relative: 0.2 } })).toBe('int4');
    expect(await chosen({ tolerance: { relative: 0.2 }, tolerances: { int4: { relative: 0.1 } } })).toBe(
      'fp32',
    );
    expect(await chosen({ tolerances: { int4: { relative: 0.12 } } })).toBe('int4');
    const golden = [{ feeds: sample(1, 2), tolerance: { relative: 0.01 } }];
    expect(await chosen({ tolerances: { int4: { relative: 0.12 } }, golden })).toBe('fp32');
  });

  it('refuses golden inputs that do not fit, and releases what it has opened', async () => {
    const { load, isOpen } = desk({ fp32: {}, int8: {} });
    await expect(load({ golden: [{ feeds: { z: [1, 2] } }] })).rejects.toMatchObject({
      code: 'ERR_INLAY_FEED_MISSING',
    });
    const outputs = { z: new Tensor('float32', [1], new Float32Array(1)) };
    await expect(load({ golden: [{ feeds: sample(1, 2), outputs }] })).rejects.toMatchObject({
      code: 'ERR_INLAY_OUTPUT_UNKNOWN',
    });
    expect(isOpen()).toEqual([]);
  });

  it('refuses rules that are none', async () => {
    const { load } = desk({ fp32: {} });
    await expect(desk({}).load()).rejects.toThrow(TypeError);
    await expect(load({ tolerance: { relative: -1 } })).rejects.toThrow(RangeError);
    await expect(load({ tolerance: { agreement: 2 } })).rejects.toThrow(RangeError);
    await expect(load({ tolerances: { int8: {} } })).rejects.toThrow('"int8"');
  });

  it('chooses the first variant when the model takes no inputs that are made up', async () => {
    const { load, created, isOpen } = desk({ fp32: { onRun: failed }, int8: { onRun: failed } });
    const serving = await load();
    expect(serving.variant).toBe('fp32');
    expect(reasonOf(serving, 'fp32')).toMatch(/give golden inputs/);
    expect(isOpen()).toEqual(['fp32']);
    created.length = 0;
    await serving.close();
    expect((await load()).variant).toBe('fp32');
    expect(created).toEqual(['fp32']);
  });

  it('judges a GPU by what the first variant answers on the CPU', async () => {
    const gpu: ExecutionProvider[] = [
      { name: 'webgpu', device: 'gpu' },
      { name: 'cpu', device: 'cpu' },
    ];
    const { load, created, isOpen } = desk({ fp32: {}, int8: { ms: linear(0.1), error: 0.01 } }, gpu);
    const serving = await load({}, { device: 'gpu' });
    expect(serving.info()).toMatchObject({ variant: 'int8', provider: 'webgpu' });
    expect(created).toEqual(['fp32', 'fp32', 'int8']);
    expect(isOpen()).toEqual(['int8']);
  });

  it('has at most two variants open at once', async () => {
    const files = Object.fromEntries(Array.from({ length: 6 }, (_, i) => [`v${i}`, { ms: linear(6 - i) }]));
    const { load, mostOpen } = desk(files);
    expect((await load()).variant).toBe('v5');
    expect(mostOpen()).toBe(2);
  });

  it('counts calls, and not the runs of the comparison', async () => {
    const { load, metrics } = desk({ fp32: {}, int8: {} });
    const serving = await load();
    expect(metrics.read().calls).toMatchObject({ accepted: 0, answered: 0 });
    await ask(serving);
    expect(metrics.read().calls).toMatchObject({ accepted: 1, answered: 1 });
  });

  it('releases everything when the load is given up', async () => {
    for (const step of ['fp32', 'int8']) {
      const controller = new AbortController();
      const abort = (): void => controller.abort(new Error('enough'));
      const { load, isOpen, created } = desk({
        fp32: step === 'fp32' ? { onCreate: abort } : {},
        int8: step === 'int8' ? { onRun: abort } : {},
        int4: {},
      });
      await expect(load({}, { signal: controller.signal })).rejects.toThrow('enough');
      expect(isOpen()).toEqual([]);
      expect(created).not.toContain('int4');
    }
  });
});

describe('the choice of a variant', () => {
  const files = (): Record<string, Behaviour> => ({
    fp32: { ms: linear(4) },
    int8: { ms: linear(1), error: 0.02 },
  });

  it('is remembered: a later load opens only that variant, and knows why', async () => {
    const { load, created } = desk(files());
    const first = await load();
    await first.close();
    created.length = 0;
    const second = await load();
    expect(created).toEqual(['int8']);
    expect(second.info().variants).toEqual(first.info().variants);
    expect((await ask(second))['y']?.data).toEqual(new Float32Array([2 * 1.02, 4 * 1.02]));
  });

  it('is made again when a file, the rules, the options or the golden inputs are others', async () => {
    const { load, created, variants } = desk({ ...files(), int4: { ms: linear(0.1), error: 0.11 } });
    const loadAgain = async (...how: Parameters<typeof load>): Promise<number> => {
      created.length = 0;
      await (await load(...how)).close();
      return created.length;
    };
    expect(await loadAgain()).toBe(3);
    expect(await loadAgain()).toBe(1);
    expect(await loadAgain({ tolerance: { relative: 0.2 } })).toBe(3);
    expect(await loadAgain({}, { maxBatch: 2 })).toBe(3);
    expect(await loadAgain({}, { device: 'cpu' })).toBe(3);
    const golden = [{ feeds: sample(1, 2) }];
    expect(await loadAgain({ golden })).toBe(1 + 3);
    expect(await loadAgain({ golden })).toBe(1);
    expect(await loadAgain({ golden: [{ feeds: sample(1, 3) }] })).toBe(1 + 3);
    variants[2] = { name: 'int4', source: async () => ({ bytes: new Uint8Array([2, 2]) }) };
    expect(await loadAgain()).toBe(3);
  });

  it('is made again when the variant answers otherwise than it did, fails, or does not load any more', async () => {
    const flaws: Behaviour[] = [
      { error: 0.03 },
      { onRun: failed },
      {
        onCreate: () => {
          throw new ModelError('ERR_INLAY_MODEL_INVALID', 'Gone.');
        },
      },
    ];
    for (const flaw of flaws) {
      const all = files();
      const { load, created, isOpen } = desk(all);
      await (await load()).close();
      all['int8'] = { ms: linear(1), ...flaw };
      created.length = 0;
      const serving = await load();
      expect(created).toEqual(['int8', 'fp32', 'int8']);
      expect(isOpen()).toEqual([serving.variant]);
      await ask(serving);
    }
  });

  it('is made again when its record is damaged in any way', async () => {
    const { load, store, created } = desk(files());
    await (await load()).close();
    const record = await nameOfRecord(store);
    const good = await store.readRecord(record);
    const page = JSON.parse(new TextDecoder().decode(good)) as { attempts: { variant: string }[] };
    const [chosen, slower] = page.attempts;
    const damaged: unknown[] = [
      null,
      {},
      { ...page, format: 2 },
      { ...page, golden: 1 },
      { ...page, attempts: null },
      { ...page, attempts: [] },
      { ...page, attempts: [chosen] },
      { ...page, attempts: [chosen, chosen] },
      { ...page, attempts: [slower, chosen] },
      { ...page, attempts: [{ ...chosen, variant: 'fp64' }, slower] },
      { ...page, attempts: [{ ...chosen, runMs: -1 }, slower] },
      { ...page, attempts: [{ ...chosen, reason: 1 }, slower] },
      { ...page, outputs: [['y', 'float33', 2, '00']] },
      { ...page, outputs: [['y', 'float32', 2, '00']] },
      { ...page, outputs: [['y', 'float32', -1, '00']] },
      { ...page, outputs: [['y', 'float32', 2, 'zz']] },
      { ...page, outputs: 'y' },
    ];
    for (const content of damaged) {
      await store.updateRecord(record, () => toUtf8(JSON.stringify(content)));
      created.length = 0;
      const serving = await load();
      expect(created, JSON.stringify(content)).toEqual(['fp32', 'int8']);
      expect(serving.variant).toBe('int8');
      await serving.close();
      expect(await store.readRecord(record)).toEqual(good);
    }
  });

  it('survives any record', async () => {
    const { load, store } = desk(files());
    await (await load()).close();
    const record = await nameOfRecord(store);
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.uint8Array(), fc.json().map(toUtf8)), async (content) => {
        await store.updateRecord(record, () => content);
        const serving = await load();
        expect(serving.variant).toBe('int8');
        await serving.close();
      }),
      { numRuns: 25 },
    );
  });

  it('is made all the same when the store can neither be read nor written', async () => {
    const { load, parts } = desk(files());
    const readOnly = (): Promise<never> =>
      Promise.reject(new StoreError('ERR_INLAY_STORE_READ_ONLY', 'Read-only.'));
    const store: Store = { ...parts.store, readRecord: readOnly, updateRecord: readOnly };
    const serving = await load({}, { parts: { store } });
    expect(serving.variant).toBe('int8');
    await serving.close();
  });
});

/** The one record that a comparison writes. */
async function nameOfRecord(store: Store): Promise<string> {
  const names: string[] = [];
  const spy = desk({ fp32: { ms: linear(4) }, int8: { ms: linear(1), error: 0.02 } });
  const serving = await spy.load(
    {},
    {
      parts: {
        store: {
          ...spy.store,
          updateRecord: async (name, change) => {
            names.push(name);
            return spy.store.updateRecord(name, change);
          },
        },
      },
    },
  );
  await serving.close();
  const [name = ''] = names.filter((each) => each.startsWith('variant-'));
  expect(await store.readRecord(name)).toBeDefined();
  return name;
}

describe('a variant that fails in use', () => {
  /** The fastest fails on negative numbers once it is in use; the next best fails on those below -100. */
  const failingDesk = () => {
    let isInUse = false;
    const below = (limit: number) => (feeds: TensorMap) => {
      if (isInUse && ((feeds['x'] as Tensor<'float32'>).data[0] ?? 0) < limit) failed();
    };
    const made = desk({
      fp32: { ms: linear(4) },
      fp16: { ms: linear(2), onRun: below(-100) },
      int8: { ms: linear(1), onRun: below(0) },
    });
    return {
      ...made,
      load: async (rules: VariantRules = {}) => {
        const serving = await made.load(rules);
        isInUse = true;
        made.created.length = 0;
        return serving;
      },
    };
  };
  const bad = sample(-1, 0);

  it('makes way for the next best, and no call notices', async () => {
    const { load, isOpen, created } = failingDesk();
    const serving = await load({ golden: [{ feeds: sample(1, 2) }] });
    expect(serving.variant).toBe('int8');
    const answers = await Promise.all([ask(serving, bad), ask(serving), ask(serving, bad)]);
    expect(answers.map(({ y }) => y?.data[0])).toEqual([-2, 2, -2]);
    expect(serving.variant).toBe('fp16');
    expect(created).toEqual(['fp16']);
    expect(outcomes(serving)).toEqual({ fp16: 'chosen', fp32: 'slower', int8: 'refused' });
    expect(reasonOf(serving, 'int8')).toBe('it failed in use: The kernel is missing.');
    await ask(serving, sample(-200, 0));
    expect(serving.variant).toBe('fp32');
    await serving.close();
    expect(isOpen()).toEqual([]);
  });

  it('is not chosen by the next load', async () => {
    const { load, created } = failingDesk();
    const serving = await load({ golden: [{ feeds: sample(1, 2) }] });
    await ask(serving, bad);
    await serving.close();
    const again = await load({ golden: [{ feeds: sample(1, 2) }] });
    expect(again.variant).toBe('fp16');
    expect(outcomes(again)['int8']).toBe('refused');
    expect(created).toEqual([]);
  });

  it('stays when no other variant takes the feeds either, and others are seldom asked', async () => {
    const { load, created, isOpen } = failingDesk();
    const serving = await load({ golden: [{ feeds: sample(1, 2) }] });
    for (let i = 0; i < 100; i += 1) {
      await expect(ask(serving, sample(-200, 0))).rejects.toMatchObject({ code: 'ERR_INLAY_RUN_FAILED' });
    }
    expect(serving.variant).toBe('int8');
    // 1, 2, 4, … 64
    expect(created).toHaveLength(7);
    expect(isOpen()).toEqual(['int8']);
  });

  it('keeps to the deadline and the signal of the call', async () => {
    const { load, clock } = failingDesk();
    const serving = await load({ golden: [{ feeds: sample(1, 2) }] });
    const late = serving.run(bad, { deadlineMs: 2.5 }, () => {});
    await expect(late).rejects.toMatchObject({ code: 'ERR_INLAY_DEADLINE' });
    expect(clock.monotonicMs()).toBeGreaterThan(2.5);
    const other = await failingDesk().load({ golden: [{ feeds: sample(1, 2) }] });
    const controller = new AbortController();
    const call = other.run(bad, { signal: controller.signal }, () => {});
    await Promise.resolve().then(() => controller.abort(new Error('enough')));
    await expect(call).rejects.toThrow('enough');
    await other.close();
  });

  it('fails when the buffers of the call were handed over', async () => {
    const { load } = failingDesk();
    const serving = await load({ golden: [{ feeds: sample(1, 2) }] });
    await expect(serving.run(bad, { transfer: true }, () => {})).rejects.toMatchObject({
      code: 'ERR_INLAY_RUN_FAILED',
    });
    expect(serving.variant).toBe('int8');
  });

  it('tells that a call has settled once, when it has', async () => {
    const { load } = failingDesk();
    const serving = await load({ golden: [{ feeds: sample(1, 2) }] });
    let settled = 0;
    const count = (): void => {
      settled += 1;
    };
    await serving.run(bad, {}, count);
    await serving.run(sample(-200, 0), {}, count);
    expect(settled).toBe(2);
  });

  it('is released when its last call has ended, and not before', async () => {
    const { load, isOpen } = failingDesk();
    const serving = await load({ golden: [{ feeds: sample(1, 2) }] });
    const calls = Array.from({ length: 20 }, (_, i) => ask(serving, i === 7 ? bad : sample(i, 0)));
    await Promise.all(calls);
    await serving.close();
    expect(isOpen()).toEqual([]);
  });
});
