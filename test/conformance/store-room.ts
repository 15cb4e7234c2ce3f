import { afterEach, describe, expect, it } from 'vitest';
import { toUtf8 } from '../../src/core/bytes.ts';
import type { Store } from '../../src/core/store.ts';
import { blobsIn, codeOf, inPieces, nameOf, type OpenedStore } from './store.ts';

/** How a store is opened to see how it makes room. */
export interface RoomOptions {
  readonly quotaBytes?: number;
  readonly now: () => number;
}

const DAY_MS = 86_400_000;

/** What every store does about room: which blobs are needed, which were used, which make way. */
export function testRoom(
  name: string,
  open: (options: RoomOptions, former?: OpenedStore) => Promise<OpenedStore>,
): void {
  describe(`${name} makes room`, () => {
    // Files have the times of the real clock, so the test's clock begins there.
    let now = Date.now();
    let opened: OpenedStore | undefined;
    const start = async (quotaBytes?: number): Promise<Store> => {
      now = Date.now();
      opened = await open({ now: () => now, ...(quotaBytes !== undefined && { quotaBytes }) });
      return opened.store;
    };
    afterEach(async () => {
      await opened?.cleanup();
      opened = undefined;
    });

    const put = async (store: Store, letter: string, sizeBytes: number): Promise<string> => {
      const content = toUtf8(letter.repeat(sizeBytes));
      const { sha256 } = await store.putBlob(nameOf(content), inPieces(content, 10));
      return sha256;
    };
    /** Looks blobs up in this order, a day apart. */
    const use = async (store: Store, ...names: readonly string[]): Promise<void> => {
      for (const each of names) {
        now += DAY_MS;
        await store.blob(each);
      }
    };

    it('says the size, the last use and the pins of each blob, in order of name', async () => {
      const store = await start();
      expect(await store.describeBlobs()).toEqual([]);
      const [a, b] = [await put(store, 'a', 10), await put(store, 'b', 20)];
      await use(store, b);
      await store.pin('me', [a]);
      const facts = await store.describeBlobs();
      expect(facts.map(({ sha256 }) => sha256)).toEqual([a, b].sort());
      const [ofA, ofB] = [a, b].map((sha256) => facts.find((each) => each.sha256 === sha256));
      expect(ofA).toMatchObject({ sizeBytes: 10, pins: ['me'] });
      expect(ofB).toMatchObject({ sizeBytes: 20, pins: [], usedAt: now });
      expect(Math.abs((ofA?.usedAt ?? 0) - (now - DAY_MS))).toBeLessThan(60_000);
    });

    it('evicts nothing while there is room', async () => {
      const store = await start(100);
      const names = [await put(store, 'a', 50), await put(store, 'b', 30)];
      await store.reserve(20);
      expect(await blobsIn(store)).toEqual(names.sort());
    });

    it('evicts what was not used for the longest time, and no more than it must', async () => {
      const store = await start(100);
      const [a, b, c] = [await put(store, 'a', 30), await put(store, 'b', 30), await put(store, 'c', 30)];
      await use(store, b, c, a);
      await store.reserve(30);
      expect(await blobsIn(store)).toEqual([a, c].sort());
      await store.reserve(41);
      expect(await blobsIn(store)).toEqual([a]);
    });

    it('keeps what somebody pinned, until nobody does', async () => {
      const store = await start(100);
      const [a, b] = [await put(store, 'a', 30), await put(store, 'b', 30)];
      await use(store, a, b);
      await store.pin('me', [a]);
      await store.pin('you', [a, b]);
      await store.pin('you', [a]);
      await store.reserve(60);
      expect(await blobsIn(store)).toEqual([a]);
      await store.pin('me', []);
      expect(await codeOf(store.reserve(80))).toBe('ERR_INLAY_STORE_FULL');
      await store.pin('you', []);
      await store.reserve(80);
      expect(await blobsIn(store)).toEqual([]);
    });

    it('takes pins for what is not there yet', async () => {
      const store = await start(100);
      const later = toUtf8('l'.repeat(60));
      await store.pin('me', [nameOf(later)]);
      await store.putBlob(nameOf(later), later);
      expect(await codeOf(store.reserve(50))).toBe('ERR_INLAY_STORE_FULL');
    });

    it('evicts nothing for what will not fit anyway', async () => {
      const store = await start(100);
      const a = await put(store, 'a', 30);
      expect(await codeOf(store.reserve(101))).toBe('ERR_INLAY_STORE_FULL');
      expect(await blobsIn(store)).toEqual([a]);
      expect(await codeOf(store.putBlob(nameOf(new Uint8Array(101)), new Uint8Array(101)))).toBe(
        'ERR_INLAY_STORE_FULL',
      );
      expect(await blobsIn(store)).toEqual([a]);
    });

    it('makes room by itself for content that is all there', async () => {
      const store = await start(100);
      const a = await put(store, 'a', 60);
      const content = toUtf8('b'.repeat(60));
      await store.putBlob(nameOf(content), content);
      expect(await blobsIn(store)).not.toContain(a);
    });

    it('forgets the pins of an owner that was not seen for 90 days', async () => {
      const store = await start(100);
      const a = await put(store, 'a', 60);
      await store.pin('gone', [a]);
      await store.pin('here', [a]);
      now += 60 * DAY_MS;
      await store.pin('here', [a]);
      now += 60 * DAY_MS;
      expect((await store.describeBlobs())[0]?.pins).toEqual(['here']);
    });

    it('remembers pins and uses for whoever opens it next', async () => {
      const store = await start();
      const [a, b] = [await put(store, 'a', 10), await put(store, 'b', 10)];
      await use(store, a, b);
      await store.pin('me', [a]);
      const former = opened;
      const next = await open({ now: () => now, quotaBytes: 30 }, former);
      if (next.store === former?.store) return;
      await former?.store.close();
      opened = next;
      const used = new Map((await next.store.describeBlobs()).map((each) => [each.sha256, each.usedAt]));
      expect(used.get(b)).toBe(now);
      expect(used.get(a)).toBe(now - DAY_MS);
      await next.store.reserve(20);
      expect(await blobsIn(next.store)).toEqual([a]);
    });

    it('refuses names that are none', async () => {
      const store = await start();
      await expect(store.pin('me', ['abc'])).rejects.toThrow(RangeError);
    });

    it('refuses everything after close', async () => {
      const store = await start();
      await store.close();
      const calls = [store.describeBlobs(), store.pin('me', []), store.reserve(1), store.persist()];
      expect(await Promise.all(calls.map(codeOf))).toEqual(calls.map(() => 'ERR_INLAY_CLOSED'));
    });
  });
}
