import { fileURLToPath } from 'node:url';
import { context, trace } from '@opentelemetry/api';
import * as api from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import { createInlay, type Inlay, type NodeInlayOptions } from 'inlay';
import { afterEach, describe, expect, it } from 'vitest';

const digits = fileURLToPath(new URL('../../examples/digits/digits-1.1.0.onnx', import.meta.url));

const opened: Inlay[] = [];
function open(options: NodeInlayOptions = {}): Inlay {
  const inlay = createInlay({ device: 'cpu', workers: 1, ...options });
  opened.push(inlay);
  return inlay;
}
afterEach(async () => {
  await Promise.all(opened.splice(0).map((inlay) => inlay.close()));
});

function picture(seed: number): Float32Array {
  return Float32Array.from({ length: 784 }, (_, i) => ((i * 31 + seed * 17) % 97) / 97);
}

describe('calls of a batchable model', () => {
  it('share batches, and each gets its own rows', async () => {
    const inlay = open();
    const model = await inlay.load(digits);
    const images = Array.from({ length: 100 }, (_, seed) => picture(seed));
    const alone: Float32Array[] = [];
    for (const image of images) alone.push((await model.run({ image }))['logits']?.data as Float32Array);
    const together = await Promise.all(images.map((image) => model.run({ image })));
    together.forEach(({ logits }, at) => {
      const difference = Math.max(
        ...(logits?.data as Float32Array).map((value, i) => Math.abs(value - (alone[at]?.[i] ?? Number.NaN))),
      );
      expect(difference).toBeLessThan(1e-3);
    });
    expect(model.stats().batchSize.max).toBeGreaterThan(1);
    expect(inlay.info().models[0]?.queue.unbatchable).toBeUndefined();
  });

  it('run alone with maxBatch 1', async () => {
    const inlay = open();
    const model = await inlay.load(digits, { maxBatch: 1 });
    await Promise.all(Array.from({ length: 20 }, (_, seed) => model.run({ image: picture(seed) })));
    expect(model.stats()).toMatchObject({ batches: 20, dispatches: { solo: 20 }, batchSize: { max: 1 } });
    expect(inlay.info().models[0]?.queue.unbatchable).toBe('maxBatch is 1');
  });

  it('refuse options that make no sense', async () => {
    const inlay = open();
    for (const options of [{ maxBatch: 0 }, { weight: -1 }, { linger: -1 }, { maxWaiting: 0.5 }]) {
      await expect(inlay.load(digits, options)).rejects.toThrow(RangeError);
    }
    await expect(inlay.load(digits, { deadlineMs: -1 })).rejects.toThrow(RangeError);
    expect(() => createInlay({ memoryBudgetBytes: 0 })).toThrow(RangeError);
    const model = await inlay.load(digits);
    await expect(model.run({ image: picture(0) }, { priority: 0.5 })).rejects.toThrow(RangeError);
    await expect(model.run({ image: picture(0) }, { deadlineMs: Number.NaN })).rejects.toThrow(RangeError);
  });
});

describe('several variants', () => {
  it('are compared, and the fastest that is right answers', async () => {
    const inlay = open();
    const other = fileURLToPath(new URL('../../examples/digits/digits-1.0.0.onnx', import.meta.url));
    const broken = new Uint8Array([1, 2, 3]);
    const model = await inlay.load({ variants: { good: digits, different: other, broken } });
    expect(model.variant).toBe('good');
    const [info] = inlay.info().models;
    expect(info?.variants?.map(({ variant, outcome }) => [variant, outcome])).toEqual([
      ['good', 'chosen'],
      ['different', 'refused'],
      ['broken', 'refused'],
    ]);
    expect((await model.run({ image: picture(1) }))['logits']?.shape).toEqual([1, 10]);
    await expect(inlay.load({ variants: {} })).rejects.toThrow(TypeError);
  });
});

