import * as nodeFs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { fromUtf8, toUtf8 } from '../../src/core/bytes.ts';
import { createSha256 } from '../../src/core/hash.ts';
import type { Store } from '../../src/core/store.ts';
import { withMemoryFallback } from '../../src/stores/fallback.ts';
import { openFsStore } from '../../src/stores/fs.ts';
import { createMemoryStore } from '../../src/stores/memory.ts';
import { testParts } from '../conformance/store-parts.ts';
import { blobsIn, codeOf, inPieces, nameOf, testStore } from '../conformance/store.ts';
import { temporaryDirectory } from './server-fixture.ts';
import { faultyFs } from './store-fs-faults.ts';

/** A store on a disk that fails every change, until it is told otherwise. */
function openOn(directory: string, disk: { errno: string | undefined }): Store {
  const fs = faultyFs(nodeFs, (_, name) =>
    /^(mkdir|open wx|write|rename|unlink)$/.test(name) ? disk.errno : undefined,
  );
  return withMemoryFallback(openFsStore({ directory, fs }), createSha256);
}

const open = (errno: string | undefined) => async () => {
  const directory = await nodeFs.mkdtemp(join(tmpdir(), 'inlay-test-'));
  const store = openOn(directory, { errno });
  return {
    store,
    cleanup: async () => {
      await store.close();
      await nodeFs.rm(directory, { recursive: true });
    },
  };
};

testStore('a disk with memory to fall back on', open(undefined), (current) => {
  it('is what it falls back from, while that works', async () => {
    await current().updateRecord('a', () => toUtf8('1'));
    expect(current().info()).toMatchObject({ kind: 'fs' });
    expect(current().info().degraded).toBeUndefined();
  });
});
testStore('memory in place of a disk', open('EROFS'), (current) => {
  it('says why', async () => {
    expect(current().info().degraded).toBeUndefined();
    await current().updateRecord('a', () => toUtf8('1'));
    expect(current().info()).toMatchObject({ kind: 'memory' });
    expect(current().info().degraded).toMatch(/memory only.*EROFS/);
  });
});

testParts('a disk with memory to fall back on', async ({ now, quotaBytes }, former) => {
  const directory = former?.store.info().location ?? (await temporaryDirectory());
  const host = { now };
  const disk = openFsStore({ directory, host, ...(quotaBytes !== undefined && { quotaBytes }) });
  const store = withMemoryFallback(disk, createSha256);
  return { store, cleanup: () => store.close() };
});

const abc = toUtf8('abc');

describe('a disk that cannot be written', () => {
  it('is read on, and what is newer is read from memory', async () => {
    const directory = await temporaryDirectory();
    const disk: { errno: string | undefined } = { errno: undefined };
    const store = openOn(directory, disk);
    await store.putBlob(nameOf(abc), abc);
    await store.updateRecord('count', () => toUtf8('1'));
    disk.errno = 'EROFS';
    const seen: string[] = [];
    const add = (present: Uint8Array | undefined): Uint8Array => {
      seen.push(fromUtf8(present ?? new Uint8Array()));
      return toUtf8(`${seen.at(-1)}+`);
    };
    await store.updateRecord('count', add);
    await store.updateRecord('count', add);
    expect(seen.slice(-2)).toEqual(['1', '1+']);
    expect(fromUtf8((await store.readRecord('count')) ?? new Uint8Array())).toBe('1++');
    expect(await (await store.blob(nameOf(abc)))?.bytes()).toEqual(abc);
    expect(await blobsIn(store)).toEqual([nameOf(abc)]);
    disk.errno = undefined;
    expect(fromUtf8((await openOn(directory, disk).readRecord('count')) ?? new Uint8Array())).toBe('1');
  });

  it('keeps a record that a change leaves alone', async () => {
    const directory = await temporaryDirectory();
    const disk: { errno: string | undefined } = { errno: undefined };
    const store = openOn(directory, disk);
    await store.updateRecord('id', () => toUtf8('me'));
    disk.errno = 'EACCES';
    for (const ask of ['first', 'second']) {
      const kept = await store.updateRecord('id', (present) => (present ? undefined : toUtf8(ask)));
      expect(fromUtf8(kept ?? new Uint8Array())).toBe('me');
    }
    expect(await store.updateRecord('other', () => undefined)).toBeUndefined();
  });

  it('shows no blob that was deleted, and takes it again', async () => {
    const disk: { errno: string | undefined } = { errno: undefined };
    const store = openOn(await temporaryDirectory(), disk);
    await store.putBlob(nameOf(abc), abc);
    disk.errno = 'EROFS';
    await store.deleteBlob(nameOf(abc));
    expect(await store.blob(nameOf(abc))).toBeUndefined();
    expect(await blobsIn(store)).toEqual([]);
    await store.putBlob(nameOf(abc), inPieces(abc, 1));
    expect(await (await store.blob(nameOf(abc)))?.bytes()).toEqual(abc);
  });

  it('does not take a damaged blob for the one that is put after it was deleted', async () => {
    const directory = await temporaryDirectory();
    const disk: { errno: string | undefined } = { errno: undefined };
    const store = openOn(directory, disk);
    const { path = '' } = await store.putBlob(nameOf(abc), abc);
    await nodeFs.chmod(path, 0o600);
    await nodeFs.writeFile(path, 'abd');
    disk.errno = 'EROFS';
    await store.deleteBlob(nameOf(abc));
    expect(await (await store.putBlob(nameOf(abc), inPieces(abc, 1))).bytes()).toEqual(abc);
    expect(await (await store.blob(nameOf(abc)))?.bytes()).toEqual(abc);
  });

  it('gives a stream back unread, and fails once if it has read of it', async () => {
    const disk: { errno: string | undefined } = { errno: 'EROFS' };
    const store = openOn(await temporaryDirectory(), disk);
    expect(await store.putBlob(nameOf(abc), inPieces(abc, 1))).toMatchObject({ sizeBytes: 3 });

    const fs = faultyFs(nodeFs, (_, name) => (name === 'write' ? 'EIO' : undefined));
    const late = withMemoryFallback(openFsStore({ directory: await temporaryDirectory(), fs }), createSha256);
    expect(await codeOf(late.putBlob(nameOf(abc), inPieces(abc, 1)))).toBe('ERR_INLAY_STORE_IO');
    expect(await late.putBlob(nameOf(abc), inPieces(abc, 1))).toMatchObject({ sizeBytes: 3 });
  });
});

