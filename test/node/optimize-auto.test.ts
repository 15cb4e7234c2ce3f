import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, describe, expect, it } from 'vitest';
import type { TensorMap } from '../../src/core/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph, encodeModel, parseModel, type ModelProto } from '../../src/onnx/index.ts';
import { optimizeModel, type Optimized } from '../../src/optimize/optimize.ts';
import type { OptimizeOptions } from '../../src/optimize/options.ts';
import type { OptimizeRuntime } from '../../src/optimize/runtime.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';

const runtime = createNodeRuntime();
afterAll(() => runtime.close());
setFlagsFromString('--expose-gc');

/** mulberry32, as Gaussian numbers: the sum of uniform ones. */
function gaussian(seed: number, length: number, scale = 1): Float32Array<ArrayBuffer> {
  let state = seed;
  const random = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return Float32Array.from({ length }, () => scale * (random() + random() + random() + random() - 2));
}

/** Layers `width` → `width` with Relu between. */
function mlp(width: number, layers = 3, weightOf = gaussian): ModelProto {
  const graph = createGraph({ name: 'mlp', opset: 17 });
  let value = graph.input('x', 'float32', ['batch', width]);
  for (let i = 0; i < layers; i += 1) {
    const weight = weightOf(i + 1, width * width, 2 / Math.sqrt(width));
    const w = graph.initializer(`w${i}`, new Tensor('float32', [width, width], weight));
    const last = i === layers - 1;
    const product = graph.node('MatMul', [value, w], {}, { name: `fc${i}`, outputs: last ? 'y' : `p${i}` });
    value = last ? product : graph.node('Relu', [product], {}, { outputs: `r${i}` });
  }
  graph.output('y', 'float32', ['batch', width]);
  return parseModel(encodeModel(graph.toModel()));
}

const samples = (width: number, count = 16): TensorMap[] =>
  Array.from({ length: count }, (_, i) => ({
    x: new Tensor('float32', [1, width], gaussian(100 + i, width)),
  }));

/** Times as if a model took as long as it is large, whatever else this machine does. */
function bySize(
  cost: (sizeRatio: number, model: ModelProto) => number,
  original: Uint8Array,
): OptimizeRuntime {
  return {
    ...runtime,
    open: async (model, options) => {
      const session = await runtime.open(model, options);
      const ms = cost(model.length / original.length, parseModel(model));
      return { ...session, time: async (_, runs) => Array.from({ length: runs }, () => ms) };
    },
  };
}

async function optimize(
  model: ModelProto,
  options: Partial<OptimizeOptions> = {},
  cost: (sizeRatio: number, model: ModelProto) => number = (ratio) => ratio,
): Promise<Optimized> {
  return optimizeModel(model, {
    runtime: bySize(cost, encodeModel(model)),
    monotonicMs: () => performance.now(),
    runs: 2,
    ...options,
  });
}

