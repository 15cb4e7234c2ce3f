import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Backend, Placement, Session } from '../../../src/core/backend.ts';
import { toUtf8 } from '../../../src/core/bytes.ts';
import { StoreError } from '../../../src/core/errors.ts';
import { silentLogger } from '../../../src/core/logger.ts';
import type { Platform } from '../../../src/core/platform.ts';
import type { Store } from '../../../src/core/store.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { createNotebook, type Learned, type NotebookOptions } from '../../../src/engine/learned.ts';
import { createInlay, type Inlay } from '../../../src/index.ts';
import { createLanes } from '../../../src/schedule/lanes.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { fakeBackend, manualClock } from './fakes.ts';

/** A platform with native hashing and one file, whose content changes when the test says so. */
function platformWithFile(): Platform & { change(): void; advance(ms: number): void } {
  let version = 1;
  return {
    ...manualClock(),
    hardware: 'arm64 ×8',
    files: {
      resolve: String,
      size: async () => 100,
      stamp: async () => `100 ${version}`,
      read: async () => new Uint8Array(),
      sha256: async () => `${version}`,
    },
    change: () => {
      version += 1;
    },
  };
}

const OPTIONS: NotebookOptions = { device: 'auto', placement: 'auto' };
const LEARNED: Learned = {
  backend: 'fake',
  provider: 'cpu',
  placement: 'inline',
  placementReason: 'a run takes 0.01 ms',
  intraOpThreads: 1,
  unbatchable: 'maxBatch is 1',
  lanes: { '4 /': { cost: { sums: [1, 2, 3, 4, 5], sizes: [[1, 9, 0.5]], spread: 0.1 }, cap: 8 } },
};
const path = '/models/a.onnx';

const pages = async (store: Store, learned = LEARNED, platform = platformWithFile()): Promise<string> => {
  let page = '';
  const spy: Store = {
    ...store,
    updateRecord: (name, change) => {
      page = name;
      return store.updateRecord(name, change);
    },
  };
  const notebook = await createNotebook({ platform, store: spy, logger: silentLogger }, { path }, OPTIONS);
  notebook.write(learned);
  await notebook.settled();
  return page;
};