describe('the predictions cache', () => {
  it('answers feeds that come again, for models that ask for it', async () => {
    const inlay = open({ predictions: { maxBytes: 2 ** 20 } });
    const [cached, plain] = [await inlay.load(digits, { predictions: true }), await inlay.load(digits)];
    expect(inlay.info().predictions).toMatchObject({ hits: 0, entries: 0 });
    const answers = [];
    for (let i = 0; i < 5; i += 1) answers.push(await cached.run({ image: picture(1) }));
    const { hits, misses } = inlay.info().predictions ?? {};
    expect({ hits, misses }).toEqual({ hits: 3, misses: 2 });
    expect(answers.at(-1)?.['logits']?.data).toEqual(answers[0]?.['logits']?.data);
    await Promise.all([plain.run({ image: picture(1) }), plain.run({ image: picture(1) })]);
    expect(plain.stats().calls.answered).toBe(2);
    await cached.close();
    expect(inlay.info().predictions).toMatchObject({ entries: 0 });
  });

  it('makes one run of many equal calls, and gives each its own memory', async () => {
    const inlay = open();
    const model = await inlay.load(digits, { predictions: true });
    const answers = await Promise.all(Array.from({ length: 32 }, () => model.run({ image: picture(2) })));
    expect(model.stats().samples).toBe(1);
    const buffers = new Set(answers.map(({ logits }) => (logits?.data as Float32Array).buffer));
    expect(buffers.size).toBe(32);
    await expect(model.run({ image: picture(2) }, { outputs: ['nothing'] })).rejects.toMatchObject({
      code: 'ERR_INLAY_OUTPUT_UNKNOWN',
    });
    expect(model.stats().inFlight).toBe(0);
  });
});

describe('a pipeline', () => {
  it('joins functions and models, whose calls share batches', async () => {
    const inlay = open();
    const model = await inlay.load(digits);
    const pipeline = await inlay.pipeline({
      steps: {
        draw: {
          inputs: ['seed'],
          run: ({ seed }: { seed: number }) => ({ image: picture(seed) }),
          outputs: ['image'],
        },
        classify: { model, inputs: { image: 'image' }, outputs: { logits: 'logits' } },
      },
      outputs: ['logits'],
    });
    const answers = await Promise.all(Array.from({ length: 16 }, (_, seed) => pipeline.run({ seed })));
    expect(answers).toHaveLength(16);
    const direct = await model.run({ image: picture(3) });
    expect((answers[3]?.logits as { data: Float32Array }).data[0]).toBeCloseTo(
      (direct['logits']?.data as Float32Array)[0] ?? Number.NaN,
      3,
    );
    expect(model.stats().batchSize.max).toBeGreaterThan(1);
    await model.close();
    await expect(pipeline.run({ seed: 1 })).rejects.toMatchObject({ code: 'ERR_INLAY_CLOSED' });
  });
});

describe('observability', () => {
  it('writes metrics for Prometheus', async () => {
    const inlay = open();
    expect(inlay.metrics()).toBe('');
    const model = await inlay.load(digits);
    await model.run({ image: picture(0) });
    expect(inlay.metrics()).toMatch(/^nv_inference_request_success\{[^}]*\} 1$/m);
  });

  it('makes a span of each call, below the one that is active, and one of each batch', async () => {
    const exporter = new InMemorySpanExporter();
    const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
    const contexts = new AsyncLocalStorageContextManager().enable();
    context.setGlobalContextManager(contexts);
    trace.setGlobalTracerProvider(provider);
    try {
      // Found by itself, since a provider is registered.
      const inlay = open();
      const model = await inlay.load(digits);
      const parent = provider.getTracer('test').startSpan('request');
      await context.with(trace.setSpan(context.active(), parent), () =>
        Promise.all([model.run({ image: picture(1) }), model.run({ image: picture(2) })]),
      );
      parent.end();
      const spans = exporter.getFinishedSpans();
      const calls = spans.filter(({ name }) => name === 'inlay.run');
      expect(calls).toHaveLength(2);
      for (const call of calls) expect(call.parentSpanContext?.spanId).toBe(parent.spanContext().spanId);
      const batches = spans.filter(({ name }) => name === 'inlay.batch');
      expect(batches).toHaveLength(1);
      expect(batches[0]?.links).toHaveLength(2);
      exporter.reset();
      const silent = open({ tracing: false });
      await (await silent.load(digits)).run({ image: picture(1) });
      expect(exporter.getFinishedSpans()).toHaveLength(0);
      const explicit = open({ tracing: api });
      await (await explicit.load(digits)).run({ image: picture(1) });
      expect(exporter.getFinishedSpans().length).toBeGreaterThan(0);
    } finally {
      trace.disable();
      context.disable();
    }
  });

  it('tells a logger what it decides', async () => {
    const said: string[] = [];
    const hear = (_: object, message: string): void => void said.push(message);
    const inlay = open({ logger: { debug: hear, info: hear, warn: hear, error: hear } });
    await inlay.load(digits);
    expect(said).toContain('A model is ready.');
  });
});
