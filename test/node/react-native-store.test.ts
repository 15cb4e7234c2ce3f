import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { equalBytes, fromUtf8, toUtf8 } from '../../src/core/bytes.ts';
import type { Store } from '../../src/core/store.ts';
import { fromBase64, toBase64 } from '../../src/stores/react-native-base64.ts';
import { toAppFiles, type FileLibrary } from '../../src/stores/react-native-files.ts';
import { toPath } from '../../src/stores/react-native-path.ts';
import { openReactNativeStore } from '../../src/stores/react-native.ts';
import { testParts } from '../conformance/store-parts.ts';
import { testRoom, type RoomOptions } from '../conformance/store-room.ts';
import { blobsIn, codeOf, inPieces, nameOf, testStore, type OpenedStore } from '../conformance/store.ts';
import { fakeExpo, fakeRnfs, removeAll, type Fault } from './react-native-files.ts';

const libraries: readonly [string, (directory: string, fault?: Fault) => FileLibrary][] = [
  ['expo-file-system', fakeExpo],
  ['react-native-fs', fakeRnfs],
];
const digest = async (bytes: Uint8Array): Promise<Uint8Array> => createHash('sha256').update(bytes).digest();
const pause = async (): Promise<void> => {};

const newFolder = (): string => mkdtempSync(join(tmpdir(), 'inlay app%20-'));

