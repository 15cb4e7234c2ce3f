/** Paths of several patches, on real stores, with real patches of small models. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { StoreError } from '../../src/core/errors.ts';
import type { Store } from '../../src/core/store.ts';
import { encodePatch } from '../../src/publish/delta/encode.ts';
import { createRandom } from '../../src/stats/random.ts';
import { openFsStore } from '../../src/stores/fs.ts';
import { createMemoryStore } from '../../src/stores/memory.ts';
import { canonicalJson } from '../../src/trust/canonical-json.ts';
import { createDeltaPatcher } from '../../src/update/delta/patcher.ts';
import type { FileRef, Way } from '../../src/update/manifest.ts';
import { bring, type ShipmentParts } from '../../src/update/shipment.ts';
import { createTransfers, type TransferParts, type Transfers, type Want } from '../../src/update/transfer.ts';
import { blobsIn } from '../conformance/store.ts';
import { chunksOf, refOf, serveFiles, type FileServer } from '../core/update/download-files.ts';
import { testPlatform } from '../core/platform.ts';
import { scale } from './publish-fixture.ts';

const random = createRandom(1);
/** Four versions; each changes another fifth of the weights. */
const versions = ((): readonly Uint8Array<ArrayBuffer>[] => {
  const weights = Float32Array.from({ length: 25_000 }, random);
  return [1, 2, 3, 4].map((version) => {
    for (let i = 0; i < 5000; i += 1) weights[version * 5000 + i] = random();
    return scale(version, weights);
  });
})();
const [v1, v2, v3, v4] = versions as [
  Uint8Array<ArrayBuffer>,
  Uint8Array<ArrayBuffer>,
  Uint8Array<ArrayBuffer>,
  Uint8Array<ArrayBuffer>,
];
const nameOf = (bytes: Uint8Array): string => refOf(bytes).sha256;
const [one, two, three, four] = versions.map(nameOf) as [string, string, string, string];

