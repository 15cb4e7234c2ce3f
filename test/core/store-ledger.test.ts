import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toUtf8 } from '../../src/core/bytes.ts';
import { StoreError } from '../../src/core/errors.ts';
import { openLedger, type BlobFile, type Ledger, type PartFile } from '../../src/stores/ledger.ts';

const HOUR_MS = 3_600_000;
const nameOf = (index: number): string => index.toString(16).padStart(64, '0');

interface World {
  readonly files: Map<string, BlobFile>;
  readonly parts: Map<string, PartFile>;
  readonly ledger: Ledger;
  record: Uint8Array<ArrayBuffer> | undefined;
  writes: number;
  free: number;
  now: number;
}

function open(quotaBytes?: number): World {
  const files = new Map<string, BlobFile>();
  const parts = new Map<string, PartFile>();
  const world: World = {
    files,
    parts,
    record: undefined,
    writes: 0,
    free: Infinity,
    now: 1e12,
    ledger: openLedger({
      list: async () => [...files.values()],
      remove: async (sha256) => void files.delete(sha256),
      listParts: async () => [...parts.values()],
      removePart: async (sha256) => void parts.delete(sha256),
      readRecord: async () => world.record,
      updateRecord: async (_, change) => {
        const changed = change(world.record);
        if (changed === undefined) return world.record;
        world.writes += 1;
        world.record = new Uint8Array(changed);
        return world.record;
      },
      freeBytes: async () => world.free,
      now: () => world.now,
      quotaBytes,
    }),
  };
  return world;
}

const add = ({ files, now }: World, index: number, sizeBytes: number): BlobFile => {
  const file = { sha256: nameOf(index), sizeBytes, writtenAt: now };
  files.set(file.sha256, file);
  return file;
};
const full = (): never => {
  throw new StoreError('ERR_INLAY_STORE_FULL', 'Full.');
};

