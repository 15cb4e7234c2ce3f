import { beforeEach, describe, expect, it } from 'vitest';
import type { Platform } from '../../../src/core/platform.ts';
import type { Store } from '../../../src/core/store.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import {
  createTransfers,
  type TransferParts,
  type Transfers,
  type Want,
} from '../../../src/update/transfer.ts';
import type { DownloadFacts } from '../../../src/update/transfer-policy.ts';
import { blobsIn } from '../../conformance/store.ts';
import { testPlatform, until, type TestPlatform } from '../platform.ts';
import { chunksOf, randomBytes, refOf, serveFiles, type FileServer } from './download-files.ts';

const content = randomBytes(20_000);
const want: Want = { ...refOf(content), chunks: chunksOf(content, 4096) };
const { sha256 } = want;

let store: Store;
let files: FileServer;
let platform: TestPlatform;
let conditions: { isMetered?: boolean; isCharging?: boolean; isIdle?: boolean };
let come: () => void;
beforeEach(() => {
  store = createMemoryStore();
  files = serveFiles(content);
  platform = testPlatform({ fetch: files.fetch });
  conditions = {};
  come = () => {};
});

const create = (parts: Partial<TransferParts> = {}): Transfers => {
  const listeners = new Set<() => void>();
  come = () => {
    for (const listener of [...listeners]) listener();
  };
  const device: Platform = {
    ...platform,
    conditions: () => conditions,
    onActive: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  return createTransfers({ platform: device, store, url: 'https://sync.test', ...parts });
};
/** Waits until the first download is in a phase. */
const phase = (transfers: Transfers, name: string): Promise<void> =>
  until(() => transfers.list()[0]?.phase === name);
const failure = (promise: Promise<unknown>): Promise<unknown> => promise.catch((error: unknown) => error);

describe('transfers', () => {
  it('bring a file into the store, tell of it, and then have nothing left', async () => {
    const told: string[] = [];
    const progress: [number, number][] = [];
    let bytes = 0;
    const transfers = create({
      onState: (state) => told.push(state.phase),
      onBytes: (count) => {
        bytes += count;
      },
    });
    const obtaining = transfers.obtain(want, (loaded, total) => progress.push([loaded, total]));
    const obtained = await obtaining;
    expect(obtained).toMatchObject({ blob: { sha256 }, way: 'full', fallbacks: [] });
    expect(told).toEqual(['verifying', 'waiting', 'downloading', 'downloading', 'verifying']);
    expect(progress.at(0)).toEqual([0, 20_000]);
    expect(progress.at(-1)).toEqual([20_000, 20_000]);
    expect(bytes).toBe(20_000);
    expect(transfers.list()).toEqual([]);
    expect(platform.timers()).toEqual([]);
    expect(await transfers.obtain(want)).toMatchObject({ way: 'stored' });
    expect(files.requests).toHaveLength(1);
  });

  it('bring a file without pieces as a whole, and try again', async () => {
    const { chunks: _, ...whole } = want;
    let failures = 2;
    const flaky: Platform['fetch'] = (url, init) => {
      failures -= 1;
      return failures >= 0 ? Promise.reject(new TypeError('fetch failed')) : files.fetch(url, init);
    };
    const transfers = create({ platform: { ...platform, fetch: flaky } });
    const obtaining = transfers.obtain(whole);
    await until(() => platform.isKeptAlive());
    platform.advance(60_000);
    await until(() => failures === 0 && platform.isKeptAlive());
    platform.advance(60_000);
    expect(await obtaining).toMatchObject({ blob: { sha256 } });
  });

  it('share one download among all that want it', async () => {
    const transfers = create();
    const heard = [0, 0];
    const both = await Promise.all(
      heard.map((_, i) =>
        transfers.obtain(want, (loaded) => {
          heard[i] = loaded;
        }),
      ),
    );
    expect(both[0]).toBe(both[1]);
    expect(heard).toEqual([20_000, 20_000]);
    expect(files.requests).toHaveLength(1);
  });

  it('go on for the others when one does not want it any more, and end with the last', async () => {
    files.stallAfter(9000);
    const transfers = create();
    const one = new AbortController();
    const two = new AbortController();
    const first = failure(transfers.obtain({ ...want, signal: one.signal }));
    const second = failure(transfers.obtain({ ...want, signal: two.signal }));
    await until(() => transfers.list()[0]?.loadedBytes === 9000);
    one.abort(new Error('one'));
    expect(await first).toEqual(new Error('one'));
    expect(transfers.list()).toHaveLength(1);
    two.abort(new Error('two'));
    expect(await second).toEqual(new Error('two'));
    // Somebody wants it right after that, and does not get what is ending.
    files.stallAfter(Infinity);
    expect(await transfers.obtain(want)).toMatchObject({ blob: { sha256 } });
    expect(files.requests.map(({ range }) => range)).toEqual([undefined, 'bytes=8192-19999']);
  });

  it('end with their signal, and keep what is there', async () => {
    files.stallAfter(9000);
    const controller = new AbortController();
    const transfers = create({ signal: controller.signal });
    const outcome = failure(transfers.obtain(want));
    await until(() => transfers.list()[0]?.loadedBytes === 9000);
    controller.abort(new Error('stopped'));
    expect(await outcome).toEqual(new Error('stopped'));
    await transfers.settled();
    expect(platform.timers()).toEqual([]);
    await expect(transfers.obtain(want)).rejects.toThrow('stopped');
    expect((await store.openPartial(sha256, want.length)).note).toBeDefined();
  });

  it('pause, keep what is there, and go on', async () => {
    files.stallAfter(9000);
    const transfers = create();
    const obtaining = transfers.obtain(want);
    await until(() => transfers.list()[0]?.loadedBytes === 9000);
    transfers.pause();
    await phase(transfers, 'held');
    expect(transfers.list()).toMatchObject([{ sha256, path: want.path, heldBy: 'paused' }]);
    platform.advance(120_000);
    await phase(transfers, 'held');
    expect(files.requests).toHaveLength(1);
    files.stallAfter(Infinity);
    transfers.resume();
    expect(await obtaining).toMatchObject({ blob: { sha256 } });
    expect(files.requests[1]?.range).toBe('bytes=8192-19999');
  });

  it('do not begin while paused', async () => {
    const transfers = create();
    transfers.pause();
    const obtaining = transfers.obtain(want);
    await phase(transfers, 'held');
    expect(files.requests).toEqual([]);
    transfers.resume();
    await obtaining;
  });

  it('forget what is there of a download that is cancelled', async () => {
    files.stallAfter(9000);
    const transfers = create();
    const outcome = failure(transfers.obtain(want));
    await until(() => transfers.list()[0]?.loadedBytes === 9000);
    await transfers.cancel(sha256);
    expect(await outcome).toMatchObject({ name: 'AbortError' });
    expect(transfers.list()).toEqual([]);
    expect((await store.openPartial(sha256, want.length)).note).toBeUndefined();
    await transfers.cancel(sha256);
  });

  it('say how fast they are', async () => {
    const speeds: (number | undefined)[] = [];
    const transfers = create({
      onBytes: () => platform.advance(500),
      onState: ({ bytesPerSecond }) => speeds.push(bytesPerSecond),
    });
    await transfers.obtain(want);
    expect(speeds.at(0)).toBeUndefined();
    expect(speeds.at(-1)).toBe(2000);
  });

  it('fail with what the last way failed of', async () => {
    files.remove(sha256);
    await expect(create().obtain(want)).rejects.toMatchObject({ code: 'ERR_INLAY_HTTP_STATUS' });
    expect(await blobsIn(store)).toEqual([]);
  });
});

describe('a policy', () => {
  it.each([
    ['unmetered', { isMetered: true }, { isMetered: false }, 'metered'],
    ['charging', { isCharging: false }, { isCharging: true }, 'not-charging'],
    ['idle', { isIdle: false }, { isIdle: true }, 'in-use'],
  ] as const)('holds a download until %s holds', async (rule, bad, good, heldBy) => {
    for (const [policy, net] of [
      [{ [rule]: true }, undefined],
      [undefined, { [rule]: true }],
    ] as const) {
      conditions = bad;
      const transfers = create({ policy });
      const obtaining = transfers.obtain({ ...want, net });
      await phase(transfers, 'held');
      expect(transfers.list()[0]?.heldBy).toBe(heldBy);
      conditions = good;
      platform.advance(30_000);
      expect(await obtaining).toMatchObject({ blob: { sha256 } });
      await store.deleteBlob(sha256);
    }
  });

  it('lets a download begin where the runtime does not tell', async () => {
    const policy = { unmetered: true, charging: true, idle: true };
    expect(await create({ policy }).obtain(want)).toMatchObject({ blob: { sha256 } });
  });

  it('does not hold what it does not ask for', async () => {
    conditions = { isMetered: true, isCharging: false, isIdle: false };
    expect(await create().obtain(want)).toMatchObject({ blob: { sha256 } });
  });

  it('is asked again when the app comes back', async () => {
    conditions = { isMetered: true };
    const transfers = create({ policy: { unmetered: true } });
    const obtaining = transfers.obtain(want);
    await phase(transfers, 'held');
    come();
    await until(() => platform.timers().length === 1);
    expect(files.requests).toEqual([]);
    conditions = {};
    come();
    await obtaining;
  });

  it('may be a function, which hears all facts', async () => {
    conditions = { isMetered: true };
    const asked: DownloadFacts[] = [];
    const answers = [false, true, true];
    const transfers = create({
      policy: async (facts) => {
        asked.push(facts);
        return answers.shift() ?? false;
      },
    });
    const obtaining = transfers.obtain(want);
    await phase(transfers, 'held');
    expect(transfers.list()[0]?.heldBy).toBe('policy');
    platform.advance(30_000);
    await obtaining;
    expect(asked[0]).toEqual({ ...refOf(content), isMetered: true });
  });

  it('fails a download when the function does', async () => {
    const policy = (): boolean => {
      throw new Error('no such sensor');
    };
    await expect(create({ policy }).obtain(want)).rejects.toThrow('no such sensor');
  });

  it('stops a download for which it does not hold any more, and goes on later', async () => {
    files.stallAfter(9000);
    const transfers = create({ policy: { unmetered: true }, timeoutMs: 600_000 });
    const obtaining = transfers.obtain(want);
    await until(() => transfers.list()[0]?.loadedBytes === 9000);
    conditions = { isMetered: true };
    platform.advance(30_000);
    await phase(transfers, 'held');
    files.stallAfter(Infinity);
    conditions = { isMetered: false };
    platform.advance(30_000);
    await obtaining;
    expect(files.requests[1]?.range).toBe('bytes=8192-19999');
  });

  it('fails the call of who does not want to wait, while others do', async () => {
    conditions = { isMetered: true };
    const transfers = create({ policy: { unmetered: true } });
    const impatient = { ...want, whenHeld: 'fail' } as const;
    const held = expect.objectContaining({
      name: 'UpdateError',
      code: 'ERR_INLAY_UPDATE_HELD',
      details: expect.objectContaining({ reason: 'metered' }),
    });
    await expect(transfers.obtain(impatient)).rejects.toThrow(held);
    await until(() => transfers.list().length === 0);
    const patient = transfers.obtain(want);
    await phase(transfers, 'held');
    await expect(transfers.obtain(impatient)).rejects.toThrow(held);
    expect(transfers.list()).toHaveLength(1);
    conditions = {};
    platform.advance(30_000);
    await patient;
  });
});
