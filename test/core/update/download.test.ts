import { beforeEach, describe, expect, it } from 'vitest';
import { StoreError } from '../../../src/core/errors.ts';
import type { Store } from '../../../src/core/store.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { sha256Hex } from '../../../src/trust/keys.ts';
import { downloadTarget, targetUrl } from '../../../src/update/download.ts';
import { blobsIn } from '../../conformance/store.ts';
import { testPlatform } from '../platform.ts';

const content = Uint8Array.from({ length: 1000 }, (_, i) => i % 251);
const sha256 = sha256Hex(testPlatform(), content);
const target = { path: 'models/digits/1/model.onnx', sha256, length: content.length };
const url = 'https://sync.test';

let store: Store;
beforeEach(() => {
  store = createMemoryStore();
});

/** Downloads from a server that sends these pieces. @returns also how many of them were read. */
async function download(...pieces: Uint8Array[]): Promise<{ outcome: unknown; read: number; bytes: number }> {
  let read = 0;
  let bytes = 0;
  const body = new ReadableStream<Uint8Array>(
    {
      pull: (stream) => {
        const piece = pieces[read];
        read += 1;
        if (piece) stream.enqueue(piece);
        else stream.close();
      },
    },
    { highWaterMark: 0 },
  );
  const platform = testPlatform({ fetch: async () => new Response(body) });
  const onBytes = (count: number): void => {
    bytes += count;
  };
  const outcome = await downloadTarget({ platform, store, url, target, onBytes }).catch(
    (error: unknown) => error,
  );
  return { outcome, read, bytes };
}
const failsWith = (code: string): unknown => expect.objectContaining({ name: 'TrustError', code });

describe('downloadTarget', () => {
  it('brings a file into the store and counts its bytes', async () => {
    const { outcome, bytes } = await download(content.slice(0, 400), content.slice(400));
    expect(outcome).toMatchObject({ sha256, sizeBytes: 1000 });
    expect(bytes).toBe(1000);
    expect(await (await store.blob(sha256))?.bytes()).toEqual(content);
  });

  it('asks for nothing when the store has the file', async () => {
    await store.putBlob(sha256, content);
    expect(await downloadTarget({ platform: testPlatform(), store, url, target })).toMatchObject({ sha256 });
  });

  it('endless data: stops at the first byte beyond the signed length', async () => {
    const { outcome, read } = await download(content, content.slice(0, 1), content, content);
    expect(outcome).toEqual(failsWith('ERR_INLAY_LENGTH'));
    expect(read).toBe(2);
    expect(await blobsIn(store)).toEqual([]);
  });

  it('endless data: ends a request without pieces at the signed length', async () => {
    const long = { ...target, length: 100_000 };
    const ended: boolean[] = [];
    const platform = testPlatform({
      fetch: (_, init) => {
        for (const loaded of [100_000, 100_001]) {
          init?.onActivity?.(loaded);
          ended.push(init?.signal?.aborted === true);
        }
        return new Promise(() => {});
      },
    });
    await expect(downloadTarget({ platform, store, url, target: long })).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_INLAY_LENGTH' }),
    );
    expect(ended).toEqual([false, true]);
    expect(await blobsIn(store)).toEqual([]);
  });

  it('refuses a file that is shorter than signed', async () => {
    const { outcome } = await download(content.slice(0, 999));
    expect(outcome).toEqual(failsWith('ERR_INLAY_LENGTH'));
    expect(await blobsIn(store)).toEqual([]);
  });

  it('arbitrary installation: refuses other content of the signed length', async () => {
    const other = content.slice();
    other[500] = 0xff;
    const { outcome } = await download(other);
    expect(outcome).toEqual(failsWith('ERR_INLAY_HASH'));
    expect(await blobsIn(store)).toEqual([]);
  });

  it('tells a failing store from a failing server', async () => {
    store.putBlob = () => Promise.reject(new Error('disk on fire'));
    expect((await download(content)).outcome).toEqual(new Error('disk on fire'));
  });

  it('names what the server did wrong, also when the store wraps it', async () => {
    const { putBlob } = store;
    store.putBlob = (name, pieces) =>
      putBlob(name, pieces).catch((cause: unknown) => {
        throw new StoreError('ERR_INLAY_STORE_IO', 'The write failed.', { cause });
      });
    expect((await download(content, content)).outcome).toEqual(failsWith('ERR_INLAY_LENGTH'));
  });

  it('reports a login page as wrong content and not as a forged file', async () => {
    const html = { headers: { 'content-type': 'text/html' } };
    const platform = testPlatform({ fetch: async () => new Response('<html>', html) });
    await expect(downloadTarget({ platform, store, url, target })).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_INLAY_HTTP_CONTENT' }),
    );
  });
});

describe('targetUrl', () => {
  it('puts the hash before the file name and escapes the path', () => {
    expect(targetUrl(url, target)).toBe(`https://sync.test/v1/targets/models/digits/1/${sha256}.model.onnx`);
    expect(targetUrl(url, { path: 'a b/c?d#e', sha256: 'x' })).toBe(
      'https://sync.test/v1/targets/a%20b/x.c%3Fd%23e',
    );
  });
});