describe('createNotebook', () => {
  const read = async (
    store: Store,
    options = OPTIONS,
    platform: Platform = platformWithFile(),
    source: Parameters<typeof createNotebook>[1] = { path },
  ): Promise<Learned | undefined> =>
    (await createNotebook({ platform, store, logger: silentLogger }, source, options)).learned;

  it('gives back what was written', async () => {
    const store = createMemoryStore();
    expect(await read(store)).toBeUndefined();
    await pages(store);
    expect(await read(store)).toEqual(LEARNED);
  });

  it('begins anew for another file, other hardware and other options', async () => {
    const store = createMemoryStore();
    await pages(store);
    const changed = platformWithFile();
    changed.change();
    expect(await read(store, OPTIONS, changed)).toBeUndefined();
    expect(await read(store, OPTIONS, { ...platformWithFile(), hardware: 'x64 ×2' })).toBeUndefined();
    expect(await read(store, OPTIONS, platformWithFile(), { path: '/models/b.onnx' })).toBeUndefined();
    for (const other of [
      { device: 'cpu' },
      { placement: 'worker' },
      { intraOpThreads: 2 },
      { maxBatch: 4 },
      { tolerance: { absolute: 0, relative: 0 } },
    ]) {
      expect(await read(store, { ...OPTIONS, ...other })).toBeUndefined();
    }
    expect(await read(store)).toBeDefined();
  });

  it('knows bytes by their content', async () => {
    const store = createMemoryStore();
    const platform = platformWithFile();
    const notebook = await createNotebook(
      { platform, store, logger: silentLogger },
      { bytes: new Uint8Array([1]) },
      OPTIONS,
    );
    notebook.write(LEARNED);
    await notebook.settled();
    expect(await read(store, OPTIONS, platform, { bytes: new Uint8Array([1]) })).toBeDefined();
    expect(await read(store, OPTIONS, platform, { bytes: new Uint8Array([2]) })).toBeUndefined();
  });

  it('keeps nothing of bytes where hashing is not native', async () => {
    const store = createMemoryStore();
    const { digest: _, ...platform } = platformWithFile();
    const bytes = { bytes: new Uint8Array([1]) };
    const notebook = await createNotebook({ platform, store, logger: silentLogger }, bytes, OPTIONS);
    notebook.write(LEARNED);
    await notebook.settled();
    expect(await read(store, OPTIONS, platform, bytes)).toBeUndefined();
  });

  it('does without a store that can neither be read nor written', async () => {
    const refuse = (): Promise<never> =>
      Promise.reject(new StoreError('ERR_INLAY_STORE_READ_ONLY', 'Read-only.'));
    const store: Store = { ...createMemoryStore(), readRecord: refuse, updateRecord: refuse };
    expect(await read(store)).toBeUndefined();
    await pages(store);
  });

  it('forgets a page that is damaged', async () => {
    const store = createMemoryStore();
    const page = await pages(store);
    const [lane] = Object.values(LEARNED.lanes);
    const cost = lane?.cost;
    const withLane = (other: unknown): object => ({ ...LEARNED, lanes: { '': other } });
    for (const content of [
      null,
      [],
      'inline',
      { ...LEARNED, format: 1 },
      { ...LEARNED, placement: 'gpu' },
      { ...LEARNED, placementReason: 7 },
      { ...LEARNED, unbatchable: {} },
      { ...LEARNED, intraOpThreads: 0 },
      { ...LEARNED, intraOpThreads: 1.5 },
      { ...LEARNED, lanes: null },
      withLane(null),
      withLane({ cost, cap: 0 }),
      withLane({ cost, cap: 1.5 }),
      withLane({ cost, cap: '8' }),
      withLane({ cost: { ...cost, sums: [1, 2] }, cap: 8 }),
      withLane({ cost: { ...cost, sums: [-1, 2, 3, 4, 5] }, cap: 8 }),
      withLane({ cost: { ...cost, sizes: [[1]] }, cap: 8 }),
      withLane({ cost: { ...cost, sizes: [[1, 2, null]] }, cap: 8 }),
      withLane({ cost: { ...cost, spread: null }, cap: 8 }),
    ]) {
      await store.updateRecord(page, () => toUtf8(JSON.stringify({ format: 1, ...(content as object) })));
      expect(await read(store), JSON.stringify(content)).toBeUndefined();
    }
    await store.updateRecord(page, () => toUtf8('{'));
    expect(await read(store)).toBeUndefined();
  });

  it('gives only costs that can be planned with, whatever is in the store', async () => {
    const store = createMemoryStore();
    const page = await pages(store);
    const size = fc.oneof(fc.double({ min: 0, max: 1e300, noNaN: true }), fc.nat(), fc.constant(0));
    const number = fc.oneof({ weight: 12, arbitrary: size }, fc.double(), fc.constant(null));
    const cost = fc.record({
      sums: fc.array(number, { minLength: 5, maxLength: 5 }),
      sizes: fc.array(fc.array(number, { minLength: 3, maxLength: 3 }), { maxLength: 3 }),
      spread: number,
    });
    const lanes = fc.dictionary(fc.constantFrom('', '4 /'), fc.record({ cost, cap: fc.nat() }));
    const content = fc.oneof(
      fc.json(),
      lanes.map((each) => JSON.stringify({ format: 1, ...LEARNED, lanes: each })),
    );
    await fc.assert(
      fc.asyncProperty(content, async (text) => {
        await store.updateRecord(page, () => toUtf8(text));
        const record = (await read(store))?.lanes;
        const signature = {
          inputs: [{ name: 'x', dtype: 'float32', shape: [null, null] }],
          outputs: [],
        } as const;
        for (const key of Object.keys(record ?? {})) {
          const width = Number(/^(\d+) \/$/.exec(key)?.[1] ?? 1);
          const made = createLanes(signature, { maxSamples: 128, maxRunMs: Infinity, record });
          const lane = made.of({ x: new Tensor('float32', [0, width], new Float32Array(0)) });
          expect(lane.cost.predict(4)).not.toBeNaN();
          for (let i = 0; i < 3; i += 1) lane.cost.observe(1, 1);
          expect(lane.cost.predict(4)).not.toBeNaN();
          expect(Number.isInteger(lane.cap.samples)).toBe(true);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('a second Inlay on the same store', () => {
  const setUp = () => {
    const platform = platformWithFile();
    const counts = { runs: 0, worker: 0, inline: 0 };
    const placed = (placement: Placement & ('worker' | 'inline'), ms: number): Backend => {
      const backend = fakeBackend({
        onRun: (feeds) => {
          counts.runs += 1;
          platform.advance(ms);
          return { y: feeds['x'] as Tensor };
        },
      });
      return {
        ...backend,
        createSession: async (source, options): Promise<Session> => {
          counts[placement] += 1;
          return { ...(await backend.createSession(source, options)), placement };
        },
      };
    };
    const worker = placed('worker', 0.1);
    const backend: Backend = { ...worker, elsewhere: { worker, inline: placed('inline', 0.01) } };
    const store = createMemoryStore();
    const open = (): Inlay => createInlay({ platform, store, backends: [backend] });
    return { platform, counts, open };
  };

  it('loads without a single trial run, and goes where runs were found to be the shortest', async () => {
    const { counts, open } = setUp();
    const first = open();
    const model = await first.load(path);
    expect(counts.runs).toBeGreaterThan(10);
    expect(first.info().models[0]).toMatchObject({ placement: 'inline' });
    await first.close();
    Object.assign(counts, { runs: 0, worker: 0, inline: 0 });

    const second = open();
    const again = await second.load(path);
    expect(counts).toEqual({ runs: 0, worker: 0, inline: 1 });
    const [info] = second.info().models;
    expect(info).toMatchObject({
      placement: 'inline',
      placementReason: expect.stringContaining('calling thread') as string,
    });
    expect(info?.queue.lanes[0]?.batchCap).toBeGreaterThan(1);
    await again.run({ x: [1, 2] });
    expect(counts.runs).toBe(1);
    await second.close();
    expect(model.signature).toEqual(again.signature);
  });

  it('measures again when the file has changed', async () => {
    const { platform, counts, open } = setUp();
    const first = open();
    await first.load(path);
    await first.close();
    platform.change();
    Object.assign(counts, { runs: 0, worker: 0, inline: 0 });
    const second = open();
    await second.load(path);
    expect(counts.runs).toBeGreaterThan(10);
    expect(counts.worker).toBe(1);
    await second.close();
  });
});