describe('a partial blob on a disk that fails', () => {
  const openFailing = async (disk: { errno: string | undefined }, whenFull = false): Promise<Store> => {
    const fs = faultyFs(nodeFs, (_, name) => (name === 'write' ? disk.errno : undefined));
    return withMemoryFallback(openFsStore({ directory: await temporaryDirectory(), fs }), createSha256, {
      whenFull,
    });
  };

  it.each([
    ['EIO', false],
    ['EROFS', false],
    ['ENOSPC', true],
  ])('with %s begins anew in memory when it is opened again', async (errno, whenFull) => {
    const disk: { errno: string | undefined } = { errno: undefined };
    const store = await openFailing(disk, whenFull);
    const part = await store.openPartial(nameOf(abc), 3);
    await part.write(0, abc);
    await part.save(abc);
    disk.errno = errno;
    await expect(part.write(0, abc)).rejects.toThrow(errno);
    await part.close();
    const next = await store.openPartial(nameOf(abc), 3);
    expect(next.note).toBeUndefined();
    await next.write(0, abc);
    expect(await (await next.finish()).bytes()).toEqual(abc);
    expect(store.info()).toMatchObject({ kind: 'memory' });
    expect(await (await store.blob(nameOf(abc)))?.bytes()).toEqual(abc);
  });

  it('goes to memory at once where none can begin', async () => {
    const store = openOn(await temporaryDirectory(), { errno: 'EROFS' });
    const part = await store.openPartial(nameOf(abc), 3);
    await part.write(0, abc);
    expect(await (await part.finish()).bytes()).toEqual(abc);
    expect(store.info()).toMatchObject({ kind: 'memory' });
  });

  it('stays on a disk that is full, which passes', async () => {
    const disk: { errno: string | undefined } = { errno: undefined };
    const store = await openFailing(disk);
    const part = await store.openPartial(nameOf(abc), 3);
    disk.errno = 'ENOSPC';
    expect(await codeOf(part.write(0, abc))).toBe('ERR_INLAY_STORE_FULL');
    disk.errno = undefined;
    await part.write(0, abc);
    expect(await (await part.finish()).bytes()).toEqual(abc);
    expect(store.info().degraded).toBeUndefined();
  });

  it('stays on a disk on which somebody else has opened it, or which had the wrong bytes', async () => {
    const directory = await temporaryDirectory();
    const store = openOn(directory, { errno: undefined });
    const first = await store.openPartial(nameOf(abc), 3);
    await openFsStore({ directory }).openPartial(nameOf(abc), 3);
    expect(await codeOf(first.write(0, abc))).toBe('ERR_INLAY_STORE_IO');
    const second = await store.openPartial(nameOf(abc), 3);
    expect(await codeOf(second.finish())).toBe('ERR_INLAY_STORE_MISMATCH');
    expect(store.info().degraded).toBeUndefined();
  });
});