for (const [name, fake] of libraries) {
  for (const native of [false, true]) {
    testStore(`the store over ${name}${native ? ' with native hashing' : ''}`, async () => {
      const directory = newFolder();
      const store = openReactNativeStore({ files: fake(directory), pause, ...(native && { digest }) });
      return {
        store,
        cleanup: async () => {
          await store.close();
          removeAll(directory);
        },
      };
    });
  }

  const open = async (options: RoomOptions, former?: OpenedStore): Promise<OpenedStore> => {
    const directory = former ? folderOf.get(former.store) : undefined;
    const where = directory ?? newFolder();
    const files = former ? filesOf.get(where) : undefined;
    const library = files ?? fake(where);
    filesOf.set(where, library);
    const store = openReactNativeStore({ files: library, pause, ...options });
    folderOf.set(store, where);
    return {
      store,
      cleanup: async () => {
        await store.close();
        removeAll(where);
      },
    };
  };
  const folderOf = new Map<Store, string>();
  const filesOf = new Map<string, FileLibrary>();
  testRoom(`the store over ${name}`, open);
  testParts(`the store over ${name}`, open, 3 * 2 ** 14);

  describe(`the store over ${name}`, () => {
    const directories: string[] = [];
    const folder = (): string => {
      const directory = newFolder();
      directories.push(directory);
      return directory;
    };
    afterEach(() => directories.splice(0).forEach((directory) => removeAll(directory)));

    const content = Uint8Array.from({ length: 600_001 }, (_, i) => (i * i) >> 3);

    it('keeps models among the caches and state among the documents', async () => {
      const directory = folder();
      const store = openReactNativeStore({ files: fake(directory), pause });
      const blob = await store.putBlob(nameOf(content), content);
      await store.updateRecord('slots', () => toUtf8('one'));
      expect(blob.path).toBe(join(directory, 'Cach es/inlay/blobs', blob.sha256));
      expect(readFileSync(blob.path ?? '').equals(Buffer.from(content))).toBe(true);
      expect(readdirSync(join(directory, 'Documents/inlay/records'))).toEqual(['slots.1']);
      expect(store.info()).toEqual({ kind: name, location: join(directory, 'Cach es/inlay') });
      expect(await store.persist()).toBe(false);
    });

    it('takes a folder by its URL', async () => {
      const directory = folder();
      const models = join(directory, 'models');
      const url = `${pathToFileURL(models).href}/`;
      const store = openReactNativeStore({ files: fake(directory), directory: url, pause });
      await store.putBlob(nameOf(content), content);
      expect(store.info().location).toBe(models);
      expect(readdirSync(models).sort()).toEqual(['blobs', 'records', 'tmp']);
    });

    it('has the same content after the app was started again', async () => {
      const directory = folder();
      const first = openReactNativeStore({ files: fake(directory), pause });
      await first.putBlob(nameOf(content), inPieces(content, 70_000));
      for (const text of ['one', 'two', 'three']) await first.updateRecord('slots', () => toUtf8(text));
      await first.close();
      const second = openReactNativeStore({ files: fake(directory), pause });
      expect(await blobsIn(second)).toEqual([nameOf(content)]);
      expect(await second.readRecord('slots')).toEqual(toUtf8('three'));
    });

    it('removes what an app left half written that was killed', async () => {
      const directory = folder();
      const first = openReactNativeStore({ files: fake(directory), pause });
      await first.putBlob(nameOf(content), content);
      const aside = join(directory, 'Cach es/inlay/tmp');
      writeFileSync(join(aside, '7-left'), 'half');
      const second = openReactNativeStore({ files: fake(directory), pause });
      await second.putBlob(nameOf(toUtf8('abc')), toUtf8('abc'));
      expect(readdirSync(aside)).toEqual([]);
    });

    it('goes on with the generation before when the newest is damaged', async () => {
      const directory = folder();
      const store = openReactNativeStore({ files: fake(directory), pause });
      await store.updateRecord('slots', () => toUtf8('one'));
      await store.updateRecord('slots', () => toUtf8('two'));
      const newest = join(directory, 'Documents/inlay/records/slots.0');
      const file = readFileSync(newest);
      for (let at = 0; at < file.length; at += 1) {
        const damaged = Uint8Array.from(file);
        damaged[at] = (damaged[at] ?? 0) ^ 4;
        writeFileSync(newest, damaged);
        expect(await store.readRecord('slots')).toEqual(toUtf8('one'));
        writeFileSync(newest, file.subarray(0, at));
        expect(await store.readRecord('slots')).toEqual(toUtf8('one'));
      }
    });

    it('has the old or the new record wherever the app is killed', async () => {
      for (let survived = 0; ; survived += 1) {
        const directory = folder();
        let left = Infinity;
        const kill: Fault = () => {
          left -= 1;
          if (left < 0) throw new Error('killed');
        };
        const files = fake(directory, kill);
        const store = openReactNativeStore({ files, pause });
        for (const text of ['a', 'b', 'c']) await store.updateRecord('slots', () => toUtf8(text));
        left = survived;
        const outcome = await codeOf(store.updateRecord('slots', () => toUtf8('d')));
        const reborn = openReactNativeStore({ files: fake(directory), pause });
        const found = await reborn.readRecord('slots');
        if (outcome === 'fulfilled') {
          expect(found).toEqual(toUtf8('d'));
          expect(survived).toBeGreaterThan(2);
          return;
        }
        expect(found).toEqual(toUtf8('c'));
        expect(outcome).toBe('ERR_INLAY_STORE_IO');
      }
    });

    it('goes on with a partial blob wherever the app is killed, and is right in the end', async () => {
      const half = content.length >> 1;
      const download = async (store: Store): Promise<void> => {
        const part = await store.openPartial(nameOf(content), content.length);
        const from = part.note ? Number(fromUtf8(part.note)) : 0;
        if (from < half) {
          await part.write(0, content.subarray(0, half));
          await part.save(toUtf8(String(half)));
        }
        await part.write(half, content.subarray(half));
        await part.save(toUtf8(String(content.length)));
        // Nothing is hashed again, so that a note that says too much would show.
        await part.finish(nameOf(content));
      };
      for (let survived = 0; ; survived += 1) {
        const directory = folder();
        let left = survived;
        const kill: Fault = () => {
          left -= 1;
          if (left < 0) throw new Error('killed');
        };
        const outcome = await codeOf(download(openReactNativeStore({ files: fake(directory, kill), pause })));
        const reborn = openReactNativeStore({ files: fake(directory), pause });
        if (!(await reborn.blob(nameOf(content)))) await download(reborn);
        const kept = await (await reborn.blob(nameOf(content)))?.bytes();
        expect(equalBytes(kept!, content)).toBe(true);
        expect(readdirSync(join(directory, 'Cach es/inlay/tmp'))).toEqual([]);
        if (outcome === 'fulfilled') {
          expect(survived).toBeGreaterThan(10);
          return;
        }
      }
    });

    it('begins a partial blob anew of which the system has cleared something', async () => {
      for (const lost of ['.data', '.0', '.1']) {
        const directory = folder();
        const store = openReactNativeStore({ files: fake(directory), pause });
        const part = await store.openPartial(nameOf(content), content.length);
        await part.write(0, content);
        await part.save(toUtf8('note'));
        await part.close();
        removeAll(join(directory, `Cach es/inlay/parts/${nameOf(content)}${lost}`));
        const next = await store.openPartial(nameOf(content), content.length);
        // Of two generations of the facts, the older knows of no note.
        if (next.note) expect(equalBytes(await (await next.finish()).bytes(), content)).toBe(true);
        else expect(await next.read(0, 9)).toEqual(new Uint8Array(9));
        if (lost === '.data') expect(next.note).toBeUndefined();
        await next.close();
      }
    });

    it('loses no update when an app that reloads has two stores for a while', async () => {
      const files = fake(folder());
      const stores = [0, 1].map(() => openReactNativeStore({ files, pause }));
      const add = (store: Store): Promise<unknown> =>
        store.updateRecord('count', (present) => Uint8Array.of((present?.[0] ?? 0) + 1));
      await Promise.all(Array.from({ length: 30 }, (_, i) => add(stores[i % 2] as Store)));
      expect(await stores[0]?.readRecord('count')).toEqual(Uint8Array.of(30));
    });

    it.each([
      ['write failed: ENOSPC (No space left on device)', 'ERR_INLAY_STORE_FULL'],
      ['Error Domain=NSCocoaErrorDomain Code=640 "The disk is full."', 'ERR_INLAY_STORE_FULL'],
      ['open failed: EROFS (Read-only file system)', 'ERR_INLAY_STORE_READ_ONLY'],
      ['You don’t have permission to save the file. Code=513', 'ERR_INLAY_STORE_READ_ONLY'],
      ['something else', 'ERR_INLAY_STORE_IO'],
    ])('tells "%s" from other failures, and keeps nothing', async (message, code) => {
      const directory = folder();
      let fails = false;
      const files = fake(directory, (step) => {
        if (fails && step === 'write') throw new Error(message);
      });
      const store = openReactNativeStore({ files, pause });
      fails = true;
      expect(await codeOf(store.putBlob(nameOf(content), inPieces(content, 50_000)))).toBe(code);
      expect(await blobsIn(store)).toEqual([]);
      expect(readdirSync(join(directory, 'Cach es/inlay/tmp'))).toEqual([]);
      fails = false;
      await store.putBlob(nameOf(content), content);
      expect(await blobsIn(store)).toEqual([nameOf(content)]);
    });

    it('ends the producer of content that it cannot keep', async () => {
      let ended = 0;
      const endless: AsyncIterable<Uint8Array> = {
        [Symbol.asyncIterator]: () => ({
          next: async () => ({ done: false, value: content }),
          return: async () => {
            ended += 1;
            return { done: true, value: undefined };
          },
        }),
      };
      const files = fake(folder(), (step) => {
        if (step === 'write') throw new Error('ENOSPC');
      });
      const store = openReactNativeStore({ files, pause });
      expect(await codeOf(store.putBlob(nameOf(content), endless))).toBe('ERR_INLAY_STORE_FULL');
      expect(ended).toBe(1);
    });

    it('says that a blob is gone when the system has cleared the caches', async () => {
      const directory = folder();
      const store = openReactNativeStore({ files: fake(directory), pause });
      const blob = await store.putBlob(nameOf(content), content);
      removeAll(join(directory, 'Cach es/inlay'));
      expect(await codeOf(blob.bytes())).toBe('ERR_INLAY_STORE_MISSING');
      expect(await store.blob(blob.sha256)).toBeUndefined();
      expect(existsSync(blob.path ?? '')).toBe(false);
    });

    it('lets the app draw every few milliseconds', async () => {
      let time = 0;
      let pauses = 0;
      const store = openReactNativeStore({
        files: fake(folder()),
        now: () => (time += 1),
        pause: async () => {
          pauses += 1;
        },
      });
      await store.putBlob(nameOf(content), inPieces(content, 200_000));
      expect(pauses).toBeGreaterThan(600_001 / 16_384 / 6);
    });
  });
}

