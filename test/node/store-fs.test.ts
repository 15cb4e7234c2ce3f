import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import * as nodeFs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { equalBytes, fromUtf8, toUtf8 } from '../../src/core/bytes.ts';
import { cacheDirectory, openFsStore, type FileSystem, type FsStoreOptions } from '../../src/stores/fs.ts';
import { testParts } from '../conformance/store-parts.ts';
import { testRoom, type RoomOptions } from '../conformance/store-room.ts';
import { blobsIn, codeOf, inPieces, nameOf, testStore, type OpenedStore } from '../conformance/store.ts';
import { fakeHost, faultyFs, volatileFs } from './store-fs-faults.ts';

const makeDirectory = (): Promise<string> => mkdtemp(join(tmpdir(), 'inlay-store-'));
const abc = toUtf8('abc');

let directory: string;
beforeEach(async () => {
  directory = await makeDirectory();
});
afterEach(() => rm(directory, { recursive: true, force: true }));

testStore('the file store', async () => {
  const own = await makeDirectory();
  const store = openFsStore({ directory: own });
  return {
    store,
    cleanup: async () => {
      await store.close();
      expect(await readdir(join(own, 'tmp')).catch(() => [])).toEqual([]);
      await rm(own, { recursive: true });
    },
  };
});

testStore('the file store with the calls of Windows', async () => {
  const store = openFsStore({ directory: '/volatile', fs: volatileFs('/volatile'), host: windowsHost() });
  return { store, cleanup: () => store.close() };
});

const open = async ({ now, quotaBytes }: RoomOptions, former?: OpenedStore): Promise<OpenedStore> => {
  const own = former?.store.info().location ?? (await makeDirectory());
  const store = openFsStore({
    directory: own,
    host: { now },
    ...(quotaBytes !== undefined && { quotaBytes }),
  });
  return {
    store,
    cleanup: async () => {
      await store.close();
      await rm(own, { recursive: true, force: true });
    },
  };
};
testRoom('the file store', open);
testParts('the file store', open);

const onWindows = new Map<string, FileSystem>();
testParts('the file store with the calls of Windows', async ({ now, quotaBytes }, former) => {
  const own = former?.store.info().location ?? `/volatile/${onWindows.size}`;
  const fs = onWindows.get(own) ?? volatileFs(own);
  onWindows.set(own, fs);
  const store = openFsStore({
    directory: own,
    fs,
    host: { ...windowsHost(), now },
    ...(quotaBytes !== undefined && { quotaBytes }),
  });
  return { store, cleanup: () => store.close() };
});

function windowsHost(): FsStoreOptions['host'] & object {
  return { ...fakeHost(1), platform: 'win32' };
}

