/** The files of a TensorFlow.js model: archives, folders, URLs, and what is wrong with them. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as tf from '@tensorflow/tfjs';
import fc from 'fast-check';
import { zipSync } from 'fflate';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { tfjs } from '../../src/backends/tfjs-node.ts';
import { readModel } from '../../src/backends/tfjs-files.ts';
import { measureStrings, parseManifest } from '../../src/backends/tfjs-manifest.ts';
import type { Backend, ModelSource } from '../../src/core/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { errorOf } from '../conformance/backend.ts';
import { floats } from '../conformance/backend-models.ts';
import { createTfGraph, tfPerceptron, tfPerceptronParts, toZip } from '../conformance/backend-models-tfjs.ts';

let backend: Backend;
let folder: string;
const requested: string[] = [];
let served: Record<string, Uint8Array> = {};
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'inlay-tfjs-'));
  backend = tfjs({
    tf,
    fetch: async (url) => {
      requested.push(url);
      const body = served[url];
      return body === undefined ? new Response('', { status: 404 }) : new Response(body.slice());
    },
  });
});
afterAll(async () => {
  await backend.close();
  await rm(folder, { recursive: true });
});

const image = new Tensor('float32', [2, 64], floats(128));
const run = async (source: ModelSource): Promise<unknown> => {
  const session = await backend.createSession(source, { provider: 'cpu' });
  const { logits } = await session.run({ image });
  await session.release();
  return logits?.data;
};
const open = (bytes: Uint8Array): Promise<unknown> => backend.createSession({ bytes }, { provider: 'cpu' });
const toBytes = (json: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(json));

describe('a model', () => {
  it('is the same stored or deflated, in one file or several, in an archive, a folder or at a URL', async () => {
    const { json, shards } = tfPerceptronParts();
    const expected = await run({ bytes: tfPerceptron() });
    expect(await run({ bytes: tfPerceptron(32, 0) })).toEqual(expected);
    expect(await run({ bytes: toZip(json, shards, 6) })).toEqual(expected);

    const inFolder = Object.entries({ 'model.json': toBytes(json), ...shards }).map(([name, bytes]) => [
      `exported/web/${name}`,
      bytes,
    ]);
    expect(await run({ bytes: zipSync(Object.fromEntries(inFolder) as Record<string, Uint8Array>) })).toEqual(
      expected,
    );

    await mkdir(join(folder, 'sub'));
    for (const [name, bytes] of Object.entries(shards)) await writeFile(join(folder, name), bytes);
    const path = join(folder, 'model.json');
    await writeFile(path, toBytes(json));
    expect(await run({ path })).toEqual(expected);

    const base = 'https://models.example/digits/3/';
    served = Object.fromEntries(Object.entries(shards).map(([name, bytes]) => [base + name, bytes]));
    expect(await run({ bytes: toBytes(json), url: `${base}model.json?v=3` })).toEqual(expected);
    expect(requested).toEqual(['a1.bin', 'a2.bin', 'sub/a3.bin', 'b.bin'].map((name) => base + name));
  });

  it('may be called as browsers save it, beside other files', async () => {
    const { json, shards } = tfPerceptronParts();
    const files = { 'digits.json': toBytes(json), 'labels.txt': new Uint8Array(3), ...shards };
    expect(await run({ bytes: zipSync(files) })).toEqual(await run({ bytes: tfPerceptron() }));
    const two = zipSync({ 'a.json': toBytes(json), 'b.json': toBytes(json), ...shards });
    expect(await errorOf(open(two))).toMatchObject({ code: 'ERR_INLAY_MODEL_INVALID' });
  });

  it('may have a byte order mark and no weights', async () => {
    const graph = createTfGraph();
    graph.input('x', 'float32', ['n']);
    graph.node('Relu', 'y', ['x']);
    const { json } = graph.files();
    const bytes = new TextEncoder().encode(`\uFEFF${JSON.stringify(json)}`);
    const session = await backend.createSession({ bytes }, { provider: 'cpu' });
    expect(session.signature.outputs).toEqual([{ name: 'y', dtype: 'float32', shape: [null] }]);
    await session.release();
  });
});

describe('weights', () => {
  it('that are missing are named', async () => {
    const { json, shards } = tfPerceptronParts();
    const { 'b.bin': _, ...some } = shards;
    const base = 'https://models.example/some/';
    served = Object.fromEntries(Object.entries(some).map(([name, bytes]) => [base + name, bytes]));
    await mkdir(join(folder, 'some/sub'), { recursive: true });
    const path = join(folder, 'some', 'model.json');
    await writeFile(path, toBytes(json));
    for (const [name, bytes] of Object.entries(some)) await writeFile(join(folder, 'some', name), bytes);
    for (const source of [
      { bytes: toZip(json, some) },
      { path },
      { bytes: toBytes(json), url: `${base}model.json` },
    ]) {
      const error = await errorOf(backend.createSession(source, { provider: 'cpu' }));
      expect(error).toMatchObject({ code: 'ERR_INLAY_MODEL_NOT_FOUND', details: { path: 'b.bin' } });
      expect(String(error)).toContain('"b.bin"');
    }
  });

  it('cannot be found for a lone model.json, and the message says what to do', async () => {
    const bytes = toBytes(tfPerceptronParts().json);
    for (const url of [
      undefined,
      'model.json',
      'data:application/json,%7B%7D',
      'blob:https://models.example/1',
    ]) {
      const source = { bytes, ...(url !== undefined && { url }) };
      const error = await errorOf(backend.createSession(source, { provider: 'cpu' }));
      expect(error).toMatchObject({ code: 'ERR_INLAY_MODEL_NOT_FOUND' });
      expect(String(error)).toContain('pack its folder into one ZIP archive');
    }
  });

  it('of another length than described are refused', async () => {
    const { json, shards } = tfPerceptronParts();
    const file = shards['b.bin'];
    expect(await errorOf(open(toZip(json, { ...shards, 'b.bin': file.subarray(0, -4) })))).toMatchObject({
      code: 'ERR_INLAY_MODEL_TRUNCATED',
    });
    expect(
      await errorOf(open(toZip(json, { ...shards, 'b.bin': new Uint8Array(file.length + 4) }))),
    ).toMatchObject({
      code: 'ERR_INLAY_MODEL_INVALID',
    });
  });

  it('are not read beyond what is described', async () => {
    const { json, shards } = tfPerceptronParts();
    const base = 'https://models.example/endless/';
    let sent = 0;
    let isCancelled = false;
    const endless = tfjs({
      tf,
      fetch: async (url) =>
        url.endsWith('b.bin')
          ? new Response(
              new ReadableStream({
                pull: (controller) => {
                  sent += 65_536;
                  controller.enqueue(new Uint8Array(65_536));
                },
                cancel: () => {
                  isCancelled = true;
                },
              }),
            )
          : new Response((shards[url.slice(base.length)] as Uint8Array).slice()),
    });
    const source = { bytes: toBytes(json), url: `${base}model.json` };
    expect(await errorOf(endless.createSession(source, { provider: 'cpu' }))).toMatchObject({
      code: 'ERR_INLAY_MODEL_INVALID',
    });
    expect(isCancelled).toBe(true);
    expect(sent).toBeLessThan(1_000_000);
  });

  it('that are larger than wanted are refused before any is read', async () => {
    const { json, shards } = tfPerceptronParts();
    const sizeBytes = Object.values(shards).reduce((sum, { length }) => sum + length, 0);
    const asked: string[] = [];
    const openWith = (maxBytes: number, weightsManifest = json['weightsManifest']): Promise<unknown> => {
      const fetch = async (url: string): Promise<Response> => {
        asked.push(url);
        return new Response((shards[new URL(url).pathname.slice(1)] as Uint8Array).slice());
      };
      const source = {
        bytes: toBytes({ ...json, weightsManifest }),
        url: 'https://models.example/model.json',
      };
      return readModel(source, { fetch, maxBytes });
    };
    const refusal = { code: 'ERR_INLAY_MODEL_UNSUPPORTED', details: { sizeBytes, maxBytes: sizeBytes - 1 } };
    expect(await errorOf(openWith(sizeBytes - 1))).toMatchObject(refusal);
    const vast = [{ paths: ['b.bin'], weights: [{ name: 'w', shape: [250e9], dtype: 'float32' }] }];
    expect(await errorOf(openWith(2 ** 31, vast))).toMatchObject({ code: 'ERR_INLAY_MODEL_UNSUPPORTED' });
    expect(asked).toEqual([]);
    await openWith(sizeBytes);
    expect(asked).toHaveLength(4);
    for (const maxBytes of [0, -1, 0.5, NaN]) expect(() => tfjs({ tf, maxBytes })).toThrow(RangeError);
  });

  it('with strings are not read beyond what is wanted, all files together', async () => {
    const word = new Uint8Array([6, 0, 0, 0, 1, 2, 3, 4, 5, 6]);
    const group = (name: string) => ({
      paths: [`${name}.bin`],
      weights: [{ name, shape: [1], dtype: 'string' }],
    });
    const { json } = tfPerceptronParts();
    const bytes = toZip(
      { ...json, weightsManifest: [group('a'), group('b')] },
      { 'a.bin': word, 'b.bin': word },
    );
    const access = { fetch: () => Promise.reject(new Error('nothing is fetched')) };
    const { weightData } = await readModel({ bytes }, { ...access, maxBytes: 20 });
    expect(weightData).toHaveLength(2);
    const error = await errorOf(readModel({ bytes }, { ...access, maxBytes: 19 }));
    expect(error).toMatchObject({ code: 'ERR_INLAY_MODEL_INVALID' });
    expect(String(error)).toContain('"b.bin" is larger than the 9 bytes');
  });

  it.each(['that does not begin', 'that does not go on'])('from a server %s are given up', async (kind) => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const signals: (AbortSignal | null | undefined)[] = [];
      const fetch = (_: string, init?: RequestInit): Promise<Response> => {
        signals.push(init?.signal);
        if (kind === 'that does not begin') return new Promise(() => {});
        const body = new ReadableStream({ start: (stream) => stream.enqueue(new Uint8Array(1)) });
        return Promise.resolve(new Response(body));
      };
      const source = { bytes: toBytes(tfPerceptronParts().json), url: 'https://models.example/model.json' };
      const reading = errorOf(readModel(source, { fetch, maxBytes: 2 ** 31 }));
      await vi.advanceTimersByTimeAsync(19_999);
      expect(signals.map((signal) => signal?.aborted)).toEqual([false]);
      await vi.advanceTimersByTimeAsync(1);
      const error = await reading;
      expect(error).toMatchObject({ code: 'ERR_INLAY_MODEL_NOT_FOUND' });
      expect(String(error)).toContain('no answer within 20000 ms');
      expect(signals[0]?.aborted).toBe(true);
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  it.each([
    '../secret.bin',
    '/etc/secret',
    'a/../../b',
    'https://elsewhere.example/a',
    'C:\\a',
    'a//b',
    '',
    '..',
    'a%2f',
  ])('are not looked for outside of the folder: %s', async (path) => {
    const { json, shards } = tfPerceptronParts();
    requested.length = 0;
    const weightsManifest = [{ paths: [path], weights: [{ name: 'w', shape: [1], dtype: 'float32' }] }];
    const bytes = toBytes({ ...json, weightsManifest });
    expect(Object.keys(shards)).not.toContain(path);
    expect(
      await errorOf(backend.createSession({ bytes, url: 'https://models.example/' }, { provider: 'cpu' })),
    ).toMatchObject({
      code: 'ERR_INLAY_MODEL_INVALID',
    });
    expect(requested).toEqual([]);
  });

  it('may be quantized, and give what the library makes of them', async () => {
    const graph = createTfGraph();
    graph.input('x', 'float32', ['n', 4]);
    graph.weight('w', new Tensor('float32', [4], new Float32Array(4)));
    graph.node('AddV2', 'y', ['x', 'w']);
    const { json } = graph.files();
    const quantization = { dtype: 'uint8', scale: 0.5, min: -1 };
    const weightsManifest = [
      { paths: ['w.bin'], weights: [{ name: 'w', shape: [4], dtype: 'float32', quantization }] },
    ];
    const bytes = toZip({ ...json, weightsManifest }, { 'w.bin': new Uint8Array([0, 1, 2, 255]) });
    const session = await backend.createSession({ bytes }, { provider: 'cpu' });
    const { y } = await session.run({ x: new Tensor('float32', [1, 4], new Float32Array(4)) });
    expect(y?.data).toEqual(new Float32Array([-1, -0.5, 0, 126.5]));
    await session.release();
  });

  it('may be strings, each with its length before it', async () => {
    const words = ['', 'naïve', '日本'].map((word) => new TextEncoder().encode(word));
    const stored = new Uint8Array(words.reduce((sum, word) => sum + 4 + word.length, 0));
    let at = 0;
    for (const word of words) {
      new DataView(stored.buffer).setUint32(at, word.length, true);
      stored.set(word, at + 4);
      at += 4 + word.length;
    }
    const graph = createTfGraph();
    graph.input('x', 'float32', ['n']);
    graph.weight('words', new Tensor('float32', [3], new Float32Array(3)));
    graph.node('Identity', 'y', ['words']);
    graph.output('y', 'y:0', 'string', [3]);
    const { json } = graph.files();
    const weights = [{ name: 'words', shape: [3], dtype: 'string' }];
    const zip = (bytes: Uint8Array): Uint8Array =>
      toZip({ ...json, weightsManifest: [{ paths: ['w.bin'], weights }] }, { 'w.bin': bytes });
    const session = await backend.createSession({ bytes: zip(stored) }, { provider: 'cpu' });
    const { y } = await session.run({ x: new Tensor('float32', [1], new Float32Array(1)) });
    expect(y?.data).toEqual(['', 'naïve', '日本']);
    await session.release();
    for (const length of [0, 3, 8, stored.length - 1]) {
      expect(await errorOf(open(zip(stored.subarray(0, length))))).toMatchObject({
        code: 'ERR_INLAY_MODEL_TRUNCATED',
      });
    }
    // The library would look for each of them.
    const many = [{ name: 'words', shape: [2 ** 40], dtype: 'string' }];
    expect(measureStrings(many, stored)).toBe(2 ** 42);
  });
});

describe('a model.json', () => {
  const change = (edit: (json: Record<string, unknown>) => Record<string, unknown>): Uint8Array => {
    const { json, shards } = tfPerceptronParts();
    return toZip(edit(json), shards);
  };
  const topology = { node: [], versions: { producer: 1, minConsumer: 1 } };
  const withWeight = (weight: unknown) => () =>
    change((json) => ({ ...json, weightsManifest: [{ paths: ['a1.bin'], weights: [weight] }] }));

  it.each<[string, string, () => Uint8Array]>([
    ['without topology', 'INVALID', () => change((json) => ({ ...json, modelTopology: undefined }))],
    ['without weightsManifest', 'INVALID', () => change((json) => ({ ...json, weightsManifest: undefined }))],
    [
      'whose graph has no nodes',
      'INVALID',
      () => change((json) => ({ ...json, modelTopology: { versions: {} } })),
    ],
    [
      'whose graph has no versions',
      'INVALID',
      () => change((json) => ({ ...json, modelTopology: { node: [] } })),
    ],
    [
      'whose nodes take what is not there',
      'INVALID',
      () =>
        change((json) => ({
          ...json,
          modelTopology: { ...topology, node: [{ name: 'y', op: 'Relu', input: ['x'] }] },
        })),
    ],
    [
      'with two nodes of one name',
      'INVALID',
      () =>
        change((json) => ({
          ...json,
          modelTopology: {
            ...topology,
            node: [
              { name: 'y', op: 'A' },
              { name: 'y', op: 'B' },
            ],
          },
        })),
    ],
    [
      'of a layer that is unknown',
      'UNSUPPORTED',
      () =>
        change((json) => ({
          ...json,
          format: 'layers-model',
          modelTopology: { class_name: 'Frobnicate', config: {} },
        })),
    ],
    [
      'of no layers',
      'INVALID',
      () => change((json) => ({ ...json, format: 'layers-model', modelTopology: { a: 1 } })),
    ],
    [
      'with a weight twice',
      'INVALID',
      () =>
        change((json) => ({
          ...json,
          weightsManifest: [
            ...(json['weightsManifest'] as object[]),
            ...(json['weightsManifest'] as object[]),
          ],
        })),
    ],
    ['with a weight without name', 'INVALID', withWeight({ shape: [1], dtype: 'float32' })],
    ['with a negative size', 'INVALID', withWeight({ name: 'w', shape: [-1], dtype: 'float32' })],
    [
      'with a size beyond all memory',
      'INVALID',
      withWeight({ name: 'w', shape: [2 ** 30, 2 ** 30], dtype: 'float32' }),
    ],
    [
      'with more weights than there are',
      'TRUNCATED',
      withWeight({ name: 'w', shape: [2 ** 28], dtype: 'float32' }),
    ],
    [
      'with more weights than are taken',
      'UNSUPPORTED',
      withWeight({ name: 'w', shape: [2 ** 40], dtype: 'float32' }),
    ],
    [
      'with a weight of an unknown dtype',
      'UNSUPPORTED',
      withWeight({ name: 'w', shape: [1], dtype: 'bfloat16' }),
    ],
    [
      'with unknown quantization',
      'UNSUPPORTED',
      withWeight({ name: 'w', shape: [1], dtype: 'float32', quantization: { dtype: 'int4' } }),
    ],
  ])('%s is refused', async (_, code, model) => {
    const error = await errorOf(open(model()));
    expect(error).toMatchObject({ name: 'ModelError', code: `ERR_INLAY_MODEL_${code}` });
    expect((error as Error).message).toMatch(/^[^\n]+\.$/);
  });

  it.each([[[['a.bin', './a.bin']]], [[['a.bin'], ['b.bin', 'a.bin']]]])(
    'that names a file twice is refused: %j',
    (groups) => {
      const { json } = tfPerceptronParts();
      const weightsManifest = groups.map((paths) => ({ paths, weights: [] }));
      expect(() => parseManifest(toBytes({ ...json, weightsManifest }))).toThrow(/names a file twice/);
    },
  );

  it('with inputs of any size is opened without memory for them', async () => {
    const graph = createTfGraph();
    graph.input('x', 'float32', [2 ** 30, 2 ** 30]);
    graph.input('words', 'string', [2 ** 31]);
    graph.node('Relu', 'y', ['x']);
    const session = await backend.createSession({ bytes: graph.zip() }, { provider: 'cpu' });
    expect(session.signature.inputs.map(({ shape }) => shape)).toEqual([[2 ** 30, 2 ** 30], [2 ** 31]]);
    await session.release();
  });

  it('is parsed or refused, whatever it says', () => {
    const { json } = tfPerceptronParts();
    const arbitrary = fc.oneof(
      fc.jsonValue(),
      fc.record(
        {
          format: fc.constantFrom('graph-model', 'layers-model', 1, null),
          modelTopology: fc.oneof(fc.constant(json['modelTopology']), fc.jsonValue()),
          weightsManifest: fc.array(
            fc.record(
              { paths: fc.array(fc.oneof(fc.string(), fc.jsonValue())), weights: fc.array(fc.jsonValue()) },
              { requiredKeys: [] },
            ),
          ),
        },
        { requiredKeys: [] },
      ),
    );
    fc.assert(
      fc.property(arbitrary, (value) => {
        try {
          parseManifest(toBytes(value));
        } catch (error) {
          expect(error instanceof RangeError || error instanceof SyntaxError).toBe(true);
        }
      }),
    );
  });
});