const platform = testPlatform();
const patch = (base: Uint8Array<ArrayBuffer>, next: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> =>
  encodePatch(base, next, { platform });
const patches = [patch(v1, v2), patch(v2, v3), patch(v3, v4)] as const;
const [first, second, third] = patches.map(nameOf) as [string, string, string];

const hop = (bytes: Uint8Array, base: Uint8Array, next: Uint8Array): Way => {
  const { sha256, length } = refOf(next);
  return {
    ...refOf(bytes, 'hop.idp'),
    kind: 'hop',
    codec: 'idp',
    from: nameOf(base),
    to: { sha256, length },
  };
};
const last: Way = { ...refOf(patches[2], 'last.idp'), kind: 'patch', codec: 'idp', from: three };
const ways = [last, hop(patches[1], v2, v3), hop(patches[0], v1, v2)];
const want: Want = { ...refOf(v4), chunks: chunksOf(v4, 65_536), ways, isUpdate: true };

let files: FileServer;
beforeEach(() => {
  files = serveFiles(v4, ...patches);
});
const asked = (): string[] => [...new Set(files.requests.splice(0).map(({ sha256 }) => sha256))];

const start = (store: Store, parts: Partial<TransferParts> = {}): Transfers =>
  createTransfers({
    platform: testPlatform({ fetch: files.fetch }),
    store,
    url: 'https://sync.test',
    patchers: [createDeltaPatcher(platform)],
    attempts: { attempts: 1, baseMs: 1, capMs: 1 },
    ...parts,
  });

/** A store of this device, in which the first version runs. */
async function stocked(store: Store): Promise<Store> {
  await store.putBlob(one, v1);
  await store.pin('app', [one, four]);
  return store;
}

function openDisk(directory = mkdtempSync(join(tmpdir(), 'inlay-paths-'))): Store {
  const store = openFsStore({ directory });
  onTestFinished(async () => {
    await store.close();
    rmSync(directory, { recursive: true, force: true });
  });
  return store;
}

describe('a path of several patches', () => {
  it('is taken where it costs least, with the bytes of all of it, and leaves nothing in between', async () => {
    const store = await stocked(openDisk());
    const progress: (readonly [number, number])[] = [];
    const { way, fallbacks, blob } = await start(store).obtain(want, (...at) => progress.push(at));
    expect([way, fallbacks]).toEqual(['patch', []]);
    expect(await blob.bytes()).toEqual(v4);
    expect(asked()).toEqual([first, second, third]);
    expect(await blobsIn(store)).toEqual([one, four].sort());
    const total = patches.reduce((sum, { length }) => sum + length, 0);
    expect(new Set(progress.map(([, all]) => all))).toEqual(new Set([total]));
    expect(progress.at(-1)).toEqual([total, total]);
    expect(progress.every(([loaded], i) => loaded >= (progress[i - 1]?.[0] ?? 0))).toBe(true);
    expect(total).toBeLessThan(0.9 * v4.length);
  });

  it('goes on from what was made, by the next cheapest, when a patch on it fails', async () => {
    const store = await stocked(createMemoryStore());
    const beside = patch(v2, v4);
    const way: Way = { ...refOf(beside, 'beside.idp'), kind: 'patch', codec: 'idp', from: two };
    const obtained = await start(store).obtain({ ...want, ways: [...ways, way] });
    expect(obtained).toMatchObject({ way: 'patch', fallbacks: [{ way, reason: 'http-status' }] });
    expect(asked()).toEqual([first, nameOf(beside), second, third]);
    expect(await blobsIn(store)).toEqual([one, four].sort());
  });

  it('goes on from what another process has made, when that has deleted what it started from', async () => {
    const store = await stocked(createMemoryStore());
    let isAhead = false;
    const ahead: Store = {
      ...store,
      blob: async (name) => {
        const found = await store.blob(name);
        if (name !== two || found === undefined) return found;
        const read = async (at: number, length: number): Promise<Uint8Array<ArrayBuffer>> => {
          isAhead = true;
          await store.putBlob(three, v3);
          await store.deleteBlob(two);
          throw new StoreError('ERR_INLAY_STORE_MISSING', `${two} is gone at ${at}, ${length}.`);
        };
        return { ...found, read, bytes: () => read(0, v2.length) };
      },
    };
    const { way, fallbacks } = await start(ahead).obtain(want);
    expect([isAhead, way, ...fallbacks.map(({ reason }) => reason)]).toEqual([true, 'patch', 'patch-failed']);
    expect(asked()).toEqual([first, second, third]);
  });

  it('counts as stored once another process has made the file, and nothing more is asked for', async () => {
    const store = await stocked(createMemoryStore());
    const { way } = await start(store, {
      onFallback: () => void store.putBlob(four, v4),
      patchers: [],
    }).obtain({ ...want, ways: [last, hop(patches[1], v2, v3), hop(patches[0], v1, v2)] });
    expect([way, asked()]).toEqual(['stored', []]);
  });

  it('asks the policy for the bytes of all steps that are to come', async () => {
    const sizes: number[] = [];
    const policy = ({ length }: FileRef): boolean => sizes.push(length) > 0;
    await start(await stocked(createMemoryStore()), { policy }).obtain(want);
    const [a, b, c] = patches.map(({ length }) => length) as [number, number, number];
    expect(sizes).toEqual([a + b + c, b + c, c]);
  });

  it('deletes nothing that runs, whatever a manifest calls a patch', async () => {
    const store = await stocked(createMemoryStore());
    const runs = new Uint8Array(100).fill(1);
    await store.putBlob(nameOf(runs), runs);
    await store.pin('another app', [nameOf(runs)]);
    const odd: Way = { ...refOf(runs, 'odd.idp'), kind: 'patch', codec: 'idp', from: one };
    const { fallbacks } = await start(store).obtain({ ...want, ways: [odd] });
    expect(fallbacks).toMatchObject([{ way: odd, reason: 'patch-failed' }]);
    expect(await blobsIn(store)).toContain(nameOf(runs));
  });

  it('ends in the whole file where all of it fails, and keeps nothing that was made on the way', async () => {
    const store = await stocked(createMemoryStore());
    const bad = patches[1].slice();
    bad[bad.length - 1] = 1 ^ (bad.at(-1) ?? 0);
    files.add(bad);
    const { way, fallbacks } = await start(store).obtain({
      ...want,
      ways: [last, hop(bad, v2, v3), hop(patches[0], v1, v2)],
    });
    expect([way, ...fallbacks.map(({ reason }) => reason)]).toEqual(['full', 'patch-failed']);
    expect(asked()).toEqual([first, nameOf(bad), four]);
    expect(await blobsIn(store)).toEqual([one, four].sort());
  });

  it('is not begun where one of its formats is not known, or its files have no room beside each other', async () => {
    const unknown = ways.map((way): Way => (way.kind === 'patch' ? { ...way, codec: 'later' } : way));
    const reasons = async (store: Store, offered: readonly Way[]): Promise<string[]> => {
      const { way, fallbacks } = await start(store).obtain({ ...want, ways: offered });
      return [way, ...fallbacks.map(({ reason }) => reason)];
    };
    const store = await stocked(createMemoryStore());
    expect(await reasons(store, unknown)).toEqual(['full', 'codec-unknown']);
    // Room for one file beside the one that runs, and for none in between.
    const tight = await stocked(createMemoryStore({ quotaBytes: 2.5 * v4.length }));
    expect(await reasons(tight, ways)).toEqual(['full', 'no-room']);
    expect(asked()).toEqual([four]);
    expect(await blobsIn(tight)).toEqual([one, four].sort());
  });

  it('goes on, in another process, from what was made and what had come', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'inlay-paths-'));
    const before = await stocked(openDisk(directory));
    const controller = new AbortController();
    const { signal } = controller;
    const begun = start(before, {
      onBytes: (_, { sha256 }) => {
        if (sha256 === second) controller.abort(new Error('killed'));
      },
      signal,
    });
    await expect(begun.obtain(want)).rejects.toThrow('killed');
    await begun.settled();
    expect(await blobsIn(before)).toEqual([one, two].sort());
    await before.close();
    asked();
    const after = openFsStore({ directory });
    expect((await start(after).obtain(want)).way).toBe('patch');
    expect(asked()).toEqual([second, third]);
    await after.close();
  });

  it('never leads over a file that is larger than the app takes', async () => {
    const store = await stocked(createMemoryStore());
    const large = { sha256: three, length: v4.length + 1 };
    const over = [last, { ...hop(patches[1], v2, v3), to: large }, hop(patches[0], v1, v2)];
    const file = { ...refOf(v4), variant: 'fp32', chunks: chunksOf(v4, 65_536), ways: over };
    const entry = { ...refOf(v4), seq: 1, version: '4' };
    const bytes = canonicalJson({ v: 1, model: 'digits', seq: 1, version: '4', files: [file] });
    files.add(bytes);
    const manifest = refOf(bytes, 'release.json');
    const taken: unknown[] = [];
    const parts: ShipmentParts = {
      store,
      transfers: start(store),
      target: async () => ({ length: v4.length, hashes: {}, custom: { manifest } }),
      providers: async () => [],
      maxModelBytes: v4.length,
      lend: async (sha256s) => void taken.push(...sha256s),
      isUpdate: true,
      isUnfit: async () => false,
    };
    const net = { unmetered: false, charging: false, idle: false };
    expect((await bring(parts, entry, net, new AbortController().signal)).way).toBe('full');
    expect([taken, asked()]).toEqual([
      [four, three, one],
      [manifest.sha256, four],
    ]);
  });

  it('is forgotten with all that was made of it when the download is cancelled', async () => {
    const store = await stocked(createMemoryStore());
    const transfers = start(store, {
      onBytes: (_, { sha256 }) => {
        if (sha256 === second) void transfers.cancel(four);
      },
    });
    await expect(transfers.obtain(want)).rejects.toMatchObject({ name: 'AbortError' });
    await transfers.cancel(four);
    await transfers.settled();
    await expect.poll(() => blobsIn(store)).toEqual([one]);
  });

  it('leaves the file that patches to come start from, and those that somebody else needs', async () => {
    const store = await stocked(createMemoryStore());
    await store.pin('another app', [two]);
    await start(store).obtain({ ...want, anchor: { sha256: three, length: v3.length } });
    expect(await blobsIn(store)).toEqual([one, two, three, four].sort());
  });
});