describe('the file store', () => {
  it('touches nothing before it is used, and makes its directory on the first write', async () => {
    const fresh = join(directory, 'not', 'yet');
    const store = openFsStore({ directory: fresh });
    expect(store.info()).toEqual({ kind: 'fs', location: fresh });
    expect(await blobsIn(store)).toEqual([]);
    expect(await store.readRecord('slots')).toBeUndefined();
    expect(await readdir(directory)).toEqual([]);
    await store.updateRecord('slots', () => abc);
    expect((await readdir(fresh)).sort()).toEqual(['blobs', 'records', 'tmp']);
  });

  it('is read by the next process', async () => {
    const first = openFsStore({ directory });
    await first.putBlob(nameOf(abc), abc);
    await first.updateRecord('slots', () => abc);
    await first.close();
    const next = openFsStore({ directory });
    expect(await (await next.blob(nameOf(abc)))?.bytes()).toEqual(abc);
    expect(await next.readRecord('slots')).toEqual(abc);
  });

  it('gives blobs a path to the file', async () => {
    const blob = await openFsStore({ directory }).putBlob(nameOf(abc), abc);
    expect(blob.path).toBe(join(directory, 'blobs', nameOf(abc)));
    expect(await readFile(blob.path!, 'utf8')).toBe('abc');
  });

  it('says so when a blob is gone by the time it is read', async () => {
    const store = openFsStore({ directory });
    const blob = await store.putBlob(nameOf(abc), abc);
    await store.deleteBlob(blob.sha256);
    expect(await codeOf(blob.bytes())).toBe('ERR_INLAY_STORE_MISSING');
  });

  it('never writes over a blob that is there', async () => {
    const store = openFsStore({ directory });
    const { path } = await store.putBlob(nameOf(abc), abc);
    const { ino } = await nodeFs.stat(path!);
    await store.putBlob(nameOf(abc), abc);
    // This writer starts before and ends after another one.
    await store.deleteBlob(nameOf(abc));
    let between = 0;
    const late = async function* (): AsyncGenerator<Uint8Array, void> {
      yield abc;
      await openFsStore({ directory }).putBlob(nameOf(abc), abc);
      between = (await nodeFs.stat(path!)).ino;
    };
    await store.putBlob(nameOf(abc), late());
    expect(ino).toBeGreaterThan(0);
    expect((await nodeFs.stat(path!)).ino).toBe(between);
    expect(await readdir(join(directory, 'tmp'))).toEqual([]);
  });

  it('keeps what it hashed when the caller changes the array meanwhile', async () => {
    const content = abc.slice();
    const disk = volatileFs('/volatile');
    const fs: FileSystem = {
      ...disk,
      open: async (path, flags) => {
        const file = await disk.open(path, flags);
        return {
          ...file,
          writeFile: (bytes) => {
            content.fill(0);
            return file.writeFile(bytes);
          },
        };
      },
    };
    const blob = await openFsStore({ directory: '/volatile', fs }).putBlob(nameOf(abc), content);
    expect(await blob.bytes()).toEqual(abc);
  });

  it('gives its updates their turn without waiting for the lock', async () => {
    let waits = 0;
    const pause = async (): Promise<void> => {
      waits += 1;
    };
    const store = openFsStore({ directory, host: { pause } });
    await Promise.all(Array.from({ length: 20 }, () => store.updateRecord('slots', () => abc)));
    expect(waits).toBe(0);
  });

  it('keeps large content equal, in pieces of any size', async () => {
    const content = Uint8Array.from({ length: 3_000_001 }, (_, i) => i % 251);
    const store = openFsStore({ directory });
    const blob = await store.putBlob(nameOf(content), content);
    expect(equalBytes(await blob.bytes(), content)).toBe(true);
  });

  it('replaces a blob whose length something else has changed', async () => {
    const store = openFsStore({ directory });
    const { path } = await store.putBlob(nameOf(abc), abc);
    await writeFile(path!, 'ab');
    await store.putBlob(nameOf(abc), abc);
    expect(await readFile(path!, 'utf8')).toBe('abc');
  });

  it('lists blobs only, whatever else lies in their folder', async () => {
    const store = openFsStore({ directory });
    await store.putBlob(nameOf(abc), abc);
    await writeFile(join(directory, 'blobs', '.DS_Store'), '');
    expect(await blobsIn(store)).toEqual([nameOf(abc)]);
  });

  it('works again after its directory was cleared under it', async () => {
    const store = openFsStore({ directory });
    await store.putBlob(nameOf(abc), abc);
    await rm(directory, { recursive: true });
    expect(await store.blob(nameOf(abc))).toBeUndefined();
    await store.putBlob(nameOf(abc), abc);
    await store.updateRecord('slots', () => abc);
    expect(await store.readRecord('slots')).toEqual(abc);
  });

  it('removes what crashed writers left more than an hour ago, and no younger file', async () => {
    await mkdir(join(directory, 'tmp'), { recursive: true });
    const now = 1_700_000_000_000;
    for (const [name, ageMs] of [
      ['old.part', 3_600_001],
      ['live.part', 3_599_999],
      ['future.part', -9e6],
    ] as const) {
      await writeFile(join(directory, 'tmp', name), 'x');
      await utimes(join(directory, 'tmp', name), 0, (now - ageMs) / 1000);
    }
    const store = openFsStore({ directory, host: { now: () => now } });
    await store.readRecord('slots');
    expect(await readdir(join(directory, 'tmp'))).toContain('old.part');
    await store.updateRecord('slots', () => abc);
    expect((await readdir(join(directory, 'tmp'))).sort()).toEqual(['future.part', 'live.part']);
  });

  it('keeps an error of the directory itself typed', async () => {
    const file = join(directory, 'file');
    await writeFile(file, '');
    const store = openFsStore({ directory: file });
    expect(await codeOf(store.putBlob(nameOf(abc), abc))).toBe('ERR_INLAY_STORE_IO');
    expect(await codeOf(store.updateRecord('slots', () => abc))).toBe('ERR_INLAY_STORE_IO');
  });

  it.each([
    ['ENOSPC', 'ERR_INLAY_STORE_FULL'],
    ['EDQUOT', 'ERR_INLAY_STORE_FULL'],
    ['EROFS', 'ERR_INLAY_STORE_READ_ONLY'],
    ['EACCES', 'ERR_INLAY_STORE_READ_ONLY'],
    ['EPERM', 'ERR_INLAY_STORE_READ_ONLY'],
    ['EMFILE', 'ERR_INLAY_STORE_IO'],
  ])('reports %s as %s', async (errno, code) => {
    const fs = faultyFs(nodeFs, (_, name) => (name === 'write' ? errno : undefined));
    const put = openFsStore({ directory, fs }).putBlob(nameOf(abc), abc);
    await expect(put).rejects.toMatchObject({ code, details: { errno, directory, step: 'write' } });
  });
});

