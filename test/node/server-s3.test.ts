import { createCipheriv, createHash } from 'node:crypto';
import { AwsClient } from 'aws4fetch';
import { describe, expect, it } from 'vitest';
import type { Platform } from '../../src/core/platform.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import type { BlobStorage } from '../../src/server/storage/blobs.ts';
import { openS3Storage } from '../../src/server/storage/s3.ts';
import { lacksRadosgw, startRadosgw, type S3Environment } from './radosgw.ts';
import { startFakeS3, type FakeS3 } from './s3-fake.ts';

const megabyte = 2 ** 20;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Node's, whose timers fire at once: waits between tries cost nothing, and silence is not waited for. */
function hastyPlatform(waits: number[] = []): Platform {
  const platform = nodePlatform();
  return {
    ...platform,
    setTimer: (task, delayMs, keepAlive) => {
      if (delayMs >= 60_000) return platform.setTimer(task, delayMs, keepAlive);
      waits.push(delayMs);
      return platform.setTimer(task, 0, keepAlive);
    },
  };
}

async function* inChunks(bytes: Uint8Array, size = 100_000): AsyncGenerator<Uint8Array> {
  await Promise.resolve();
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

const readAll = async (blobs: BlobStorage, name: string, start: number, end: number): Promise<Buffer> =>
  Buffer.from(await new Response(blobs.read(name, start, end)).arrayBuffer());

/** Bytes that differ from place to place, always the same. */
function content(sizeBytes: number): Uint8Array<ArrayBuffer> {
  const zeros = new Uint8Array(sizeBytes);
  const stream = createCipheriv('aes-128-ctr', new Uint8Array(16), new Uint8Array(16));
  return new Uint8Array(stream.update(zeros));
}

describe.skipIf(lacksRadosgw)('blobs on radosgw', () => {
  let started: Promise<S3Environment> | undefined;
  let count = 0;

  /** Opens an empty bucket. */
  async function bucket(prefix = ''): Promise<{ blobs: BlobStorage; env: Record<string, string> }> {
    const server = await (started ??= startRadosgw());
    count += 1;
    const env = { ...server, INLAY_S3_BUCKET: `bucket-${count}`, INLAY_S3_PREFIX: prefix };
    const client = new AwsClient({
      accessKeyId: env.INLAY_S3_ACCESS_KEY_ID,
      secretAccessKey: env.INLAY_S3_SECRET_ACCESS_KEY,
      service: 's3',
      region: 'us-east-1',
    });
    const made = await client.fetch(`${env.INLAY_S3_ENDPOINT}/${env.INLAY_S3_BUCKET}`, { method: 'PUT' });
    expect(made.status).toBe(200);
    return { blobs: await openS3Storage({ env, platform: hastyPlatform() }), env };
  }

  it('keeps a blob and gives any range of it', async () => {
    const { blobs } = await bucket();
    const bytes = content(10_000);
    const name = sha256(bytes);
    expect(await blobs.size(name)).toBeUndefined();
    expect(await blobs.write(name, inChunks(bytes), bytes.length)).toBe(10_000);
    expect(await blobs.size(name)).toBe(10_000);
    expect(await readAll(blobs, name, 0, 9999)).toEqual(Buffer.from(bytes));
    expect(await readAll(blobs, name, 17, 17)).toEqual(Buffer.from(bytes.subarray(17, 18)));
    expect(await readAll(blobs, name, 9000, 9999)).toEqual(Buffer.from(bytes.subarray(9000)));
  });

  it('keeps a blob of several parts', async () => {
    const { blobs } = await bucket('models/eu');
    const bytes = content(17 * megabyte + 3);
    const name = sha256(bytes);
    expect(await blobs.write(name, inChunks(bytes, megabyte - 7), 100 * megabyte)).toBe(bytes.length);
    expect(sha256(await readAll(blobs, name, 0, bytes.length - 1))).toBe(name);
    expect(await readAll(blobs, name, 8 * megabyte - 5, 8 * megabyte + 5)).toEqual(
      Buffer.from(bytes.subarray(8 * megabyte - 5, 8 * megabyte + 6)),
    );
  });

  it('takes the same blob again, from several writers at once', async () => {
    const { blobs } = await bucket();
    const bytes = content(5000);
    const writes = Array.from({ length: 8 }, () => blobs.write(sha256(bytes), inChunks(bytes), 5000));
    expect(await Promise.all(writes)).toEqual(Array.from({ length: 8 }, () => 5000));
    expect(await blobs.write(sha256(bytes), inChunks(bytes), 5000)).toBe(5000);
    expect(await blobs.usage()).toEqual({ count: 1, sizeBytes: 5000 });
  });

  it('shows nothing of what has another hash, is too long or breaks off', async () => {
    const { blobs } = await bucket();
    const bytes = content(9 * megabyte);
    const name = sha256(bytes);
    const other = sha256(content(1));
    await expect(blobs.write(other, inChunks(bytes, megabyte), bytes.length)).rejects.toMatchObject({
      code: 'ERR_INLAY_STORE_MISMATCH',
    });
    await expect(blobs.write(name, inChunks(bytes, megabyte), bytes.length - 1)).rejects.toMatchObject({
      code: 'ERR_INLAY_LENGTH',
    });
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield* inChunks(bytes, megabyte);
      throw new Error('The client is gone.');
    }
    await expect(blobs.write(name, broken(), 2 * bytes.length)).rejects.toMatchObject({
      code: 'ERR_INLAY_STORE_IO',
    });
    expect([await blobs.size(name), await blobs.size(other)]).toEqual([undefined, undefined]);
    expect(await blobs.usage()).toEqual({ count: 0, sizeBytes: 0 });
  });

  it('counts its own blobs', async () => {
    const { env } = await bucket();
    const open = (prefix: string): Promise<BlobStorage> =>
      openS3Storage({ env: { ...env, INLAY_S3_PREFIX: prefix }, platform: hastyPlatform() });
    const [mine, others] = [await open('a&b'), await open('/a/')];
    for (const size of [1, 2, 3]) await mine.write(sha256(content(size)), inChunks(content(size)), size);
    await others.write(sha256(content(7)), inChunks(content(7)), 7);
    expect(await mine.usage()).toEqual({ count: 3, sizeBytes: 6 });
    expect(await others.usage()).toEqual({ count: 1, sizeBytes: 7 });
  });

  it('keeps an empty blob', async () => {
    const { blobs } = await bucket();
    const name = sha256(new Uint8Array());
    expect(await blobs.write(name, inChunks(new Uint8Array()), 10)).toBe(0);
    expect(await blobs.size(name)).toBe(0);
  });

  it('says at the start that keys or bucket are wrong', async () => {
    const { env } = await bucket();
    const open = (change: Record<string, string>): Promise<unknown> =>
      openS3Storage({ env: { ...env, ...change }, platform: hastyPlatform() });
    await expect(open({ INLAY_S3_SECRET_ACCESS_KEY: 'wrong' })).rejects.toMatchObject({
      code: 'ERR_INLAY_STORE_READ_ONLY',
      details: { status: 403, code: 'SignatureDoesNotMatch' },
    });
    await expect(open({ INLAY_S3_BUCKET: 'nowhere' })).rejects.toMatchObject({
      code: 'ERR_INLAY_STORE_IO',
      details: { status: 404, code: 'NoSuchBucket' },
    });
    await expect(open({ INLAY_S3_BUCKET: '' })).rejects.toMatchObject({ code: 'ERR_INLAY_REFUSED' });
  });
});

