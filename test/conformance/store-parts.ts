import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { equalBytes, fromUtf8, toUtf8 } from '../../src/core/bytes.ts';
import type { PartialBlob, Store } from '../../src/core/store.ts';
import type { RoomOptions } from './store-room.ts';
import { blobsIn, codeOf, nameOf, type OpenedStore } from './store.ts';

const DAY_MS = 86_400_000;
const KB = 1024;

/** What every store does with blobs that come together piece by piece. `pieceBytes` is the size of what it cuts them into. */
export function testParts(
  name: string,
  open: (options: RoomOptions, former?: OpenedStore) => Promise<OpenedStore>,
  pieceBytes: number = 64 * KB,
): void {
  describe(`${name} puts blobs together`, () => {
    let now = Date.now();
    let opened: OpenedStore | undefined;
    let store: Store;
    const start = async (quotaBytes?: number): Promise<Store> => {
      now = Date.now();
      opened = await open({ now: () => now, ...(quotaBytes !== undefined && { quotaBytes }) });
      store = opened.store;
      return store;
    };
    /** Closes the store and opens what it kept, as the next process does. */
    const restart = async (): Promise<Store> => {
      const former = opened;
      const next = await open({ now: () => now }, former);
      if (next.store !== former?.store) await former?.store.close();
      opened = next;
      store = next.store;
      return store;
    };
    afterEach(async () => {
      await opened?.cleanup();
      opened = undefined;
    });

    const content = Uint8Array.from({ length: 100_000 }, (_, i) => (i * i) >> 3);
    const sha256 = nameOf(content);
    const put = async (part: PartialBlob, from: number, to: number): Promise<void> =>
      part.write(from, content.subarray(from, to));
    const begin = (of: Store = store): Promise<PartialBlob> => of.openPartial(sha256, content.length);

    it('from pieces in any order, and shows nothing before the end', async () => {
      await start();
      const part = await begin();
      expect(part.note).toBeUndefined();
      await put(part, 60_000, 100_000);
      await put(part, 0, 60_000);
      expect(await store.blob(sha256)).toBeUndefined();
      expect(await blobsIn(store)).toEqual([]);
      const blob = await part.finish();
      expect(blob).toMatchObject({ sha256, sizeBytes: content.length });
      expect(equalBytes(await blob.bytes(), content)).toBe(true);
      expect(await blobsIn(store)).toEqual([sha256]);
      expect(equalBytes((await (await store.blob(sha256))?.bytes())!, content)).toBe(true);
    });

    it('believes the digest of who has computed it', async () => {
      await start();
      const part = await begin();
      await put(part, 0, content.length);
      expect(equalBytes(await (await part.finish(sha256)).bytes(), content)).toBe(true);
    });

    it('reads back what was written, and zeros where nothing was', async () => {
      await start();
      const part = await begin();
      await put(part, 50_000, 50_100);
      const window = new Uint8Array(300);
      window.set(content.subarray(50_000, 50_100), 100);
      expect(await part.read(49_900, 300)).toEqual(window);
      expect(await part.read(content.length - 10, 10)).toEqual(new Uint8Array(10));
      expect(await part.read(content.length, 0)).toEqual(new Uint8Array());
      await part.discard();
    });

    it('from what was saved before it was opened again', async () => {
      await start();
      const first = await begin();
      await put(first, 0, 40_000);
      await first.save(toUtf8('40000'));
      await first.close();
      await restart();
      const second = await begin();
      expect(fromUtf8(second.note!)).toBe('40000');
      expect(equalBytes(await second.read(0, 40_000), content.subarray(0, 40_000))).toBe(true);
      await put(second, 40_000, 70_000);
      await second.save(toUtf8('70000'));
      await restart();
      const third = await begin();
      expect(fromUtf8(third.note!)).toBe('70000');
      await put(third, 70_000, 100_000);
      expect(equalBytes(await (await third.finish()).bytes(), content)).toBe(true);
      await restart();
      expect(equalBytes((await (await store.blob(sha256))?.bytes())!, content)).toBe(true);
      const fresh = await begin();
      expect(fresh.note).toBeUndefined();
      await fresh.discard();
    });

    it('with the note that was saved last, each at least as old as the data', async () => {
      await start();
      for (let round = 1; round <= 5; round += 1) {
        const part = await begin();
        expect(part.note && fromUtf8(part.note)).toBe(round > 1 ? `${round - 1}b` : undefined);
        await part.write(round, Uint8Array.of(round));
        await part.save(toUtf8(`${round}a`));
        await part.save(toUtf8(`${round}b`));
        await part.write(round, Uint8Array.of(round));
        await part.close();
        await restart();
      }
      const part = await begin();
      expect(await part.read(0, 7)).toEqual(Uint8Array.of(0, 1, 2, 3, 4, 5, 0));
      await part.discard();
    });

    it('with notes of nothing and of a megabyte, and of no more', async () => {
      await start();
      for (const sizeBytes of [0, 1 << 20]) {
        const part = await begin();
        await part.save(new Uint8Array(sizeBytes).fill(7));
        await part.close();
        await restart();
        const next = await begin();
        expect(equalBytes(next.note!, new Uint8Array(sizeBytes).fill(7))).toBe(true);
        await next.close();
      }
      const part = await begin();
      await expect(part.save(new Uint8Array((1 << 20) + 1))).rejects.toThrow(RangeError);
      await part.discard();
    });

    it('anew where nothing was saved, or under another size', async () => {
      await start();
      const first = await begin();
      await put(first, 0, 10_000);
      await first.close();
      const unsaved = await begin();
      expect(unsaved.note).toBeUndefined();
      expect(await unsaved.read(0, 100)).toEqual(new Uint8Array(100));
      await put(unsaved, 0, 10_000);
      await unsaved.save(toUtf8('saved'));
      await unsaved.close();
      const other = await store.openPartial(sha256, content.length + 1);
      expect(other.note).toBeUndefined();
      expect(await other.read(0, 100)).toEqual(new Uint8Array(100));
      await other.close();
      const again = await begin();
      expect(again.note).toBeUndefined();
      await again.discard();
    });

    it.each(['', sha256])(
      'and keeps nothing of what does not have the named hash (digest "%s")',
      async (digest) => {
        await start();
        const part = await begin();
        await put(part, 0, 99_999);
        await part.save(toUtf8('note'));
        const finished = part.finish(digest === '' ? undefined : nameOf(toUtf8('other')));
        expect(await codeOf(finished)).toBe('ERR_INLAY_STORE_MISMATCH');
        expect(await codeOf(part.write(0, content))).toBe('ERR_INLAY_CLOSED');
        await part.close();
        expect(await store.blob(sha256)).toBeUndefined();
        const next = await begin();
        expect(next.note).toBeUndefined();
        await next.discard();
      },
    );

    it('that are there already', async () => {
      await start();
      await store.putBlob(sha256, content);
      const part = await begin();
      await put(part, 0, content.length);
      await part.save(toUtf8('note'));
      expect(equalBytes(await (await part.finish()).bytes(), content)).toBe(true);
      const next = await begin();
      expect(next.note).toBeUndefined();
      expect(equalBytes((await (await store.blob(sha256))?.bytes())!, content)).toBe(true);
      await next.discard();
      expect(await blobsIn(store)).toEqual([sha256]);
    });

    it('beside somebody who puts the same blob at once', async () => {
      await start();
      const part = await begin();
      await put(part, 0, content.length);
      const both = await Promise.all([part.finish(), store.putBlob(sha256, content)]);
      for (const blob of both) expect(equalBytes(await blob.bytes(), content)).toBe(true);
      expect(await blobsIn(store)).toEqual([sha256]);
    });

    it('for the newest opener, from what the one before has saved', async () => {
      await start();
      const first = await begin();
      await put(first, 0, 30_000);
      await first.save(toUtf8('first'));
      const second = await begin();
      expect(fromUtf8(second.note!)).toBe('first');
      for (const step of [
        () => first.write(0, new Uint8Array(9)),
        () => first.read(0, 9),
        () => first.save(toUtf8('late')),
        () => first.finish(sha256),
        () => first.discard(),
      ]) {
        expect(await codeOf(step())).toBe('ERR_INLAY_STORE_IO');
      }
      await first.close();
      await put(second, 30_000, 100_000);
      expect(equalBytes(await (await second.finish()).bytes(), content)).toBe(true);
    });

    it('for the newest opener of another store over the same place', async () => {
      await start();
      const former = opened!;
      const next = await open({ now: () => now }, former);
      if (next.store === former.store) return;
      const first = await begin(former.store);
      await put(first, 0, 30_000);
      await first.save(toUtf8('first'));
      await put(first, 30_000, 40_000);
      const idle = await former.store.openPartial('b'.repeat(64), 10);
      await idle.write(0, new Uint8Array(10));
      await (await next.store.openPartial('b'.repeat(64), 10)).discard();
      await idle.close();
      const second = await begin(next.store);
      expect(fromUtf8(second.note!)).toBe('first');
      expect(equalBytes(await second.read(0, 30_000), content.subarray(0, 30_000))).toBe(true);
      expect(await codeOf(first.save(toUtf8('late')))).toBe('ERR_INLAY_STORE_IO');
      expect(await codeOf(first.write(0, new Uint8Array(30_000)))).toBe('ERR_INLAY_STORE_IO');
      expect(await codeOf(first.finish(sha256))).toBe('ERR_INLAY_STORE_IO');
      await first.close();
      expect(equalBytes(await second.read(0, 30_000), content.subarray(0, 30_000))).toBe(true);
      await second.save(toUtf8('second'));
      const third = await begin(former.store);
      expect(fromUtf8(third.note!)).toBe('second');
      expect(await codeOf(second.write(0, content))).toBe('ERR_INLAY_STORE_IO');
      await put(third, 30_000, 100_000);
      expect(equalBytes(await (await third.finish()).bytes(), content)).toBe(true);
      await next.store.close();
    });

    it('for one of many who open them at once', async () => {
      await start();
      const parts = await Promise.all(Array.from({ length: 5 }, () => begin()));
      const ends = await Promise.all(
        parts.map((part) =>
          codeOf(
            (async () => {
              await put(part, 0, content.length);
              await part.finish();
            })(),
          ),
        ),
      );
      expect(ends.filter((end) => end === 'fulfilled')).toHaveLength(1);
      expect(await blobsIn(store)).toEqual([sha256]);
    });

    it('no more once they are discarded', async () => {
      await start();
      const part = await begin();
      await put(part, 0, content.length);
      await part.save(toUtf8('note'));
      await part.discard();
      expect(await codeOf(part.save(toUtf8('late')))).toBe('ERR_INLAY_CLOSED');
      await part.close();
      await restart();
      const next = await begin();
      expect(next.note).toBeUndefined();
      expect(await next.read(0, 10)).toEqual(new Uint8Array(10));
      await next.discard();
    });

    it('until they are closed, which can be done twice and at any time', async () => {
      await start();
      const part = await begin();
      await put(part, 0, content.length);
      await part.save(toUtf8('note'));
      await Promise.all([part.close(), part.close()]);
      await part.close();
      const calls = [
        part.write(0, content),
        part.read(0, 1),
        part.save(content),
        part.finish(),
        part.discard(),
      ];
      expect(await Promise.all(calls.map(codeOf))).toEqual(calls.map(() => 'ERR_INLAY_CLOSED'));
      const next = await begin();
      await next.finish();
      await next.close();
      expect(await blobsIn(store)).toEqual([sha256]);
    });

    it('until the store is closed, which keeps them', async () => {
      await start();
      const part = await begin();
      await put(part, 0, 10);
      await part.save(toUtf8('note'));
      if ((await restart()) === undefined) return;
      const next = await begin();
      expect(fromUtf8(next.note!)).toBe('note');
      await next.discard();
      await store.close();
      expect(await codeOf(begin())).toBe('ERR_INLAY_CLOSED');
    });

    it('without reading arrays that callers change meanwhile, or lending its own', async () => {
      await start();
      const part = await begin();
      const [given, note] = [content.slice(), toUtf8('note')];
      const steps = [part.write(0, given), part.save(note)];
      given.fill(0);
      note.fill(0);
      await Promise.all(steps);
      (await part.read(0, 10)).fill(9);
      part.note?.fill(9);
      await part.close();
      const next = await begin();
      expect(fromUtf8(next.note!)).toBe('note');
      expect(equalBytes(await (await next.finish()).bytes(), content)).toBe(true);
    });

    it('from writes that are not waited for, one after the other', async () => {
      await start();
      const part = await begin();
      const given = new Uint8Array(20_000);
      for (let round = 0; round < 2; round += 1) {
        const steps: Promise<void>[] = [];
        for (let at = 0; at < content.length; at += 20_000) {
          const length = 20_000 - (at % 3) * 1000;
          given.set(content.subarray(at, at + 20_000));
          steps.push(
            part.write(at, given.subarray(0, length)),
            part.write(at + length, given.subarray(length)),
          );
        }
        await Promise.all(steps);
      }
      expect(equalBytes(await (await part.finish()).bytes(), content)).toBe(true);
    });

    it.each([0, 1, pieceBytes - 1, pieceBytes, pieceBytes + 1, 2 * pieceBytes, 2 * pieceBytes + 1])(
      'of %i bytes',
      async (sizeBytes) => {
        await start();
        const whole = Uint8Array.from({ length: sizeBytes }, (_, i) => (i * 7) >> 2);
        const part = await store.openPartial(nameOf(whole), sizeBytes);
        const half = sizeBytes >> 1;
        await part.write(half, whole.subarray(half));
        await part.save(toUtf8('half'));
        await part.close();
        const next = await store.openPartial(nameOf(whole), sizeBytes);
        expect(fromUtf8(next.note!)).toBe('half');
        await next.write(0, whole.subarray(0, half));
        const blob = await next.finish();
        expect(blob.sizeBytes).toBe(sizeBytes);
        expect(equalBytes(await blob.bytes(), whole)).toBe(true);
      },
    );

    it('of zeros that nobody wrote, for that is what they read as', async () => {
      await start();
      const zeros = new Uint8Array(2 * pieceBytes + 5);
      const part = await store.openPartial(nameOf(zeros), zeros.length);
      await part.write(10, new Uint8Array(10));
      expect(equalBytes(await (await part.finish()).bytes(), zeros)).toBe(true);
      const trusted = await store.openPartial(nameOf(new Uint8Array(9)), 9);
      expect(await (await trusted.finish(nameOf(new Uint8Array(9)))).bytes()).toEqual(new Uint8Array(9));
    });

    it('and refuses offsets, sizes and names that are none', async () => {
      await start();
      for (const [badName, size] of [
        ['abc', 1],
        [sha256, -1],
        [sha256, 1.5],
        [sha256, Number.NaN],
      ] as const) {
        await expect(store.openPartial(badName, size)).rejects.toThrow(RangeError);
      }
      const part = await begin();
      for (const [offset, length] of [
        [-1, 1],
        [100_000, 1],
        [99_999, 2],
        [0.5, 1],
      ] as const) {
        await expect(part.write(offset, new Uint8Array(length))).rejects.toThrow(RangeError);
        await expect(part.read(offset, length)).rejects.toThrow(RangeError);
      }
      await part.discard();
    });

    it('from any writes, saves, closings and restarts as an array would be', async () => {
      const length = 300;
      const step = fc.oneof(
        fc.record({
          do: fc.constant('write' as const),
          at: fc.nat(length - 1),
          bytes: fc.uint8Array({ maxLength: 80 }),
        }),
        fc.record({ do: fc.constant('read' as const), at: fc.nat(length), size: fc.nat(80) }),
        fc.record({ do: fc.constant('save' as const), note: fc.string({ maxLength: 9 }) }),
        fc.record({ do: fc.constant('reopen' as const) }),
        fc.record({ do: fc.constant('restart' as const) }),
      );
      const property = fc.asyncProperty(fc.array(step, { maxLength: 15 }), async (steps) => {
        await opened?.cleanup();
        await start();
        const id = 'a'.repeat(64);
        let model = new Uint8Array(length);
        let note: string | undefined;
        let part = await store.openPartial(id, length);
        for (const each of steps) {
          if (each.do === 'write') {
            const bytes = each.bytes.subarray(0, length - each.at);
            await part.write(each.at, bytes);
            model.set(bytes, each.at);
          } else if (each.do === 'read') {
            const size = Math.min(each.size, length - each.at);
            expect(await part.read(each.at, size)).toEqual(model.slice(each.at, each.at + size));
          } else if (each.do === 'save') {
            await part.save(toUtf8(each.note));
            note = each.note;
          } else {
            // All that was written is there after an orderly end, unless nothing was ever saved.
            await part.close();
            if (each.do === 'restart') await restart();
            part = await store.openPartial(id, length);
            expect(part.note && fromUtf8(part.note)).toBe(note);
            if (note === undefined) model = new Uint8Array(length);
            else model = await part.read(0, length);
          }
        }
        expect(await codeOf(part.finish())).toBe('ERR_INLAY_STORE_MISMATCH');
        const real = await store.openPartial(nameOf(model), length);
        await real.write(0, model);
        expect(await (await real.finish()).bytes()).toEqual(model);
      });
      await fc.assert(property, { numRuns: 25 });
    });

    it('in room that it has made by removing blobs without pins', async () => {
      await start(150_000);
      const small = new Uint8Array(60_000);
      await store.putBlob(nameOf(small), small);
      await store.pin('me', [nameOf(small)]);
      expect(await codeOf(begin())).toBe('ERR_INLAY_STORE_FULL');
      await store.pin('me', []);
      const part = await begin();
      expect(await blobsIn(store)).toEqual([]);
      // It takes the room of the whole from its beginning on, and does not make way for others while it is open.
      expect(await codeOf(store.reserve(50_001))).toBe('ERR_INLAY_STORE_FULL');
      await store.reserve(50_000);
      await put(part, 0, content.length);
      await part.finish();
      expect(await codeOf(store.reserve(50_000))).toBe('fulfilled');
      expect(await blobsIn(store)).toEqual([sha256]);
    });

    it('and gives those up first that were opened the longest time ago', async () => {
      await start(200);
      const names = ['a', 'b', 'c'].map((letter) => letter.repeat(64));
      const keep = toUtf8('x'.repeat(50));
      await store.putBlob(nameOf(keep), keep);
      for (const each of names) {
        const part = await store.openPartial(each, 50);
        await part.save(toUtf8(each));
        await part.close();
        now += DAY_MS;
      }
      // The oldest is opened again, and so it is the newest.
      await (await store.openPartial(names[0]!, 50)).close();
      await store.reserve(50);
      const left: boolean[] = [];
      expect(await blobsIn(store)).toEqual([nameOf(keep)]);
      for (const each of [names[0]!, names[2]!, names[1]!]) {
        const part = await store.openPartial(each, 50);
        left.push(part.note !== undefined);
        await part.close();
      }
      expect(left).toEqual([true, true, false]);
    });

    it('and forgets those that nobody opened for 30 days', async () => {
      await start();
      const save = async (each: string): Promise<void> => {
        const part = await store.openPartial(each, 50);
        await part.save(toUtf8(each));
        await part.close();
      };
      const [old, recent] = ['a'.repeat(64), 'b'.repeat(64)];
      await save(old);
      now += 20 * DAY_MS;
      await save(recent);
      now += 11 * DAY_MS;
      const former = store;
      await restart();
      // A store that lasts as long as its process looks only once.
      if (former === store) return;
      await begin().then((part) => part.discard());
      const parts = [await store.openPartial(old, 50), await store.openPartial(recent, 50)];
      expect(parts.map(({ note }) => note !== undefined)).toEqual([false, true]);
    });
  });
}
