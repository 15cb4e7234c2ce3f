/** What downloads do about room: they ask for it before they begin, and go on when a store makes some or goes elsewhere. */
import { beforeEach, describe, expect, it } from 'vitest';
import { StoreError } from '../../../src/core/errors.ts';
import type { Store } from '../../../src/core/store.ts';
import { withMemoryFallback } from '../../../src/stores/fallback.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { createTransfers, type Want } from '../../../src/update/transfer.ts';
import { blobsIn } from '../../conformance/store.ts';
import { testPlatform } from '../platform.ts';
import { chunksOf, randomBytes, refOf, serveFiles, type FileServer } from './download-files.ts';

const contents = [1, 2, 3, 4].map((seed) => randomBytes(3000, seed));
const [one, two, three, four] = contents.map((bytes) => refOf(bytes).sha256);
const [content = new Uint8Array()] = contents;
const wants: [string, Want][] = [
  ['whole', refOf(content)],
  ['in pieces', { ...refOf(content), chunks: chunksOf(content, 1024) }],
];

let files: FileServer;
beforeEach(() => {
  files = serveFiles(...contents);
});

const obtain = (store: Store, want: Want): Promise<unknown> =>
  createTransfers({ platform: testPlatform({ fetch: files.fetch }), store, url: 'https://sync.test' }).obtain(
    want,
  );

describe.each(wants)('a download of a file %s', (kind, want) => {
  it('makes what nobody needs make way', async () => {
    const store = createMemoryStore({ quotaBytes: 9000 });
    await store.pin('app', [two ?? '']);
    for (const bytes of contents.slice(1)) {
      await obtain(
        store,
        kind === 'whole' ? refOf(bytes) : { ...refOf(bytes), chunks: chunksOf(bytes, 1024) },
      );
    }
    await obtain(store, want);
    expect(await blobsIn(store)).toHaveLength(3);
    expect(await blobsIn(store)).toEqual(expect.arrayContaining([one, two]));
    expect(await blobsIn(store)).toSatisfy(
      (left: string[]) => left.includes(three ?? '') !== left.includes(four ?? ''),
    );
  });

  it('asks for no byte of what will not fit, and makes nothing make way for it', async () => {
    const store = createMemoryStore({ quotaBytes: 5000 });
    await store.putBlob(two ?? '', contents[1] ?? new Uint8Array());
    await store.pin('app', [two ?? '']);
    await expect(obtain(store, want)).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_FULL' });
    expect(files.requests).toEqual([]);
    expect(await blobsIn(store)).toEqual([two]);
  });

  /** A store that claims to have room, and fails the first `failures` writes halfway. */
  const failing = (failures: number, code: 'ERR_INLAY_STORE_FULL' | 'ERR_INLAY_STORE_IO'): Store => {
    const store = createMemoryStore();
    let left = failures;
    const fail = (): void => {
      left -= 1;
      if (left >= 0) throw new StoreError(code, 'The write failed.');
    };
    return {
      ...store,
      info: () => ({ kind: 'disk' }),
      reserve: async () => {},
      putBlob: async (sha256, bytes) => {
        if (left > 0) await (bytes as AsyncIterable<Uint8Array>)[Symbol.asyncIterator]().next();
        fail();
        return store.putBlob(sha256, bytes);
      },
      openPartial: async (sha256, sizeBytes) => {
        const part = await store.openPartial(sha256, sizeBytes);
        return {
          ...part,
          write: async (offset, bytes) => {
            if (offset > 0) fail();
            await part.write(offset, bytes);
          },
        };
      },
    };
  };

  it('begins again when the store found no room halfway, but may have some now', async () => {
    const store = failing(2, 'ERR_INLAY_STORE_FULL');
    await obtain(store, want);
    expect(await blobsIn(store)).toEqual([one]);
    expect(files.requests).toHaveLength(3);
  });

  it('fails when there is still none', async () => {
    const store = failing(100, 'ERR_INLAY_STORE_FULL');
    await expect(obtain(store, want)).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_FULL' });
    expect(await blobsIn(store)).toEqual([]);
    expect(files.requests).toHaveLength(3);
  });

  it('begins again in memory when the disk broke halfway', async () => {
    const store = withMemoryFallback(failing(100, 'ERR_INLAY_STORE_IO'));
    await obtain(store, want);
    expect(await blobsIn(store)).toEqual([one]);
    expect(store.info().degraded).toMatch(/^Models are kept in memory only/);
  });

  it('fails when the disk broke and there is nowhere to go', async () => {
    const store = failing(100, 'ERR_INLAY_STORE_IO');
    await expect(obtain(store, want)).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_IO' });
    expect(files.requests).toHaveLength(1);
  });
});
