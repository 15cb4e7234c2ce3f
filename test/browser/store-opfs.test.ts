import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { equalBytes, fromUtf8, toUtf8 } from '../../src/core/bytes.ts';
import { openOpfsStore, type OpfsStoreOptions } from '../../src/stores/opfs.ts';
import { testParts } from '../conformance/store-parts.ts';
import { testRoom, type RoomOptions } from '../conformance/store-room.ts';
import { codeOf, inPieces, nameOf, testStore, type OpenedStore } from '../conformance/store.ts';
import { filesIn, freshName, removeAll } from './store-fixture.ts';
import { openInWorker } from './store-remote.ts';

const startWriter = () =>
  new Worker(new URL('../../src/stores/opfs-writer.ts', import.meta.url), { type: 'module' });

async function open(options: OpfsStoreOptions, former?: OpenedStore): Promise<OpenedStore> {
  const directory = former?.store.info().location ?? freshName();
  const store = openOpfsStore({ directory, worker: startWriter, ...options });
  return {
    store,
    cleanup: async () => {
      await store.close();
      expect((await filesIn(directory)).filter((file) => file.length !== 64)).toEqual([]);
      await removeAll(directory);
    },
  };
}

testStore('OPFS, written in a worker', () => open({}));
testStore('OPFS, written on the page', () => open({ worker: false }));
testStore('OPFS, used in a worker', async () => {
  const directory = freshName();
  const store = await openInWorker({ kind: 'opfs', name: directory });
  return {
    store,
    cleanup: async () => {
      await store.close();
      expect((await filesIn(directory)).filter((file) => file.length !== 64)).toEqual([]);
      await removeAll(directory);
    },
  };
});
testRoom('OPFS', open);

/** As above, but parts may be left waiting. */
const openParts =
  (options: OpfsStoreOptions) =>
  async (room: RoomOptions, former?: OpenedStore): Promise<OpenedStore> => {
    const { store } = await open({ ...options, ...room }, former);
    const directory = store.info().location ?? '';
    return {
      store,
      cleanup: async () => {
        await store.close();
        expect((await filesIn(directory)).filter((file) => !/^[0-9a-f]{64}(\..*part)?$/.test(file))).toEqual(
          [],
        );
        await removeAll(directory);
      },
    };
  };
testParts('OPFS, written in a worker', openParts({}));
testParts('OPFS, written on the page', openParts({ worker: false }));

const abc = toUtf8('abc');