describe('on Windows', () => {
  it('waits for a file that a scanner has open', async () => {
    let refusals = 5;
    const disk = volatileFs('/volatile');
    const fs: FileSystem = {
      ...disk,
      rename: async (from, to) => {
        refusals -= 1;
        if (refusals >= 0) throw Object.assign(new Error('busy'), { code: 'EPERM' });
        return disk.rename(from, to);
      },
    };
    const store = openFsStore({ directory: '/volatile', fs, host: windowsHost() });
    await store.updateRecord('slots', () => abc);
    expect(await store.readRecord('slots')).toEqual(abc);
    refusals = 50;
    expect(await codeOf(store.updateRecord('slots', () => abc))).toBe('ERR_INLAY_STORE_READ_ONLY');
  });
});

describe('the default directory', () => {
  const where = (platform: string, env: Record<string, string>, home = '/home/u'): string =>
    cacheDirectory({ platform, env, homedir: () => home });

  it('is the cache directory of the system', () => {
    expect(where('linux', {})).toBe('/home/u/.cache/inlay');
    expect(where('linux', { XDG_CACHE_HOME: '/var/c' })).toBe('/var/c/inlay');
    expect(where('linux', { XDG_CACHE_HOME: 'relative' })).toBe('/home/u/.cache/inlay');
    expect(where('linux', { XDG_CACHE_HOME: '' })).toBe('/home/u/.cache/inlay');
    expect(where('darwin', { XDG_CACHE_HOME: '/var/c' })).toBe('/home/u/Library/Caches/inlay');
    expect(where('win32', { LOCALAPPDATA: 'D:\\Data' })).toBe('D:\\Data\\inlay\\Cache');
    expect(where('win32', {}, 'C:\\Users\\u')).toBe('C:\\Users\\u\\AppData\\Local\\inlay\\Cache');
  });

  it('is INLAY_CACHE_DIR where that is set', () => {
    for (const platform of ['linux', 'darwin', 'win32']) {
      expect(where(platform, { INLAY_CACHE_DIR: directory, LOCALAPPDATA: 'D:\\' })).toBe(directory);
    }
    const host = { env: { INLAY_CACHE_DIR: directory } };
    expect(openFsStore({ host }).info().location).toBe(directory);
  });
});

describe('a damaged record', () => {
  const slot = (half: number): string => join(directory, 'records', `slots.${half}`);
  const present = async (): Promise<string> => {
    const bytes = await openFsStore({ directory }).readRecord('slots');
    return bytes ? fromUtf8(bytes) : 'none';
  };
  beforeEach(async () => {
    const store = openFsStore({ directory });
    await store.updateRecord('slots', () => toUtf8('first'));
    await store.updateRecord('slots', () => toUtf8('second'));
  });

  it('falls back to the older generation for every single flipped bit of the newer', async () => {
    const file = await readFile(slot(0));
    for (let bit = 0; bit < file.length * 8; bit += 1) {
      const damaged = Buffer.from(file);
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      await writeFile(slot(0), damaged);
      expect(await present()).toBe('first');
    }
  });

  it('does not mind any flipped bit of the older', async () => {
    const file = await readFile(slot(1));
    for (let bit = 0; bit < file.length * 8; bit += 1) {
      const damaged = Buffer.from(file);
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      await writeFile(slot(1), damaged);
      expect(await present()).toBe('second');
    }
  });

  it('falls back for every length but the right one', async () => {
    const file = await readFile(slot(0));
    for (let length = 0; length < file.length; length += 1) {
      await writeFile(slot(0), file.subarray(0, length));
      expect(await present()).toBe('first');
    }
    await writeFile(slot(0), Buffer.concat([file, Buffer.alloc(1)]));
    expect(await present()).toBe('first');
  });

  it('is repaired by the next update, which starts from what is intact', async () => {
    await writeFile(slot(0), 'garbage');
    const store = openFsStore({ directory });
    for (const step of ['+a', '+b']) {
      await store.updateRecord('slots', (old) => toUtf8(fromUtf8(old!) + step));
    }
    expect(await present()).toBe('first+a+b');
    await writeFile(slot(1), 'garbage');
    await writeFile(slot(0), 'garbage');
    expect(await present()).toBe('none');
    await store.updateRecord('slots', () => abc);
    expect(await present()).toBe('abc');
  });
});