describe('a patch whose base is missing', () => {
  const absent = (bytes: Uint8Array, from: string): Way => ({
    ...refOf(bytes, 'absent.idp'),
    kind: 'patch',
    codec: 'idp',
    from,
  });
  const [small, smaller] = [new Uint8Array(200).fill(1), new Uint8Array(100).fill(2)];
  const offered = [absent(small, 'a'.repeat(64)), absent(smaller, 'b'.repeat(64)), ...ways];

  it('is told of once, and only the cheapest, by a device that had another version', async () => {
    const { way, fallbacks } = await start(await stocked(createMemoryStore())).obtain({
      ...want,
      ways: offered,
    });
    expect(way).toBe('patch');
    expect(fallbacks).toEqual([{ way: offered[1], reason: 'patch-base-missing' }]);
  });

  it('is not told of by a first install, or where it would have cost more', async () => {
    const fresh = await start(createMemoryStore()).obtain({ ...want, isUpdate: false, ways: offered });
    expect([fresh.way, fresh.fallbacks]).toEqual(['full', []]);
    const dear = absent(new Uint8Array(90_000), 'a'.repeat(64));
    const { fallbacks } = await start(await stocked(createMemoryStore())).obtain({
      ...want,
      ways: [...ways, dear],
    });
    expect(fallbacks).toEqual([]);
  });
});