describe('OPFS', () => {
  const fresh = (options: OpfsStoreOptions = {}) => {
    const directory = options.directory ?? freshName();
    const store = openOpfsStore({ directory, worker: startWriter, ...options });
    onTestFinished(async () => {
      await store.close();
      await removeAll(directory);
    });
    return { store, directory };
  };

  it('goes on with a part whose worker died, from what was saved', async () => {
    const workers: Worker[] = [];
    const { store, directory } = fresh({
      worker: () => {
        const worker = startWriter();
        workers.push(worker);
        return worker;
      },
    });
    const part = await store.openPartial(nameOf(toUtf8('abcabc')), 6);
    await part.write(0, abc);
    await part.save(toUtf8('3'));
    workers[0]?.terminate();
    workers[0]?.dispatchEvent(new Event('error'));
    expect(await codeOf(part.write(3, abc))).toBe('ERR_INLAY_STORE_IO');
    await part.close();
    // The browser frees what a worker had a moment after it has ended.
    await vi.waitFor(async () => {
      const next = await store.openPartial(nameOf(toUtf8('abcabc')), 6);
      try {
        expect(fromUtf8(next.note!)).toBe('3');
        await next.write(3, abc);
        expect(fromUtf8(await (await next.finish()).bytes())).toBe('abcabc');
      } finally {
        await next.close();
      }
    });
    expect(await filesIn(directory)).toEqual([nameOf(toUtf8('abcabc'))]);
  });

  it('removes files of parts that nobody names, and leaves those that wait', async () => {
    const { store, directory } = fresh();
    const part = await store.openPartial(nameOf(abc), 3);
    await part.write(0, abc);
    await part.save(toUtf8('note'));
    await store.close();
    const root = await navigator.storage.getDirectory();
    const folder = await root.getDirectoryHandle(directory);
    await folder.getFileHandle(`${'a'.repeat(64)}.0123456789abcdef.part`, { create: true });
    const { store: next } = fresh({ directory });
    await next.putBlob(nameOf(toUtf8('d')), toUtf8('d'));
    expect((await filesIn(directory)).filter((name) => name.endsWith('.part'))).toHaveLength(1);
    const again = await next.openPartial(nameOf(abc), 3);
    expect(fromUtf8(again.note!)).toBe('note');
    expect(await (await again.finish()).bytes()).toEqual(abc);
  });

  it('is read by whoever opens it next', async () => {
    const { store, directory } = fresh();
    await store.putBlob(nameOf(abc), abc);
    await store.updateRecord('slots', () => abc);
    await store.close();
    const { store: next } = fresh({ directory });
    expect(await (await next.blob(nameOf(abc)))?.bytes()).toEqual(abc);
    expect(await next.readRecord('slots')).toEqual(abc);
    expect(next.info()).toEqual({ kind: 'opfs', location: directory });
  });

  it('keeps large content equal, in pieces of any size', async () => {
    const content = Uint8Array.from({ length: 5_000_001 }, (_, i) => i % 251);
    const { store } = fresh();
    for (const given of [content, inPieces(content, 700_001)]) {
      const blob = await store.putBlob(nameOf(content), given);
      expect(equalBytes(await blob.bytes(), content)).toBe(true);
      await store.deleteBlob(blob.sha256);
    }
  });

  it('says so when a blob is gone by the time it is read', async () => {
    const { store } = fresh();
    const blob = await store.putBlob(nameOf(abc), abc);
    await store.deleteBlob(blob.sha256);
    expect(await codeOf(blob.bytes())).toBe('ERR_INLAY_STORE_MISSING');
  });

  it('replaces a blob whose length something else has changed', async () => {
    const { store, directory } = fresh();
    await store.putBlob(nameOf(abc), abc);
    const root = await navigator.storage.getDirectory();
    const folder = await root.getDirectoryHandle(directory);
    const damaged = await (await folder.getFileHandle(nameOf(abc))).createWritable();
    await damaged.write(toUtf8('ab'));
    await damaged.close();
    expect(fromUtf8(await (await store.putBlob(nameOf(abc), abc)).bytes())).toBe('abc');
  });

  it('removes what a dead writer left, and nothing that a living one is writing', async () => {
    const { store, directory } = fresh();
    await store.putBlob(nameOf(abc), abc);
    const root = await navigator.storage.getDirectory();
    const folder = await root.getDirectoryHandle(directory);
    const left = [
      `${'a'.repeat(64)}.0123456789abcdef.tmp`,
      `${'b'.repeat(64)}.0123456789abcdef.tmp.1.crswap`,
    ];
    for (const name of left) await folder.getFileHandle(name, { create: true });

    let written = (): void => {};
    const isWritten = new Promise<void>((resolve) => {
      written = resolve;
    });
    let goOn = (): void => {};
    const mayGoOn = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    const slow = async function* (): AsyncGenerator<Uint8Array, void> {
      yield toUtf8('slow');
      written();
      await mayGoOn;
    };
    const writing = store.putBlob(nameOf(toUtf8('slow')), slow());
    await isWritten;

    const { store: other } = fresh({ directory });
    await other.putBlob(nameOf(toUtf8('other')), toUtf8('other'));
    const names = await filesIn(directory);
    expect(names.filter((name) => left.includes(name))).toEqual([]);
    expect(names.filter((name) => name.endsWith('.tmp'))).toHaveLength(1);
    goOn();
    expect(fromUtf8(await (await writing).bytes())).toBe('slow');
  });

  it.each<[string, OpfsStoreOptions['worker'] & object]>([
    [
      'cannot be started',
      () => {
        throw new DOMException('Refused by the Content Security Policy.', 'SecurityError');
      },
    ],
    ['is not there', () => new Worker('/there-is-no-such-script.js', { type: 'module' })],
    ['fails when it starts', () => new Worker('data:text/javascript,throw new Error("no")')],
  ])('writes on the page when its worker %s', async (_, worker) => {
    const { store } = fresh({ worker });
    expect(await (await store.putBlob(nameOf(abc), abc)).bytes()).toEqual(abc);
    expect(await (await store.putBlob(nameOf(toUtf8('d')), inPieces(toUtf8('d'), 1))).bytes()).toEqual(
      toUtf8('d'),
    );
  });

  it('refuses to write where a thread has no way to', async () => {
    const { createWritable } = FileSystemFileHandle.prototype;
    onTestFinished(() => void Object.assign(FileSystemFileHandle.prototype, { createWritable }));
    Reflect.deleteProperty(FileSystemFileHandle.prototype, 'createWritable');
    const { store, directory } = fresh({ worker: false });
    expect(await codeOf(store.putBlob(nameOf(abc), abc))).toBe('ERR_INLAY_STORE_IO');
    expect(await filesIn(directory)).toEqual([]);
  });

  it('gives up a blob whose worker dies, keeps nothing of it, and writes the next', async () => {
    const workers: Worker[] = [];
    const { store, directory } = fresh({
      worker: () => {
        const worker = startWriter();
        workers.push(worker);
        return worker;
      },
    });
    const dying = async function* (): AsyncGenerator<Uint8Array, void> {
      yield abc;
      workers[0]?.terminate();
      workers[0]?.dispatchEvent(new Event('error'));
      yield abc;
    };
    expect(await codeOf(store.putBlob(nameOf(toUtf8('abcabc')), dying()))).toBe('ERR_INLAY_STORE_IO');
    await store.putBlob(nameOf(abc), abc);
    expect(workers).toHaveLength(2);
    await store.close();
    await fresh({ directory }).store.putBlob(nameOf(toUtf8('d')), toUtf8('d'));
    expect((await filesIn(directory)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  it('waits a while, and not for ever, for a tab that is frozen in the middle of a change', async () => {
    const { store, directory } = fresh({ worker: false });
    const timeout = AbortSignal.timeout.bind(AbortSignal);
    vi.spyOn(AbortSignal, 'timeout').mockImplementation((durationMs) => timeout(durationMs / 100));
    let free = (): void => {};
    const held = navigator.locks.request(
      `inlay:${directory}/${nameOf(abc)}`,
      () => new Promise<void>((resolve) => (free = resolve)),
    );
    await store.putBlob(nameOf(abc), abc);
    expect(await (await store.blob(nameOf(abc)))?.bytes()).toEqual(abc);
    await store.deleteBlob(nameOf(abc));
    expect(await filesIn(directory)).toEqual([]);
    free();
    await held;
    vi.restoreAllMocks();
  });

  it('keeps and reads 64 MB', async () => {
    const content = new Uint8Array(1 << 26).fill(3);
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', content));
    const sha256 = [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    const { store } = fresh();
    const blob = await store.putBlob(sha256, content);
    expect(blob.sizeBytes).toBe(content.length);
    expect((await blob.bytes()).at(-1)).toBe(3);
  });

  it('says whether the browser will keep it', async () => {
    expect(typeof (await fresh().store.persist())).toBe('boolean');
  });
});