describe('a real disk', () => {
  const mounted = (...args: readonly string[]): boolean => spawnSync('mount', args).status === 0;
  const canMount = ((): boolean => {
    const probe = spawnSync('unshare', ['--mount', 'mount', '-t', 'tmpfs', 'none', '/mnt']).status === 0;
    if (!probe)
      console.log('Mounting is not possible here: tests on a full and a read-only disk are left out.');
    return probe;
  })();
  afterEach(() => {
    if (canMount) spawnSync('umount', [join(directory, 'disk')]);
  });

  it.skipIf(!canMount)('that is full keeps what it has, and works again when there is space', async () => {
    const disk = join(directory, 'disk');
    await mkdir(disk);
    expect(mounted('-t', 'tmpfs', '-o', 'size=256k', 'none', disk)).toBe(true);
    const store = openFsStore({ directory: disk });
    await store.updateRecord('slots', () => toUtf8('old'));
    const large = new Uint8Array(1 << 20).fill(9);
    expect(await codeOf(store.putBlob(nameOf(large), inPieces(large, 10_000)))).toBe('ERR_INLAY_STORE_FULL');
    expect(await readdir(join(disk, 'tmp'))).toEqual([]);
    expect(await blobsIn(store)).toEqual([]);

    const filler = await nodeFs.open(join(disk, 'filler'), 'w');
    for (let free = true; free;)
      free = await filler.write(Buffer.alloc(4_096)).then(
        () => true,
        () => false,
      );
    await filler.close();
    expect(await codeOf(store.updateRecord('slots', () => new Uint8Array(9_999)))).toBe(
      'ERR_INLAY_STORE_FULL',
    );
    expect(await store.readRecord('slots')).toEqual(toUtf8('old'));
    expect(await readdir(join(disk, 'tmp'))).toEqual([]);

    await rm(join(disk, 'filler'));
    await store.updateRecord('slots', () => toUtf8('new'));
    expect(await store.readRecord('slots')).toEqual(toUtf8('new'));
  });

  it.skipIf(!canMount)('that is read-only gives what it has and refuses the first write', async () => {
    const disk = join(directory, 'disk');
    await mkdir(disk);
    const writer = openFsStore({ directory: disk });
    await writer.putBlob(nameOf(abc), abc);
    await writer.updateRecord('slots', () => abc);
    expect(mounted('--bind', disk, disk) && mounted('-o', 'remount,ro,bind', disk)).toBe(true);

    const store = openFsStore({ directory: disk });
    expect(await (await store.blob(nameOf(abc)))?.bytes()).toEqual(abc);
    expect(await store.readRecord('slots')).toEqual(abc);
    expect((await store.putBlob(nameOf(abc), abc)).sizeBytes).toBe(3);
    const other = toUtf8('other');
    const writes = [
      store.putBlob(nameOf(other), other),
      store.updateRecord('slots', () => other),
      store.deleteBlob(nameOf(abc)),
    ];
    expect(await Promise.all(writes.map(codeOf))).toEqual(writes.map(() => 'ERR_INLAY_STORE_READ_ONLY'));
    const never = openFsStore({ directory: join(disk, 'never') });
    expect(await codeOf(never.putBlob(nameOf(other), other))).toBe('ERR_INLAY_STORE_READ_ONLY');
  });
});

