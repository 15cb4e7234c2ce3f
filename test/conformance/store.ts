import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { concatBytes, equalBytes, fromUtf8, toHex, toUtf8 } from '../../src/core/bytes.ts';
import { isInlayError } from '../../src/core/errors.ts';
import { createSha256 } from '../../src/core/hash.ts';
import type { Store } from '../../src/core/store.ts';

/** A store to test, and how to get rid of it. */
export interface OpenedStore {
  readonly store: Store;
  cleanup(): Promise<void>;
}

/** Names content as a store does. */
export function nameOf(content: Uint8Array): string {
  const hash = createSha256();
  hash.update(content);
  return toHex(hash.digest());
}

/** Names of all blobs, in order. */
export async function blobsIn(store: Pick<Store, 'describeBlobs'>): Promise<readonly string[]> {
  return (await store.describeBlobs()).map(({ sha256 }) => sha256);
}

/** Hands content out in pieces of `pieceBytes`. */
export async function* inPieces(content: Uint8Array, pieceBytes: number): AsyncGenerator<Uint8Array, void> {
  for (let at = 0; at < content.length; at += pieceBytes) yield content.subarray(at, at + pieceBytes);
}

/** The code of the Inlay error that `promise` is rejected with. */
export function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'fulfilled',
    (error: unknown) => {
      if (isInlayError(error)) return error.code;
      throw error;
    },
  );
}