describe('blobs on S3 that fails', () => {
  const bytes = content(2000);
  const name = sha256(bytes);
  /** Of three parts. */
  const large = content(12_345);
  const largeName = sha256(large);
  const keyOf = (hash: string): string => `${hash.slice(0, 2)}/${hash}`;

  async function open(waits: number[] = []): Promise<{ s3: FakeS3; blobs: BlobStorage }> {
    const s3 = await startFakeS3();
    const blobs = await openS3Storage({ env: s3.env, platform: hastyPlatform(waits), partBytes: 5000 });
    return { s3, blobs };
  }

  it.each([
    ['cuts connections', 'cut'],
    ['loses answers', 'lost'],
    ['fails', { status: 500, code: 'InternalError' }],
    ['asks to slow down', { status: 503, code: 'SlowDown', headers: { 'retry-after': '1' } }],
  ] as const)('keeps whole blobs where the server %s', async (_, failure) => {
    const waits: number[] = [];
    const { s3, blobs } = await open(waits);
    s3.fail = (_request, before) => (before % 3 < 2 ? failure : undefined);
    expect(await blobs.write(name, inChunks(bytes), 2000)).toBe(2000);
    expect(await blobs.write(largeName, inChunks(large, 777), large.length)).toBe(large.length);
    expect(s3.objects.get(keyOf(name))?.equals(bytes)).toBe(true);
    expect(s3.objects.get(keyOf(largeName))?.equals(large)).toBe(true);
    expect(await readAll(blobs, name, 0, 1999)).toEqual(Buffer.from(bytes));
    expect(Math.max(...waits)).toBeGreaterThan(0);
    if (typeof failure === 'object' && failure.status === 503) {
      expect(Math.min(...waits)).toBeGreaterThanOrEqual(1000);
    }
  });

  it('gives up after some tries, with a code and nothing behind', async () => {
    const { s3, blobs } = await open();
    s3.fail = (request) => (request === 'PUT part' ? { status: 500, code: 'InternalError' } : undefined);
    await expect(blobs.write(largeName, inChunks(large, 777), large.length)).rejects.toMatchObject({
      code: 'ERR_INLAY_STORE_IO',
      details: { status: 500 },
    });
    expect(s3.requests.filter((request) => request === 'PUT part')).toHaveLength(6);
    expect([s3.objects.size, s3.uploads.size]).toEqual([0, 0]);
  });

  it.each([
    ['full', { status: 507, code: 'XMinioStorageFull' }, 'ERR_INLAY_STORE_FULL'],
    ['over its quota', { status: 403, code: 'QuotaExceeded' }, 'ERR_INLAY_STORE_FULL'],
    ['closed', { status: 403, code: 'AccessDenied' }, 'ERR_INLAY_STORE_READ_ONLY'],
  ] as const)('says that the bucket is %s', async (_, failure, code) => {
    const { s3, blobs } = await open();
    s3.fail = (request) => (request.startsWith('PUT') ? failure : undefined);
    await expect(blobs.write(name, inChunks(bytes), 2000)).rejects.toMatchObject({ code });
  });

  it('writes without the condition where the server does not know it', async () => {
    const { s3, blobs } = await open();
    s3.fail = (request, before) =>
      request === 'PUT object' && before === 0 ? { status: 501, code: 'NotImplemented' } : undefined;
    expect(await blobs.write(name, inChunks(bytes), 2000)).toBe(2000);
    expect(s3.requests.filter((request) => request === 'PUT object')).toHaveLength(2);
  });

  it('takes 412 for a blob that another server has written meanwhile', async () => {
    const { s3, blobs } = await open();
    s3.fail = (request) => {
      if (request === 'PUT object') s3.objects.set(keyOf(name), Buffer.from(bytes));
      return undefined;
    };
    expect(await blobs.write(name, inChunks(bytes), 2000)).toBe(2000);
  });

  it('refuses an object of the name with another size', async () => {
    const { s3, blobs } = await open();
    s3.objects.set(keyOf(name), Buffer.from('half'));
    await expect(blobs.write(name, inChunks(bytes), 2000)).rejects.toMatchObject({
      code: 'ERR_INLAY_STORE_IO',
    });
  });

  it('does not believe a success that has an error in it', async () => {
    const { s3, blobs } = await open();
    s3.fail = (request) => (request === 'POST complete' ? 'ok-error' : undefined);
    await expect(blobs.write(largeName, inChunks(large, 777), large.length)).rejects.toMatchObject({
      code: 'ERR_INLAY_STORE_IO',
    });
    expect([s3.objects.size, s3.uploads.size]).toEqual([0, 0]);
  });

  it('goes on with a download where it broke', async () => {
    const { s3, blobs } = await open();
    s3.objects.set(keyOf(largeName), Buffer.from(large));
    s3.fail = (request, before) => (request === 'GET object' && before < 3 ? 'half' : undefined);
    expect(sha256(await readAll(blobs, largeName, 0, large.length - 1))).toBe(largeName);
    expect(s3.requests.filter((request) => request === 'GET object')).toHaveLength(4);
  });

  it('ends a download that breaks again and again with an error, never short', async () => {
    const { s3, blobs } = await open();
    s3.objects.set(keyOf(name), Buffer.from(bytes));
    s3.fail = (request) => (request === 'GET object' ? { status: 500, code: 'InternalError' } : undefined);
    await expect(readAll(blobs, name, 0, 1999)).rejects.toThrow();
  });

  it('stops the transfer when the reader does', async () => {
    const { s3, blobs } = await open();
    s3.objects.set(keyOf(largeName), Buffer.from(large));
    const reader = blobs.read(largeName, 0, large.length - 1).getReader();
    await reader.read();
    await reader.cancel('enough');
    expect(s3.requests.filter((request) => request === 'GET object')).toHaveLength(1);
  });

  it('counts blobs over several pages', async () => {
    const { s3, blobs } = await open();
    for (let size = 1; size <= 5; size += 1) s3.objects.set(keyOf(sha256(content(size))), Buffer.alloc(size));
    s3.objects.set('0/readme', Buffer.from('not a blob'));
    expect(await blobs.usage()).toEqual({ count: 5, sizeBytes: 15 });
  });

  it('removes uploads at the start that a process left long ago', async () => {
    const { s3 } = await open();
    s3.uploads.set('u-aa/left', new Map([[1, Buffer.from('half')]]));
    await openS3Storage({ env: s3.env, platform: hastyPlatform() });
    expect(s3.uploads.size).toBe(0);
  });
});
