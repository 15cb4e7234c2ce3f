import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph, encodeModel, parseModel } from '../../src/onnx/index.ts';
import type { OptimizeRuntime } from '../../src/optimize/runtime.ts';
import { createIsolatedRuntime } from '../../src/optimize-node/isolated.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';
import { createWasmRuntime } from '../../src/optimize-node/wasm.ts';
import { blockProduct, dense, denseFeeds, rowProduct } from './optimize-audit-models.ts';

// Before the processes that inherit it.
const folder = mkdtempSync(join(tmpdir(), 'inlay-optimize-'));
vi.stubEnv('TMPDIR', folder);

const host = new URL('../../build/optimize-node/isolated-host.js', import.meta.url);
const runtimes: Readonly<Record<string, OptimizeRuntime>> = {
  'node-cpu': createNodeRuntime(),
  wasm: createWasmRuntime(),
  'node-cpu, isolated': createIsolatedRuntime('node-cpu', 'isolated', host),
  'wasm, isolated': createIsolatedRuntime('wasm', 'isolated', host),
};
afterAll(async () => {
  for (const runtime of Object.values(runtimes)) await runtime.close();
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

const model = encodeModel(dense());
const closeTo = (expected: Tensor | undefined, actual: Tensor | undefined): number =>
  Math.max(...Array.from(expected?.data as Float32Array, (x, i) => Math.abs(x - Number(actual?.data[i]))));

describe.each(Object.entries(runtimes))('the runtime %s', (_, runtime) => {
  it('says what models take and give, and runs them', async () => {
    const session = await runtime.open(model);
    expect(session.inputs).toEqual([{ name: 'x', dtype: 'float32', shape: ['batch', 16] }]);
    expect(session.outputs).toEqual([{ name: 'y', dtype: 'float32', shape: ['batch', 16] }]);
    const { x } = denseFeeds(3);
    const { y } = await session.run({ x: x as Tensor });
    expect(y).toBeInstanceOf(Tensor);
    expect(y?.shape).toEqual([3, 16]);
    const row = Array.from({ length: 16 }, (__, j) =>
      Math.max(
        0,
        Array.from({ length: 16 }, (___, i) => Math.cos(i * 1.7) * Math.sin(16 * i + j)).reduce(
          (a, b) => a + b,
        ),
      ),
    );
    expect(closeTo(new Tensor('float32', [16], Float32Array.from(row)), y)).toBeLessThan(1e-4);
    await session.release();
  });

  it('times each of the runs that it is asked for', async () => {
    const session = await runtime.open(model, { level: 'basic' });
    const times = await session.time(denseFeeds(2), 4);
    expect(times).toHaveLength(4);
    expect(times.every((ms) => ms > 0 && ms < 10_000)).toBe(true);
    await session.release();
  });

  it('gives errors of the model, of feeds and of what was released as what they are', async () => {
    await expect(runtime.open(Uint8Array.of(1, 2, 3))).rejects.toMatchObject({
      name: 'ModelError',
      code: 'ERR_INLAY_MODEL_INVALID',
    });
    const session = await runtime.open(model);
    const wrong = { x: new Tensor('float32', [1, 3], new Float32Array(3)) };
    await expect(session.run(wrong)).rejects.toMatchObject({ code: 'ERR_INLAY_FEED_SHAPE' });
    await expect(session.time(wrong, 1)).rejects.toMatchObject({ code: 'ERR_INLAY_FEED_SHAPE' });
    await session.release();
    await session.release();
    await expect(session.run(denseFeeds(1))).rejects.toMatchObject({ code: 'ERR_INLAY_CLOSED' });
  });

  it('runs what techniques make: scales for each row, blocks of 4 bits', async () => {
    const rows = await runtime.open(encodeModel(rowProduct()));
    expect((await rows.run(denseFeeds(2)))['y']?.shape).toEqual([2, 16]);
    await rows.release();
    const blocks = await runtime.open(encodeModel(blockProduct({ bias: [16], level: 4 })));
    const x = new Tensor('float32', [1, 64], new Float32Array(64).fill(1));
    expect((await blocks.run({ x }, ['y']))['y']?.shape).toEqual([1, 16]);
    await blocks.release();
  });

  it('tells how much memory its process holds', async () => {
    expect(await runtime.memoryBytes?.()).toBeGreaterThan(1e7);
  });
});

describe.each(['node-cpu', 'node-cpu, isolated'])('the graph of %s', (name) => {
  const runtime = runtimes[name] as OptimizeRuntime;
  const operators = async (level: 'disabled' | 'all'): Promise<readonly (string | undefined)[]> =>
    parseModel((await runtime.optimized?.(model, level)) as Uint8Array).graph.node.map(
      ({ opType }) => opType,
    );

  it('is that of the level, and leaves no file behind', async () => {
    expect(await operators('disabled')).toEqual(['MatMul', 'Relu']);
    expect(await operators('all')).not.toEqual(['MatMul', 'Relu', 'Identity']);
    await expect(runtime.optimized?.(Uint8Array.of(1), 'all')).rejects.toMatchObject({
      code: 'ERR_INLAY_MODEL_INVALID',
    });
    expect(readdirSync(folder).filter((file) => file.startsWith('inlay-'))).toEqual([]);
  });
});

describe('runtimes', () => {
  it('take the bytes of a Buffer in the middle of another, and of shared memory', async () => {
    const padded = Buffer.concat([Buffer.alloc(3), model, Buffer.alloc(5)]).subarray(3, 3 + model.length);
    const shared = new Uint8Array(new SharedArrayBuffer(model.length));
    shared.set(model);
    for (const runtime of Object.values(runtimes)) {
      for (const bytes of [padded, shared]) await (await runtime.open(bytes)).release();
    }
  });

  it('give strings and wide integers as they are', async () => {
    const graph = createGraph({ name: 'identity', opset: 17 });
    graph.input('text', 'string', ['n']);
    graph.input('wide', 'int64', ['n']);
    graph.node('Identity', ['text'], {}, { outputs: 'a' });
    graph.node('Identity', ['wide'], {}, { outputs: 'b' });
    graph.output('a', 'string', ['n']);
    graph.output('b', 'int64', ['n']);
    const bytes = encodeModel(graph.toModel());
    const feeds = {
      text: new Tensor('string', [2], ['ä', '']),
      wide: new Tensor('int64', [2], BigInt64Array.of(-(2n ** 62n), 7n)),
    };
    for (const runtime of Object.values(runtimes)) {
      const session = await runtime.open(bytes);
      const { a, b } = await session.run(feeds);
      expect([a?.toArray(), b?.toArray()]).toEqual([
        ['ä', ''],
        [-(2n ** 62n), 7n],
      ]);
      await session.release();
    }
  });

  it('refuse several threads where there can be one only', async () => {
    await expect(runtimes['wasm']?.open(model, { threads: 2 })).rejects.toMatchObject({
      code: 'ERR_INLAY_BACKEND_UNAVAILABLE',
    });
  });

  it('open nothing after they were closed', async () => {
    for (const make of [createNodeRuntime, createWasmRuntime]) {
      const runtime = make();
      await runtime.close();
      await expect(runtime.open(model)).rejects.toMatchObject({ code: 'ERR_INLAY_CLOSED' });
    }
  });
});

describe('a process that a model kills', () => {
  const crashing = new URL('./fixtures/optimize-host-crash.mjs', import.meta.url);

  it('is an error of that run, and another process takes its place', async () => {
    const runtime = createIsolatedRuntime('node-cpu', 'crashing', crashing);
    const first = await runtime.open(model);
    const lost = { name: 'BackendError', code: 'ERR_INLAY_WORKER_LOST' };
    await expect(first.run({})).rejects.toMatchObject(lost);
    await expect(first.run({})).rejects.toMatchObject(lost);
    const second = await runtime.open(model);
    await expect(first.run({})).rejects.toMatchObject(lost);
    await first.release();
    await second.release();
    await runtime.close();
    await expect(runtime.open(model)).rejects.toMatchObject({ code: 'ERR_INLAY_CLOSED' });
  });

  it('that does not start is an error too', async () => {
    const runtime = createIsolatedRuntime('wasm', 'missing', new URL('./fixtures/none.mjs', import.meta.url));
    await expect(runtime.open(model)).rejects.toMatchObject({ code: 'ERR_INLAY_WORKER_LOST' });
    await runtime.close();
  });
});
