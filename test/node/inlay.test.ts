import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { createInlay, isInlayError, Tensor, type Inlay, type Model } from 'inlay';
import { createGraph, encodeModel } from 'inlay/onnx';
import * as ort from 'onnxruntime-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

/** `y = x · 2`, float32 [batch, 2]. */
function double(): Uint8Array<ArrayBuffer> {
  const graph = createGraph({ name: 'double', opset: 17 });
  graph.input('x', 'float32', ['batch', 2]);
  graph.initializer('two', new Tensor('float32', [1], new Float32Array([2])));
  graph.node('Mul', ['x', 'two'], {}, { outputs: ['y'] });
  graph.output('y', 'float32', ['batch', 2]);
  return encodeModel(graph.toModel());
}

let folder: string;
let path: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inlay-test-'));
  path = join(folder, 'double.onnx');
  await writeFile(path, double());
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function codeOf(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return isInlayError(error) ? error.code : `not an InlayError: ${String(error)}`;
}

async function answers(model: Model): Promise<void> {
  const { y } = await model.run({ x: [1, 2] });
  expect(y?.data).toEqual(new Float32Array([2, 4]));
}

describe.each(['worker', 'inline'] as const)('createInlay with placement %s', (placement) => {
  let inlay: Inlay;
  beforeAll(() => {
    inlay = createInlay({ placement });
  });
  afterAll(() => inlay.close());

  it('loads a path, a file URL, bytes and an ArrayBuffer', async () => {
    const bytes = double();
    for (const reference of [path, pathToFileURL(path), pathToFileURL(path).href, bytes, bytes.buffer]) {
      const model = await inlay.load(reference);
      await answers(model);
      await model.close();
    }
  });

  it('loads an http URL', async () => {
    const server = createServer((_request, response) => response.end(double())).listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address() as AddressInfo;
    try {
      await answers(await inlay.load(`http://127.0.0.1:${port}/double.onnx`));
    } finally {
      server.close();
    }
    expect(await codeOf(inlay.load(`http://127.0.0.1:${port}/double.onnx`))).toBe('ERR_INLAY_NETWORK');
  });

  it('gives what onnxruntime-node gives, bit for bit', async () => {
    const model = await inlay.load(path);
    const session = await ort.InferenceSession.create(path);
    const data = Float32Array.from({ length: 200 }, (_, i) => Math.fround((i - 100) * 0.123));
    const raw = await session.run({ x: new ort.Tensor('float32', data, [100, 2]) });
    const { y } = await model.run({ x: data });
    expect(y?.shape).toEqual([100, 2]);
    expect(y?.data).toEqual(raw['y']?.data);
  });

  it('tells its signature', async () => {
    const model = await inlay.load(path);
    expect(model.signature).toEqual({
      inputs: [{ name: 'x', dtype: 'float32', shape: ['batch', 2] }],
      outputs: [{ name: 'y', dtype: 'float32', shape: ['batch', 2] }],
    });
    expect(model.version).toBeUndefined();
  });

  it('says where a model runs and why nothing better was taken', async () => {
    const model = await inlay.load(path);
    const info = inlay.info().models.at(-1);
    expect(info).toMatchObject({ backend: 'onnxruntime-node', provider: 'cpu', placement });
    expect(info?.attempts.at(-1)).toMatchObject({ provider: 'cpu', outcome: 'chosen' });
    for (const attempt of info?.attempts.slice(0, -1) ?? []) expect(attempt.reason).toMatch(/\w/);
    await model.close();
  });

  it('refuses a file that is missing, a folder, text, and every beginning of a model', async () => {
    expect(await codeOf(inlay.load(join(folder, 'absent.onnx')))).toBe('ERR_INLAY_MODEL_NOT_FOUND');
    expect(await codeOf(inlay.load(folder))).toBe('ERR_INLAY_MODEL_NOT_FOUND');
    expect(await codeOf(inlay.load(new TextEncoder().encode('<!doctype html><html>')))).toBe(
      'ERR_INLAY_MODEL_INVALID',
    );
    const bytes = double();
    for (let length = 0; length < bytes.length; length += 1) {
      const code = await codeOf(inlay.load(bytes.slice(0, length)));
      expect(code, `${length} bytes`).toMatch(/^ERR_INLAY_MODEL_(INVALID|UNSUPPORTED)$/);
    }
    await answers(await inlay.load(path));
  });

  it('refuses bad feeds and goes on answering', async () => {
    const model = await inlay.load(path);
    const detached = new Float32Array(2);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    const refused: [Promise<unknown>, string][] = [
      [model.run({}), 'ERR_INLAY_FEED_MISSING'],
      [model.run({ x: [1, 2], z: 1 }), 'ERR_INLAY_FEED_UNKNOWN'],
      [model.run({ x: new Float64Array(2) }), 'ERR_INLAY_FEED_DTYPE'],
      [model.run({ x: new Float32Array(3) }), 'ERR_INLAY_FEED_SHAPE'],
      [model.run({ x: new Tensor('float32', [2], new Float32Array(2)) }), 'ERR_INLAY_FEED_SHAPE'],
      [model.run({ x: detached }), 'ERR_INLAY_FEED_DETACHED'],
      [model.run({ x: [1, 2] }, { outputs: ['nope'] }), 'ERR_INLAY_OUTPUT_UNKNOWN'],
    ];
    for (const [run, code] of refused) expect(await codeOf(run)).toBe(code);
    await answers(model);
  });

  it('leaves feeds usable, and hands them over only with `transfer`', async () => {
    const model = await inlay.load(path);
    const x = new Float32Array(100_000).fill(1);
    await model.run({ x });
    expect(x.length).toBe(100_000);
    const { y } = await model.run({ x }, { transfer: true });
    expect(y?.data).toEqual(new Float32Array(100_000).fill(2));
    expect(x.length).toBe(placement === 'worker' ? 0 : 100_000);
  });

  it('takes views of pooled and shared memory without touching their neighbours', async () => {
    const model = await inlay.load(path);
    const pooled = Buffer.from(new Float32Array([9, 3, 4, 9]).buffer);
    const view = new Float32Array(pooled.buffer, pooled.byteOffset + 4, 2);
    const shared = new Float32Array(new SharedArrayBuffer(8));
    shared.set([3, 4]);
    for (const x of [view, shared]) {
      const { y } = await model.run({ x }, { transfer: true });
      expect(y?.data).toEqual(new Float32Array([6, 8]));
      expect([...x]).toEqual([3, 4]);
    }
  });

  it('answers many calls at once, each with its own numbers', async () => {
    const model = await inlay.load(path);
    const runs = Array.from({ length: 200 }, (_, i) => model.run({ x: [i, -i] }));
    (await Promise.all(runs)).forEach(({ y }, i) =>
      expect(y?.data).toEqual(new Float32Array([2 * i, -2 * i])),
    );
  });

  it('runs over a source in order', async () => {
    const model = await inlay.load(path);
    const seen: number[] = [];
    for await (const { y } of model.runAll(feeds(20), { concurrency: 3 })) seen.push(Number(y?.data[0]));
    expect(seen).toEqual(Array.from({ length: 20 }, (_, i) => 2 * i));
  });

  it('refuses runs after close, and closes twice without complaint', async () => {
    const model = await inlay.load(path);
    const last = model.run({ x: [1, 2] });
    await Promise.all([model.close(), model.close()]);
    expect((await last)['y']?.data).toEqual(new Float32Array([2, 4]));
    expect(await codeOf(model.run({ x: [1, 2] }))).toBe('ERR_INLAY_CLOSED');
    await answers(await inlay.load(path));
  });
});