/** What every store does, whatever it keeps things in. `additionalTests` gets the store of the running test. */
export function testStore(
  name: string,
  open: () => Promise<OpenedStore>,
  additionalTests?: (current: () => Store) => void,
): void {
  describe(`${name} keeps the store's contract`, () => {
    let opened: OpenedStore;
    let store: Store;
    const abc = toUtf8('abc');

    beforeEach(async () => {
      opened = await open();
      store = opened.store;
    });
    afterEach(() => opened.cleanup());

    describe('blobs', () => {
      it('reads back what it was given, whole or in pieces', async () => {
        const content = Uint8Array.from({ length: 300_000 }, (_, i) => (i * i) >> 3);
        const whole = await store.putBlob(nameOf(content), content);
        expect(whole.sha256).toBe(nameOf(content));
        expect(whole.sizeBytes).toBe(300_000);
        expect(equalBytes(await whole.bytes(), content)).toBe(true);
        await store.deleteBlob(whole.sha256);
        const pieces = await store.putBlob(whole.sha256, inPieces(content, 4_096));
        expect(pieces.sizeBytes).toBe(300_000);
        expect(equalBytes((await (await store.blob(whole.sha256))?.bytes())!, content)).toBe(true);
      });

      it('keeps empty content', async () => {
        const empty = new Uint8Array();
        await store.putBlob(nameOf(empty), empty);
        expect((await store.blob(nameOf(empty)))?.sizeBytes).toBe(0);
        expect(await (await store.blob(nameOf(empty)))?.bytes()).toEqual(empty);
      });

      it('reads any part of a blob, and nothing beyond it', async () => {
        const content = Uint8Array.from({ length: 200_000 }, (_, i) => (i * i) >> 3);
        const put = await store.putBlob(nameOf(content), inPieces(content, 70_000));
        for (const blob of [put, (await store.blob(put.sha256))!]) {
          for (const [offset, length] of [
            [0, 200_000],
            [69_990, 20],
            [100_000, 99_999],
            [199_999, 1],
            [200_000, 0],
            [0, 0],
          ] as const) {
            const read = await blob.read(offset, length);
            expect(equalBytes(read, content.subarray(offset, offset + length))).toBe(true);
            read.fill(0);
          }
          for (const [offset, length] of [
            [-1, 2],
            [199_999, 2],
            [0, 1.5],
          ] as const) {
            await expect(blob.read(offset, length)).rejects.toThrow(RangeError);
          }
        }
        expect(equalBytes(await put.bytes(), content)).toBe(true);
      });

      it('keeps exactly the window of a larger buffer', async () => {
        const window = toUtf8('..abc..').subarray(2, 5);
        const blob = await store.putBlob(nameOf(abc), window);
        expect(await blob.bytes()).toEqual(abc);
      });

      it('has none that was not given', async () => {
        expect(await store.blob(nameOf(abc))).toBeUndefined();
        expect(await blobsIn(store)).toEqual([]);
      });

      it('lists each once, in order of name', async () => {
        const names = await Promise.all(
          ['abc', 'def', 'ghi', 'abc'].map(async (text) => {
            const content = toUtf8(text);
            return (await store.putBlob(nameOf(content), content)).sha256;
          }),
        );
        expect(await blobsIn(store)).toEqual([...new Set(names)].sort());
      });

      it('forgets what is deleted, and does not mind deleting twice', async () => {
        await store.putBlob(nameOf(abc), abc);
        await store.deleteBlob(nameOf(abc));
        await store.deleteBlob(nameOf(abc));
        expect(await store.blob(nameOf(abc))).toBeUndefined();
        expect(await blobsIn(store)).toEqual([]);
      });

      it.each([
        ['whole', (content: Uint8Array) => content],
        ['in pieces', (content: Uint8Array) => inPieces(content, 2)],
      ])('keeps nothing of content that does not have the named hash, %s', async (_, give) => {
        const other = nameOf(toUtf8('other'));
        expect(await codeOf(store.putBlob(other, give(abc)))).toBe('ERR_INLAY_STORE_MISMATCH');
        expect(await store.blob(other)).toBeUndefined();
        expect(await blobsIn(store)).toEqual([]);
      });

      it('does not read the content of a blob that it has, and ends it', async () => {
        await store.putBlob(nameOf(abc), abc);
        let ended = 0;
        const unread: AsyncIterable<Uint8Array> = {
          [Symbol.asyncIterator]: () => ({
            next: () => Promise.reject(new Error('was read')),
            return: async () => {
              ended += 1;
              return { done: true, value: undefined };
            },
          }),
        };
        expect((await store.putBlob(nameOf(abc), unread)).sizeBytes).toBe(3);
        expect(ended).toBe(1);
      });

      it('rethrows what the content throws, and keeps nothing', async () => {
        const reason = new Error('connection lost');
        const broken = async function* (): AsyncGenerator<Uint8Array, void> {
          yield abc;
          throw reason;
        };
        await expect(store.putBlob(nameOf(abc), broken())).rejects.toBe(reason);
        expect(await blobsIn(store)).toEqual([]);
        await store.putBlob(nameOf(abc), abc);
        expect(await blobsIn(store)).toEqual([nameOf(abc)]);
      });

      it('takes the same blob from several writers at once', async () => {
        const content = new Uint8Array(100_000).fill(7);
        const blobs = await Promise.all(
          [1_000, 7_777, 100_000].map((pieceBytes) =>
            store.putBlob(nameOf(content), inPieces(content, pieceBytes)),
          ),
        );
        for (const blob of blobs) expect(equalBytes(await blob.bytes(), content)).toBe(true);
        expect(await blobsIn(store)).toEqual([nameOf(content)]);
      });

      it('is not changed by what callers do to their arrays', async () => {
        const given = abc.slice();
        const blob = await store.putBlob(nameOf(abc), given);
        given.fill(0);
        (await blob.bytes()).fill(0);
        expect(await blob.bytes()).toEqual(abc);
      });

      it('gives bytes that can be transferred', async () => {
        const blob = await store.putBlob(nameOf(abc), abc);
        const bytes = await blob.bytes();
        structuredClone(bytes, { transfer: [bytes.buffer] });
        expect(bytes.length).toBe(0);
        expect(await blob.bytes()).toEqual(abc);
      });

      it.each(['', 'abc', nameOf(toUtf8('abc')).toUpperCase(), `${'0'.repeat(63)}/`, `../${'0'.repeat(61)}`])(
        'refuses the name "%s"',
        async (badName) => {
          await expect(store.blob(badName)).rejects.toThrow(RangeError);
          await expect(store.putBlob(badName, abc)).rejects.toThrow(RangeError);
          await expect(store.deleteBlob(badName)).rejects.toThrow(RangeError);
        },
      );
    });

    describe('records', () => {
      it('has none that was not written', async () => {
        expect(await store.readRecord('slots')).toBeUndefined();
      });

      it('gives the present content to the change, and its result to the caller and to readers', async () => {
        expect(
          await store.updateRecord('slots', (present) => {
            expect(present).toBeUndefined();
            return toUtf8('one');
          }),
        ).toEqual(toUtf8('one'));
        const after = await store.updateRecord('slots', (present) => concatBytes([present!, toUtf8('+two')]));
        expect(after).toEqual(toUtf8('one+two'));
        expect(await store.readRecord('slots')).toEqual(toUtf8('one+two'));
      });

      it('tells empty content from none', async () => {
        await store.updateRecord('slots', () => new Uint8Array());
        expect(await store.readRecord('slots')).toEqual(new Uint8Array());
      });

      it('stays as it is when the change returns undefined', async () => {
        expect(await store.updateRecord('slots', () => undefined)).toBeUndefined();
        expect(await store.readRecord('slots')).toBeUndefined();
        await store.updateRecord('slots', () => abc);
        expect(await store.updateRecord('slots', () => undefined)).toEqual(abc);
        expect(await store.readRecord('slots')).toEqual(abc);
      });

      it('stays as it is when the change throws, and can be changed again', async () => {
        const reason = new Error('changed my mind');
        await store.updateRecord('slots', () => abc);
        const update = store.updateRecord('slots', () => {
          throw reason;
        });
        await expect(update).rejects.toBe(reason);
        expect(await store.readRecord('slots')).toEqual(abc);
        await store.updateRecord('slots', () => toUtf8('next'));
        expect(await store.readRecord('slots')).toEqual(toUtf8('next'));
      });

      it('loses no update of many at once', async () => {
        const next = (present: Uint8Array | undefined): Uint8Array =>
          toUtf8(String(Number(present ? fromUtf8(present) : 0) + 1));
        const results = await Promise.all(
          Array.from({ length: 40 }, (_, i) => store.updateRecord(i % 2 ? 'a' : 'b', next)),
        );
        const counts = results.map((bytes) => Number(fromUtf8(bytes!))).sort((x, y) => x - y);
        expect(counts).toEqual(Array.from({ length: 40 }, (_, i) => 1 + (i >> 1)));
      });

      it('is not changed by what callers do to their arrays', async () => {
        const given = abc.slice();
        (await store.updateRecord('slots', () => given))?.fill(1);
        given.fill(2);
        (await store.readRecord('slots'))?.fill(3);
        const kept = await store.updateRecord('slots', (present) => {
          present?.fill(4);
          return undefined;
        });
        expect(kept).toEqual(abc);
        expect(await store.readRecord('slots')).toEqual(abc);
      });

      it('keeps records apart whose names look like parts of each other', async () => {
        const names = ['a', 'a.0', 'a.1', 'a.lock', 'a.lock.break', '.', '..', '-', 'a.0.0'];
        for (const recordName of names) await store.updateRecord(recordName, () => toUtf8(recordName));
        for (const recordName of names) {
          expect(fromUtf8((await store.readRecord(recordName))!)).toBe(recordName);
        }
      });

      it.each(['', 'A', 'a/b', 'a\\b', '../a', 'a b', 'é', 'a\0', 'a'.repeat(201)])(
        'refuses the name %j',
        async (badName) => {
          await expect(store.readRecord(badName)).rejects.toThrow(RangeError);
          await expect(store.updateRecord(badName, () => abc)).rejects.toThrow(RangeError);
        },
      );
    });

    it('does what a map would do, for any sequence of calls', async () => {
      const text = fc.constantFrom('', 'a', 'b', 'long '.repeat(50));
      const recordName = fc.constantFrom('r', 's');
      const call = fc.oneof(
        fc.record({ do: fc.constant('put' as const), text, pieceBytes: fc.integer({ min: 1, max: 99 }) }),
        fc.record({ do: fc.constant('mismatch' as const), text }),
        fc.record({ do: fc.constant('delete' as const), text }),
        fc.record({ do: fc.constant('update' as const), recordName, text }),
        fc.record({ do: fc.constant('keep' as const), recordName }),
        fc.record({ do: fc.constant('throw' as const), recordName }),
      );
      const property = fc.asyncProperty(fc.array(call, { maxLength: 12 }), async (calls) => {
        const fresh = await open();
        const { store: real } = fresh;
        try {
          const blobs = new Map<string, string>();
          const records = new Map<string, string>();
          for (const step of calls) {
            if (step.do === 'put') {
              const content = toUtf8(step.text);
              await real.putBlob(nameOf(content), inPieces(content, step.pieceBytes));
              blobs.set(nameOf(content), step.text);
            } else if (step.do === 'mismatch') {
              const missing = nameOf(toUtf8(`not ${step.text}`));
              expect(await codeOf(real.putBlob(missing, toUtf8(step.text)))).toBe('ERR_INLAY_STORE_MISMATCH');
            } else if (step.do === 'delete') {
              await real.deleteBlob(nameOf(toUtf8(step.text)));
              blobs.delete(nameOf(toUtf8(step.text)));
            } else if (step.do === 'update') {
              const old = records.get(step.recordName) ?? '';
              await real.updateRecord(step.recordName, (present) =>
                toUtf8(`${present ? fromUtf8(present) : ''}|${step.text}`),
              );
              records.set(step.recordName, `${old}|${step.text}`);
            } else {
              const before = real.updateRecord(step.recordName, () => {
                if (step.do === 'throw') throw new RangeError('no');
                return undefined;
              });
              if (step.do === 'throw') await expect(before).rejects.toThrow('no');
              else await before;
            }
          }
          expect(await blobsIn(real)).toEqual([...blobs.keys()].sort());
          for (const [sha256, content] of blobs) {
            expect(fromUtf8((await (await real.blob(sha256))?.bytes())!)).toBe(content);
          }
          for (const key of ['r', 's']) {
            const bytes = await real.readRecord(key);
            expect(bytes && fromUtf8(bytes)).toBe(records.get(key));
          }
        } finally {
          await fresh.cleanup();
        }
      });
      await fc.assert(property, { numRuns: 40 });
    });

    it('refuses everything after close, and closes twice', async () => {
      await store.close();
      await store.close();
      const calls = [
        store.blob(nameOf(abc)),
        store.putBlob(nameOf(abc), abc),
        store.openPartial(nameOf(abc), 3),
        store.deleteBlob(nameOf(abc)),
        blobsIn(store),
        store.pin('app', [nameOf(abc)]),
        store.reserve(1),
        store.persist(),
        store.readRecord('slots'),
        store.updateRecord('slots', () => abc),
      ];
      expect(await Promise.all(calls.map(codeOf))).toEqual(calls.map(() => 'ERR_INLAY_CLOSED'));
    });

    it('waits at its close for what is being written', async () => {
      let begin = (): void => {};
      let goOn = (): void => {};
      const begun = new Promise<void>((resolve) => {
        begin = resolve;
      });
      const gate = new Promise<void>((resolve) => {
        goOn = resolve;
      });
      async function* slowly(): AsyncGenerator<Uint8Array> {
        begin();
        yield abc;
        await gate;
      }
      const ends: string[] = [];
      const writing = store.putBlob(nameOf(abc), slowly()).then(() => ends.push('written'));
      await begun;
      const closing = store.close().then(() => ends.push('closed'));
      goOn();
      await Promise.all([writing, closing]);
      expect(ends).toEqual(['written', 'closed']);
    });

    additionalTests?.(() => store);
  });
}
