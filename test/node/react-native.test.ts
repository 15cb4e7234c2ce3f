import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { onnxruntimeReactNative } from '../../src/backends/onnxruntime-react-native.ts';
import { createInlay, type Inlay, type ReactNativeInlayOptions } from '../../src/react-native.ts';
import { codeOf } from '../conformance/store.ts';
import { addModel } from '../conformance/backend-models.ts';
import { createRepository, serve } from '../core/publish/repository.ts';
import { testPlatform } from '../core/platform.ts';
import { fakeExpo, fakeRnfs, removeAll } from './react-native-files.ts';
import { fakeLibrary } from './react-native-library.ts';

let directory = '';
const opened: Inlay[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'inlay app-'));
  mkdirSync(join(directory, 'Documents'), { recursive: true });
});
afterEach(async () => {
  await Promise.all(opened.splice(0).map((inlay) => inlay.close()));
  removeAll(directory);
});

const library = fakeLibrary(['cpu', 'coreml']);
const open = (options: ReactNativeInlayOptions): Inlay => {
  const inlay = createInlay({ backends: [onnxruntimeReactNative({ ort: library.ort })], ...options });
  opened.push(inlay);
  return inlay;
};
const feeds = { a: Float32Array.of(1, 2, 3, 4), b: Float32Array.of(1, 1, 1, 1) };

describe('inlay in an app', () => {
  it('runs a model from a file, on whichever of its devices is right and fastest', async () => {
    const path = join(directory, 'Documents/add.onnx');
    writeFileSync(path, addModel());
    const inlay = open({ files: fakeExpo(directory) });
    for (const reference of ['add.onnx', path, pathToFileURL(path).href]) {
      const model = await inlay.load(reference);
      expect((await model.run(feeds)).y?.toArray()).toEqual([[2, 3, 4, 5]]);
    }
    const [info] = inlay.info().models;
    expect(info?.attempts.map(({ provider }) => provider).sort()).toEqual(['coreml', 'cpu']);
    expect(info?.placement).toBe('worker');
    expect(await codeOf(inlay.load('gone.onnx'))).toBe('ERR_INLAY_MODEL_NOT_FOUND');
  });

  it('runs many calls at once on the threads that it may have', async () => {
    const { ort, seen } = fakeLibrary(['cpu']);
    writeFileSync(join(directory, 'Documents/add.onnx'), addModel());
    const backend = onnxruntimeReactNative({ ort, threads: 2 });
    const inlay = open({ files: fakeRnfs(directory), backends: [backend] });
    const model = await inlay.load('add.onnx');
    const answers = await Promise.all(Array.from({ length: 200 }, () => model.run(feeds)));
    expect(answers.every(({ y }) => y?.data[3] === 5)).toBe(true);
    expect(seen.mostThreads).toBeLessThanOrEqual(2);
    await inlay.close();
    await backend.close();
    expect(seen).toMatchObject({ sessions: 0, threads: 0, usedAfterFree: 0 });
  });

  it.each([
    ['expo-file-system', fakeExpo],
    ['react-native-fs', fakeRnfs],
  ])('keeps the releases of a server in %s, and opens them by their path', async (_, fake) => {
    const repository = await createRepository(testPlatform());
    const server = serve(() => repository);
    const release = await repository.release('add', '1.0.0', addModel());
    await repository.rollOut(release, 100);
    const sync = { url: 'https://sync.test', root: repository.roots[0] ?? '' };
    const inlay = open({ files: fake(directory), fetch: server.fetch, sync });
    const model = await inlay.load({ name: 'add' });
    expect(model.version).toBe('1.0.0');
    expect((await model.run(feeds)).y?.toArray()).toEqual([[2, 3, 4, 5]]);
    const kept = join(directory, 'Cach es/inlay/blobs', release.sha256);
    expect(readFileSync(kept).equals(addModel())).toBe(true);
    await inlay.close();

    const inTheAir = open({
      files: fake(directory),
      fetch: () => Promise.reject(new TypeError('offline')),
      sync,
    });
    expect((await inTheAir.load({ name: 'add' })).version).toBe('1.0.0');
  });

  it('says that nothing is kept without a file library', async () => {
    const inlay = open({});
    expect(inlay.info().store.degraded).toMatch(/no `files`/);
    const model = await inlay.load(addModel());
    expect((await model.run(feeds)).y?.toArray()).toEqual([[2, 3, 4, 5]]);
    const [info] = inlay.info().models;
    expect(info?.attempts.find(({ provider }) => provider === 'coreml')?.reason).toMatch(/from memory/);
  });

  it('goes on in memory where the files cannot be written', async () => {
    const files = fakeExpo(directory, (step) => {
      if (step === 'create' || step === 'mkdir') throw new Error('open failed: EROFS');
    });
    const repository = await createRepository(testPlatform());
    await repository.rollOut(await repository.release('add', '1.0.0', addModel()), 100);
    const sync = { url: 'https://sync.test', root: repository.roots[0] ?? '' };
    const inlay = open({ files, fetch: serve(() => repository).fetch, sync });
    const model = await inlay.load({ name: 'add' });
    expect((await model.run(feeds)).y?.toArray()).toEqual([[2, 3, 4, 5]]);
    expect(inlay.info().store.degraded).toMatch(/EROFS/);
  });

  it('says what to install when the library is missing', async () => {
    const inlay = createInlay();
    opened.push(inlay);
    expect(await codeOf(inlay.load(addModel()))).toBe('ERR_INLAY_BACKEND_MISSING');
    expect(() => createInlay({ threads: 0 })).toThrow(RangeError);
  });
});