function* feeds(count: number): Generator<{ x: number[] }> {
  for (let i = 0; i < count; i += 1) yield { x: [i, i] };
}

describe('createInlay', () => {
  it('starts, reads and fetches nothing before it is asked to', () => {
    const before = process.getActiveResourcesInfo().length;
    createInlay({ sync: { url: 'http://127.0.0.1:9', root: '{}' } });
    expect(process.getActiveResourcesInfo()).toHaveLength(before);
  });

  it('closes its models, twice without complaint, and refuses loads afterwards', async () => {
    const inlay = createInlay();
    const model = await inlay.load(path);
    await Promise.all([inlay.close(), inlay.close()]);
    await inlay[Symbol.asyncDispose]();
    expect(await codeOf(model.run({ x: [1, 2] }))).toBe('ERR_INLAY_CLOSED');
    expect(await codeOf(inlay.load(path))).toBe('ERR_INLAY_CLOSED');
  });

  it.each<[string, () => unknown]>([
    ['a device', () => createInlay({ backends: [] }).load(path, { device: 'tpu' as 'cpu' })],
    ['a placement', () => createInlay({ placement: 'banana' as 'inline' })],
    ['a root', () => createInlay({ sync: { url: 'http://127.0.0.1:9' } as never })],
    ['a URL', () => createInlay({ sync: { root: '{}' } as never })],
    ['a model', () => createInlay({ backends: [] }).load(5 as never)],
    ['a model', () => createInlay({ backends: [] }).load({} as never)],
  ])('says what it wants of %s that is none', async (_, make) => {
    await expect(async () => make()).rejects.toThrow(TypeError);
  });

  it('says that a name needs a sync server', async () => {
    const inlay = createInlay();
    expect(await codeOf(inlay.load({ name: 'digits' }))).toBe('ERR_INLAY_MODEL_UNAVAILABLE');
    await inlay.close();
  });

  it('lists what was wrong with every device of a list', async () => {
    const inlay = createInlay({ placement: 'inline' });
    await expect(inlay.load(path, { device: ['npu9000', 'cuda'] })).rejects.toMatchObject({
      code: 'ERR_INLAY_DEVICE_UNAVAILABLE',
      message: expect.stringMatching(/npu9000.*cuda/) as string,
    });
    await answers(await inlay.load(path, { device: ['npu9000', 'cpu'] }));
    await inlay.close();
  });

  it('gives the source of a model that is half written no chance to be half read', async () => {
    const inlay = createInlay({ placement: 'inline' });
    const half = join(folder, 'half.onnx');
    await writeFile(half, (await readFile(path)).subarray(0, 60));
    expect(await codeOf(inlay.load(half))).toBe('ERR_INLAY_MODEL_INVALID');
    await writeFile(half, double());
    await answers(await inlay.load(half));
    await inlay.close();
  });
});