describe('optimizeModel', () => {
  it('takes a model only if it is really faster here, and tells every candidate with its numbers', async () => {
    const model = mlp(512, 2);
    const {
      isChanged,
      decision,
      model: made,
    } = await optimizeModel(model, {
      runtime,
      monotonicMs: () => performance.now(),
      samples: samples(512, 8),
      runs: 4,
    });
    // How fast this machine is, and what else it does, is not for a test to say.
    const chosen = decision.attempts.find(({ outcome }) => outcome === 'chosen');
    expect(isChanged).toBe(chosen !== undefined);
    if (chosen === undefined) expect(made).toBe(model);
    else {
      expect(chosen.times?.[0]?.speedup).toBeGreaterThanOrEqual(0.97);
      expect(chosen.accuracy?.sqnrDb ?? 0).toBeGreaterThan(25);
      expect(encodeModel(made).length).toBeLessThan(0.3 * encodeModel(model).length);
    }
    expect(decision.attempts.some(({ layers = [] }) => layers.length > 0)).toBe(true);
    expect(decision.attempts.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['int8-dynamic', 'int8-block128', 'int8-static', 'fp16', 'pruned']),
    );
    expect(decision.attempts.every(({ reason }) => reason.length > 10)).toBe(true);
  });

  it('returns the original itself where nothing is faster, with the reason', async () => {
    const model = mlp(32);
    const { model: same, isChanged, decision } = await optimize(model, { samples: samples(32) }, () => 1);
    expect(same).toBe(model);
    expect([isChanged, decision.chosen]).toEqual([false, null]);
    expect(decision.reason).toBe(
      'nothing is more than 5 % faster than the original; int8-static was not tried: ranges of activations are not known; give calibration data',
    );
  });

  it('never takes a slower model, unless size is the goal', async () => {
    const model = mlp(32);
    const slower = (ratio: number): number => (ratio < 1 ? 1.2 : 1);
    const kept = await optimize(model, { samples: samples(32) }, slower);
    expect(kept.isChanged).toBe(false);
    expect(kept.decision.attempts[0]?.reason).toMatch(/0\.833 times as fast with 1 row, asked for are 0\.97/);
    const small = await optimize(model, { samples: samples(32), goal: { maxSizeRatio: 0.6 } }, slower);
    expect(small.isChanged).toBe(true);
    expect(encodeModel(small.model).length).toBeLessThan(0.6 * encodeModel(model).length);
  });

  it('asks each batch for the speed, not their mean', async () => {
    const model = mlp(32);
    const { decision } = await optimizeModel(model, {
      runtime: {
        ...runtime,
        open: async (bytes, options) => {
          const session = await runtime.open(bytes, options);
          const isOwn = bytes.length < encodeModel(model).length;
          return {
            ...session,
            time: async ({ x }, runs) =>
              Array(runs).fill(isOwn ? (x?.shape[0] === 1 ? 2 : 0.1) : 1) as number[],
          };
        },
      },
      monotonicMs: () => performance.now(),
      samples: samples(32),
      batches: [1, 8],
    });
    expect(decision.chosen).toBeNull();
    expect(decision.goal.isBatchInvariant).toBe(true);
    expect(decision.attempts.find(({ name }) => name === 'int8-row')?.reason).toMatch(
      /0\.5 times as fast with 1 row/,
    );
  });

  it('leaves layers in floats until the accuracy holds', async () => {
    // One weight a hundred times as large as the others takes all the steps of its channel's scale.
    const spiky = (seed: number, length: number, scale?: number): Float32Array<ArrayBuffer> => {
      const weights = gaussian(seed, length, scale);
      if (seed === 1) for (let i = 0; i < 64; i += 1) weights[i] = 100 * (weights[i] ?? 0);
      return weights;
    };
    const model = mlp(64, 4, spiky);
    const { decision, isChanged } = await optimize(model, {
      samples: samples(64),
      goal: { minSqnrDb: 36 },
      technique: { kind: 'dynamic', mode: 'tensor' },
    });
    const mixed = decision.attempts.find(({ name }) => name.endsWith('-mixed'));
    expect(mixed?.excluded?.[0]).toBe('fc0');
    expect([isChanged, mixed?.outcome]).toEqual([true, 'chosen']);
    expect(mixed?.accuracy?.sqnrDb ?? 0).toBeGreaterThanOrEqual(36);
  });

  it('makes inputs up where none are given, and says so loudly', async () => {
    const { decision } = await optimize(mlp(32));
    expect(decision.samples).toEqual({ count: 8, isMadeUp: true });
    expect(decision.warnings.join()).toMatch(/No inputs are given/);
  });

  it('takes static quantization with calibration data only', async () => {
    const model = mlp(32);
    const without = await optimize(model, { samples: samples(32) });
    const held = without.decision.attempts.find(({ name }) => name === 'int8-static');
    expect([held?.outcome, held?.reason]).toEqual(['dismissed', expect.stringContaining('calibration data')]);
    const withData = await optimize(model, { samples: samples(32), calibration: { data: samples(32, 20) } });
    expect(withData.decision.calibration).toEqual({ method: 'percentile', samples: 20 });
    const made = withData.decision.attempts.find(({ name }) => name === 'int8-static');
    expect(made?.accuracy?.sqnrDb ?? 0).toBeGreaterThan(15);
    await expect(optimize(model, { technique: { kind: 'static' } })).rejects.toMatchObject({
      code: 'ERR_INLAY_FEED_MISSING',
    });
  });

  it('lets the measure of the user decide', async () => {
    const model = mlp(32);
    const { decision, isChanged } = await optimize(model, {
      samples: samples(32),
      evaluate: { score: async ({ inputs }) => inputs.length, min: 2 },
    });
    expect(isChanged).toBe(false);
    expect(decision.attempts[0]?.reason).toMatch(/it scores 1, asked for are 2/);
  });

  it('rewrites a model with an operator that nobody knows only where a technique is asked for', async () => {
    const graph = createGraph({ name: 'custom', opset: { '': 17, 'my.own': 1 } });
    graph.input('x', 'float32', ['batch', 32]);
    const w = graph.initializer('w', new Tensor('float32', [32, 32], gaussian(1, 1024)));
    const p = graph.node('MatMul', ['x', w]);
    graph.node('Sparkle', [p], {}, { outputs: ['y'], domain: 'my.own' });
    graph.output('y', 'float32', ['batch', 32]);
    const model = graph.toModel();
    const auto = await optimize(model);
    expect([auto.model, auto.isChanged]).toEqual([model, false]);
    expect(auto.decision.reason).toMatch(/nothing was measured/);
    const asked = await optimize(model, { technique: { kind: 'dynamic' } });
    expect(asked.isChanged).toBe(true);
    expect(asked.model.graph.node.some(({ opType }) => opType === 'MatMulInteger')).toBe(true);
    expect(asked.report.toMarkdown()).toContain('nothing was measured');
  });

  it('gives golden inputs with the answers of the original', async () => {
    const model = mlp(32);
    const given = samples(32);
    const { golden } = await optimize(model, { samples: given });
    expect(golden).toHaveLength(4);
    const session = await runtime.open(encodeModel(model));
    const { y } = await session.run(given[0] ?? {});
    await session.release();
    expect(golden[0]?.outputs['y']?.data).toEqual(y?.data);
  });

  it('holds in memory no model that was tried and does not run', async () => {
    const model = mlp(256, 2);
    const collect = runInNewContext('gc') as () => void;
    const held = new Map<string, number>();
    const { decision } = await optimize(model, {
      samples: samples(256, 2),
      calibration: { data: samples(256, 2) },
      goal: { maxSizeRatio: 0.9 },
      onProgress: ({ step }) => {
        if (held.has(step) || !step.startsWith('comparing')) return;
        // The second time waits for what the first one frees on other threads.
        collect();
        collect();
        held.set(step, process.memoryUsage().arrayBuffers);
      },
    });
    const made = decision.attempts.reduce((sum, { sizeBytes = 0 }) => sum + sizeBytes, 0);
    const grown = (held.get('comparing layers') ?? Infinity) - (held.get('comparing answers') ?? 0);
    expect(made).toBeGreaterThan(500_000);
    expect(grown).toBeLessThan(made / 2);
  });

  it('stops where it is told to', async () => {
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(optimize(mlp(32), { signal })).rejects.toThrow('enough');
  });

  it.each([
    [{ batches: [0] }, 'Batches'],
    [{ goal: { minAgreement: 2 } }, 'minAgreement'],
    [{ goal: { minSqnrDb: Number.NaN } }, 'minSqnrDb'],
  ])('refuses %j', async (options, name) => {
    await expect(optimize(mlp(8), options)).rejects.toThrow(name);
  });
});