describe('the room of a disk', () => {
  const withFree = (freeBytes: number): FileSystem => ({
    ...nodeFs,
    statfs: async () => ({ bavail: freeBytes / 512, bsize: 512 }),
  });

  it('is looked up before it is needed, also before the folder is made', async () => {
    const store = openFsStore({ directory: join(directory, 'not', 'yet'), fs: nodeFs });
    await store.reserve(1_000);
    expect(await codeOf(store.reserve(2 ** 53))).toBe('ERR_INLAY_STORE_FULL');
    expect(await store.persist()).toBe(true);
  });

  it('is made by evicting', async () => {
    const store = openFsStore({ directory, fs: withFree(1_024) });
    const blob = await store.putBlob(nameOf(abc), abc);
    await store.reserve(1_024);
    expect(await codeOf(store.reserve(1_028))).toBe('ERR_INLAY_STORE_FULL');
    expect(await blobsIn(store)).toEqual([blob.sha256]);
    await store.reserve(1_027);
    expect(await blobsIn(store)).toEqual([]);
  });

  it('is endless where the platform does not tell', async () => {
    const { statfs: _, ...fs } = nodeFs;
    await openFsStore({ directory, fs }).reserve(2 ** 53);
  });
});

describe('several processes', () => {
  const childFile = fileURLToPath(new URL('store-fs-child.mjs', import.meta.url));
  const start = (task: string, count: number): ChildProcess =>
    spawn(process.execPath, [childFile, directory, task, String(count)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
  const ended = async (child: ChildProcess): Promise<unknown> => (await once(child, 'exit'))[0];
  const count = async (): Promise<number> => {
    const bytes = await openFsStore({ directory }).readRecord('count');
    return bytes ? Number(fromUtf8(bytes)) : 0;
  };
  const increment = (present: Uint8Array | undefined): Uint8Array =>
    toUtf8(String(Number(present ? fromUtf8(present) : 0) + 1));

  it('lose no update of a record', async () => {
    const children = [start('count', 100), start('count', 100)];
    for (const child of children) child.stdout?.resume();
    const store = openFsStore({ directory });
    const exits = Promise.all(children.map(ended));
    for (let i = 0; i < 50; i += 1) await store.updateRecord('count', increment);
    expect(await exits).toEqual([0, 0]);
    expect(await count()).toBe(250);
    expect((await readdir(join(directory, 'records'))).sort()).toEqual(['count.0', 'count.1']);
  });

  it('put the same blobs at once', async () => {
    expect(await Promise.all([start('put', 30), start('put', 30)].map(ended))).toEqual([0, 0]);
    const store = openFsStore({ directory });
    expect((await blobsIn(store)).length).toBe(30);
    for (const name of await blobsIn(store)) {
      expect(nameOf(await (await store.blob(name))!.bytes())).toBe(name);
    }
    expect(await readdir(join(directory, 'tmp'))).toEqual([]);
  });

  it('take over the lock of one that is killed inside an update', async () => {
    const store = openFsStore({ directory });
    await store.updateRecord('count', () => toUtf8('41'));
    const child = start('hang', 1);
    await once(child.stdout!, 'data');
    child.kill('SIGKILL');
    await ended(child);
    expect(await readdir(join(directory, 'records'))).toContain('count.lock');
    expect(await count()).toBe(41);
    let waitedMs = 0;
    const patient = openFsStore({
      directory,
      host: {
        pause: async (durationMs) => {
          waitedMs += durationMs;
        },
      },
    });
    await patient.updateRecord('count', increment);
    expect(await count()).toBe(42);
    expect(waitedMs).toBeLessThan(1_000);
    expect((await readdir(join(directory, 'records'))).sort()).toEqual(['count.0', 'count.1']);
  });

  it('lose nothing that was reported done when one is killed at any moment', async () => {
    for (const kills of [1, 2, 3, 5, 8, 13]) {
      const before = await count();
      const child = start('count', 10_000);
      let reported = 0;
      for await (const _ of createInterface({ input: child.stdout! })) {
        reported += 1;
        if (reported === kills) child.kill('SIGKILL');
      }
      const after = await count();
      expect(after - before === reported || after - before === reported + 1).toBe(true);
      await openFsStore({ directory }).updateRecord('count', increment);
      expect(await count()).toBe(after + 1);
    }
  });
});