describe('a ledger', () => {
  it('writes down a use only when some hours went by since the last, so that a start costs nothing', async () => {
    const world = open();
    const file = add(world, 1, 10);
    for (let i = 0; i < 100; i += 1) world.ledger.touch(file);
    await world.ledger.settled();
    expect(world.writes).toBe(0);
    world.now += 7 * HOUR_MS;
    for (let i = 0; i < 100; i += 1) world.ledger.touch(file);
    await world.ledger.settled();
    expect(world.writes).toBe(1);
  });

  it('writes the same pins once', async () => {
    const world = open();
    for (let i = 0; i < 5; i += 1) await world.ledger.pin('me', [nameOf(2), nameOf(1), nameOf(2)]);
    await world.ledger.pin('nobody', []);
    expect(world.writes).toBe(1);
    world.now += 7 * HOUR_MS;
    await world.ledger.pin('me', [nameOf(1), nameOf(2)]);
    expect(world.writes).toBe(2);
  });

  it('forgets uses of blobs that are gone, so that it does not grow', async () => {
    const world = open();
    for (let i = 0; i < 50; i += 1) {
      const file = add(world, i, 10);
      world.now += 7 * HOUR_MS;
      world.ledger.touch(file);
      await world.ledger.settled();
      world.files.delete(file.sha256);
    }
    expect(world.record?.length).toBeLessThan(200);
  });

  it.each([
    '',
    'garbage',
    'null',
    '{}',
    '{"used":{"a":"b"},"pins":{}}',
    '{"used":{},"pins":{"me":{"at":1}}}',
    '{"used":{},"pins":{"me":{"at":1,"blobs":["x"]}}}',
  ])('counts a damaged page as empty: %j', async (text) => {
    const world = open();
    world.record = toUtf8(text);
    add(world, 1, 10);
    expect(await world.ledger.describeBlobs()).toMatchObject([{ pins: [] }]);
    await world.ledger.pin('me', [nameOf(1)]);
    expect(await world.ledger.describeBlobs()).toMatchObject([{ pins: ['me'] }]);
  });

  it('looks at no blob while the platform has room', async () => {
    const ledger = openLedger({
      list: () => Promise.reject(new Error('looked')),
      remove: () => Promise.reject(new Error('removed')),
      listParts: () => Promise.reject(new Error('looked')),
      removePart: () => Promise.reject(new Error('removed')),
      readRecord: () => Promise.reject(new Error('read')),
      updateRecord: () => Promise.reject(new Error('written')),
      freeBytes: async () => 100,
      now: () => 0,
    });
    await ledger.reserve(100);
    await expect(ledger.reserve(101)).rejects.toThrow('looked');
  });

  it('does not believe a platform that claims to have room when a write has just found none, once', async () => {
    const world = open();
    world.free = 1e10;
    for (let i = 0; i < 5; i += 1) add(world, i, 100);
    const stream = {
      [Symbol.asyncIterator]: () => ({ next: async () => ({ done: true as const, value: undefined }) }),
    };
    const failing = (written: number) =>
      world.ledger.put(stream, async (onWritten) => {
        onWritten(written);
        return full();
      });
    await expect(failing(1_000)).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_FULL' });
    // Of the 1000 bytes that went in, 900 are believed.
    await world.ledger.reserve(1_050);
    expect(world.files.size).toBe(3);
    await world.ledger.reserve(1e9);
    expect(world.files.size).toBe(3);
    await expect(failing(0)).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_FULL' });
    await expect(world.ledger.reserve(301)).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_FULL' });
    expect(world.files.size).toBe(3);
  });

  it('tries whole content once more after making room, and no more than that', async () => {
    const world = open();
    add(world, 1, 100);
    let tries = 0;
    const put = (works: boolean): Promise<string> =>
      world.ledger.put(new Uint8Array(50), async () => {
        tries += 1;
        return works && tries > 1 ? 'kept' : full();
      });
    expect(await put(true)).toBe('kept');
    expect(world.files.size).toBe(0);
    tries = 0;
    await expect(put(false)).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_FULL' });
    expect(tries).toBe(1);
  });

  describe('with parts', () => {
    const addPart = (world: World, index: number, facts: Partial<PartFile>): void => {
      const sizeBytes = facts.sizeBytes ?? 10;
      const part = {
        sha256: nameOf(index),
        sizeBytes,
        storedBytes: sizeBytes,
        openedAt: world.now,
        isOpen: false,
      };
      world.parts.set(part.sha256, { ...part, ...facts });
    };

    it('counts them at the size that they will have, and removes them before any blob, oldest first', async () => {
      const world = open(100);
      add(world, 1, 20);
      addPart(world, 2, { sizeBytes: 30, openedAt: 3 });
      addPart(world, 3, { sizeBytes: 30, openedAt: 2 });
      await world.ledger.reserve(20);
      expect(world.parts.size).toBe(2);
      await world.ledger.reserve(21);
      expect([...world.parts.keys()]).toEqual([nameOf(2)]);
      await world.ledger.reserve(80);
      expect([world.parts.size, world.files.size]).toEqual([0, 1]);
      await world.ledger.reserve(81);
      expect(world.files.size).toBe(0);
    });

    it('counts as freed only what they take by now', async () => {
      const world = open();
      world.free = 10;
      add(world, 1, 20);
      addPart(world, 2, { sizeBytes: 100, storedBytes: 5 });
      await world.ledger.reserve(16);
      expect([world.parts.size, world.files.size]).toEqual([0, 0]);
    });

    it('leaves those alone that somebody works on', async () => {
      const world = open(100);
      addPart(world, 1, { sizeBytes: 60, isOpen: true });
      await expect(world.ledger.reserve(41)).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_FULL' });
      expect(world.parts.size).toBe(1);
    });

    it('forgets those that nobody opened for 30 days', async () => {
      const world = open();
      addPart(world, 1, { openedAt: world.now - 30 * 24 * HOUR_MS });
      addPart(world, 2, { openedAt: world.now - 30 * 24 * HOUR_MS - 1 });
      await world.ledger.forgetOldParts();
      expect([...world.parts.keys()]).toEqual([nameOf(1)]);
    });
  });

  it('evicts in order of use, never what is pinned, as little as it can, or nothing at all', async () => {
    const blob = fc.record({
      size: fc.integer({ min: 0, max: 40 }),
      used: fc.nat(1_000),
      isPinned: fc.boolean(),
    });
    const property = fc.asyncProperty(
      fc.array(blob, { maxLength: 12 }),
      fc.integer({ min: 0, max: 400 }),
      fc.integer({ min: 0, max: 300 }),
      async (blobs, quota, asked) => {
        const world = open(quota);
        blobs.forEach(({ size, used }, i) => {
          world.now = 1e12 + used * HOUR_MS;
          add(world, i, size);
        });
        await world.ledger.pin(
          'me',
          blobs.flatMap(({ isPinned }, i) => (isPinned ? [nameOf(i)] : [])),
        );
        const before = blobs.map((each, i) => ({ ...each, name: nameOf(i) }));
        const failed = await world.ledger.reserve(asked).then(
          () => false,
          () => true,
        );
        const evicted = before.filter(({ name }) => !world.files.has(name));
        const kept = before.filter(({ name }) => world.files.has(name));
        const held = kept.reduce((sum, { size }) => sum + size, 0);
        const least = before.reduce((sum, { size, isPinned }) => sum + (isPinned ? size : 0), 0);
        expect(failed).toBe(least + asked > quota);
        if (failed) expect(evicted).toEqual([]);
        else expect(held + asked).toBeLessThanOrEqual(quota);
        expect(evicted.some(({ isPinned }) => isPinned)).toBe(false);
        const latest = Math.max(-1, ...evicted.map(({ used }) => used));
        const waiting = kept.filter(({ isPinned }) => !isPinned);
        expect(waiting.every(({ used }) => used >= latest)).toBe(true);
        const last = evicted.filter(({ used }) => used === latest).map(({ size }) => size);
        if (last.length > 0) expect(held + Math.max(...last) + asked).toBeGreaterThan(quota);
      },
    );
    await fc.assert(property, { numRuns: 200 });
  });
});