describe('a disk that is too full for a model', () => {
  const large = new Uint8Array(50);
  const small = new Uint8Array(90);
  /** With a small model on disk, and a larger one that went to memory. */
  const openFull = async (): Promise<{ disk: Store; store: Store; warnings: readonly string[] }> => {
    const warnings: string[] = [];
    const disk = createMemoryStore({ quotaBytes: 100 });
    const store = withMemoryFallback(disk, createSha256, {
      whenFull: true,
      logger: { warn: (_, message) => void warnings.push(message) },
    });
    await store.updateRecord('floor', () => toUtf8('1'));
    await store.putBlob(nameOf(small), small);
    await store.pin('app', [nameOf(small)]);
    await store.putBlob(nameOf(large), large);
    return { disk, store, warnings };
  };

  it('still keeps records', async () => {
    const { disk, store, warnings } = await openFull();
    await store.updateRecord('floor', () => toUtf8('2'));
    expect(await disk.readRecord('floor')).toEqual(toUtf8('2'));
    expect(await store.readRecord('floor')).toEqual(toUtf8('2'));
    expect(store.info().degraded).toMatch(/^Models are kept in memory only/);
    expect(warnings).toEqual(['Models are kept in memory only.']);
  });

  it('still learns what is needed', async () => {
    const { disk, store } = await openFull();
    await store.pin('app', []);
    expect(await disk.describeBlobs()).toMatchObject([{ pins: [] }]);
    await store.pin('app', [nameOf(large)]);
    expect((await store.describeBlobs()).filter(({ pins }) => pins.includes('app'))).toMatchObject([
      { sha256: nameOf(large) },
    ]);
  });

  it('lets go of what is deleted', async () => {
    const { disk, store } = await openFull();
    await store.deleteBlob(nameOf(small));
    expect(await blobsIn(disk)).toEqual([]);
    expect(await blobsIn(store)).toEqual([nameOf(large)]);
  });
});

describe('a disk that fails to read', () => {
  /** A store that has a blob and a record, on a disk whose readings fail so often with this errno. */
  const openFailing = async (errno: string, times: number): Promise<Store> => {
    const directory = await temporaryDirectory();
    const sound = openFsStore({ directory });
    await sound.updateRecord('floor', () => toUtf8('7'));
    await sound.putBlob(nameOf(abc), abc);
    await sound.close();
    let left = times;
    const fs = faultyFs(nodeFs, (_, name) => {
      if (!/^(readFile|stat|readdir)$/.test(name) || left === 0) return undefined;
      left -= 1;
      return errno;
    });
    return withMemoryFallback(openFsStore({ directory, fs }), createSha256);
  };

  it('is read once more', async () => {
    expect(await (await openFailing('EIO', 1)).readRecord('floor')).toEqual(toUtf8('7'));
    expect(await (await openFailing('EIO', 1)).blob(nameOf(abc))).toMatchObject({ sizeBytes: 3 });
    expect(await blobsIn(await openFailing('EIO', 1))).toEqual([nameOf(abc)]);
  });

  it('is not taken for one that has no record', async () => {
    const store = await openFailing('EIO', Infinity);
    expect(await codeOf(store.readRecord('floor'))).toBe('ERR_INLAY_STORE_IO');
    expect(await codeOf(store.updateRecord('floor', () => toUtf8('1')))).toBe('ERR_INLAY_STORE_IO');
    expect(store.info().degraded).toBeUndefined();
  });

  it('has no blob that could not be had again', async () => {
    const store = await openFailing('EIO', Infinity);
    expect(await store.blob(nameOf(abc))).toBeUndefined();
    expect(await blobsIn(store)).toEqual([]);
    expect(store.info().degraded).toBeUndefined();
  });

  it('has nothing where it lets nobody look', async () => {
    const store = await openFailing('EACCES', Infinity);
    expect(await store.readRecord('floor')).toBeUndefined();
    expect(await store.blob(nameOf(abc))).toBeUndefined();
  });

  it('has nothing below what is a file', async () => {
    const file = join(await temporaryDirectory(), 'file');
    await nodeFs.writeFile(file, '');
    const store = withMemoryFallback(openFsStore({ directory: join(file, 'cache') }), createSha256);
    expect(await store.readRecord('floor')).toBeUndefined();
    expect(await store.updateRecord('floor', () => abc)).toEqual(abc);
    expect(await store.readRecord('floor')).toEqual(abc);
    expect(store.info().degraded).toMatch(/^Records are kept in memory only/);
    expect(await store.putBlob(nameOf(abc), abc)).toMatchObject({ sizeBytes: 3 });
    expect(store.info().degraded).toMatch(/^Models are .* Records are /);
  });
});

describe('no reason to fall back', () => {
  it('is a full disk', async () => {
    const store = openOn(await temporaryDirectory(), { errno: 'ENOSPC' });
    expect(await codeOf(store.updateRecord('a', () => abc))).toBe('ERR_INLAY_STORE_FULL');
    expect(await codeOf(store.putBlob(nameOf(abc), abc))).toBe('ERR_INLAY_STORE_FULL');
    expect(store.info().degraded).toBeUndefined();
  });

  it('is wrong content', async () => {
    const store = openOn(await temporaryDirectory(), { errno: undefined });
    expect(await codeOf(store.putBlob(nameOf(abc), toUtf8('abd')))).toBe('ERR_INLAY_STORE_MISMATCH');
    expect(store.info().degraded).toBeUndefined();
  });

  it('is a store that was closed', async () => {
    const store = openOn(await temporaryDirectory(), { errno: 'EROFS' });
    await store.updateRecord('a', () => abc);
    await store.close();
    expect(await codeOf(store.readRecord('a'))).toBe('ERR_INLAY_CLOSED');
    expect(await codeOf(store.updateRecord('a', () => abc))).toBe('ERR_INLAY_CLOSED');
  });
});