it('refuses a library that it does not know', () => {
  const old = { readAsStringAsync: () => {}, writeAsStringAsync: () => {} };
  // @ts-expect-error The legacy API cannot write in pieces.
  expect(() => toAppFiles(old)).toThrow(TypeError);
});

it('writes and reads base64 as everybody does', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 20_000 }), (bytes) => {
      const text = Buffer.from(bytes).toString('base64');
      expect(toBase64(bytes)).toBe(text);
      expect(fromBase64(text)).toEqual(new Uint8Array(bytes));
      expect(fromBase64(text.replace(/(.{76})/g, '$1\n'))).toEqual(new Uint8Array(bytes));
    }),
    { numRuns: 60 },
  );
  expect(() => fromBase64('abc')).toThrow(RangeError);
});

it.each([
  ['/data/app/model.onnx', '/data/app/model.onnx'],
  ['file:///data/app/%2540me%252Fapp/model.onnx', '/data/app/%40me%2Fapp/model.onnx'],
  ['file://localhost/data/model.onnx', '/data/model.onnx'],
  ['FILE:/data/model%20b.onnx', '/data/model b.onnx'],
  ['file:///data/100%.onnx', '/data/100%.onnx'],
])('reads %s as the path that native code needs', (url, path) => {
  expect(toPath(url)).toBe(path);
});
