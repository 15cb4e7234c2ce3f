import * as files from 'node:fs/promises';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { equalBytes } from '../../src/core/bytes.ts';
import { openDiskStorage, type DiskFiles } from '../../src/server/index.ts';
import { randomBytes, sha256, temporaryDirectory, testPlatform } from './server-fixture.ts';

const platform = testPlatform();

async function* inPieces(bytes: Uint8Array, size = 1000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function everyFile(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
}

async function readAll(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  return new Uint8Array(await new Response(stream as ReadableStream<Uint8Array<ArrayBuffer>>).arrayBuffer());
}

/** A file system whose `failing`th call fails the way a full disk does. */
function failingFiles(failing: number): { files: DiskFiles; calls: () => number } {
  let calls = 0;
  const count = (): void => {
    calls += 1;
    if (calls === failing) throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
  };
  const wrapped: DiskFiles = {
    ...files,
    mkdir: (async (...args: Parameters<typeof files.mkdir>) => {
      count();
      return files.mkdir(...args);
    }) as typeof files.mkdir,
    rename: async (from, to) => {
      count();
      await files.rename(from, to);
    },
    open: async (...args) => {
      count();
      const handle = await files.open(...args);
      return new Proxy(handle, {
        get: (target, name) => {
          if (name === 'writeFile') {
            return async (chunk: Uint8Array) => {
              // A full disk takes a part of what is written.
              await target.write(chunk.subarray(0, chunk.length >> 1));
              count();
              await target.write(chunk.subarray(chunk.length >> 1));
            };
          }
          if (name === 'sync') {
            return async () => {
              count();
              await target.sync();
            };
          }
          const value: unknown = Reflect.get(target, name, target);
          return typeof value === 'function' ? value.bind(target) : value;
        },
      });
    },
  };
  return { files: wrapped, calls: () => calls };
}

describe('openDiskStorage', () => {
  it('gives back any range of what it keeps', async () => {
    const storage = await openDiskStorage({ directory: await temporaryDirectory(), platform });
    const bytes = randomBytes(100_000);
    const name = sha256(bytes);
    expect(await storage.size(name)).toBeUndefined();
    expect(await storage.write(name, inPieces(bytes), 100_000)).toBe(100_000);
    expect(await storage.size(name)).toBe(100_000);
    await fc.assert(
      fc.asyncProperty(fc.nat(99_999), fc.nat(99_999), async (a, b) => {
        const [start, end] = a < b ? [a, b] : [b, a];
        const read = await readAll(storage.read(name, start, end));
        expect(equalBytes(read, bytes.subarray(start, end + 1))).toBe(true);
      }),
      { numRuns: 30 },
    );
  });

  it('keeps an empty blob', async () => {
    const storage = await openDiskStorage({ directory: await temporaryDirectory(), platform });
    const name = sha256(new Uint8Array());
    expect(await storage.write(name, inPieces(new Uint8Array()), 10)).toBe(0);
    expect(await storage.size(name)).toBe(0);
    expect(await storage.usage()).toEqual({ count: 1, sizeBytes: 0 });
  });

  it('refuses content with another hash and keeps nothing', async () => {
    const directory = await temporaryDirectory();
    const storage = await openDiskStorage({ directory, platform });
    const bytes = randomBytes(5000);
    const wrong = sha256(randomBytes(10));
    await expect(storage.write(wrong, inPieces(bytes), 10_000)).rejects.toMatchObject({
      code: 'ERR_INLAY_STORE_MISMATCH',
    });
    expect(await storage.size(wrong)).toBeUndefined();
    expect(await everyFile(directory)).toEqual([]);
  });

  it('stops at the first byte too many and keeps nothing', async () => {
    const directory = await temporaryDirectory();
    const storage = await openDiskStorage({ directory, platform });
    const bytes = randomBytes(5001);
    let taken = 0;
    const content = (async function* () {
      for (;;) {
        taken += 1;
        yield bytes.subarray(0, 1000);
      }
    })();
    await expect(storage.write(sha256(bytes), content, 5000)).rejects.toMatchObject({
      code: 'ERR_INLAY_LENGTH',
    });
    expect(taken).toBe(6);
    expect(await everyFile(directory)).toEqual([]);
  });

  it('keeps nothing of an upload that breaks off', async () => {
    const directory = await temporaryDirectory();
    const storage = await openDiskStorage({ directory, platform });
    const bytes = randomBytes(5000);
    const content = (async function* () {
      yield bytes.subarray(0, 4000);
      throw new Error('connection reset');
    })();
    await expect(storage.write(sha256(bytes), content, 5000)).rejects.toMatchObject({
      code: 'ERR_INLAY_STORE_IO',
    });
    expect(await everyFile(directory)).toEqual([]);
  });

  it('is whole or absent, whichever call meets a full disk, and takes the blob afterwards', async () => {
    const bytes = randomBytes(3000);
    const name = sha256(bytes);
    let failing = 2; // The first call opens the folder.
    for (; ; failing += 1) {
      const directory = await temporaryDirectory();
      const faulty = failingFiles(failing);
      const storage = await openDiskStorage({ directory, platform, files: faulty.files });
      const result = await storage.write(name, inPieces(bytes), 3000).catch((error: unknown) => error);
      if (faulty.calls() < failing) break;
      expect(result).toMatchObject({ code: 'ERR_INLAY_STORE_FULL' });
      const left = await everyFile(directory);
      // Past the rename the blob stands; only its durability is unknown, and that is what the error says.
      expect([[], [name]]).toContainEqual(left);
      if (left.length === 1) expect(await readAll(storage.read(name, 0, 2999))).toEqual(bytes);
      expect(await storage.write(name, inPieces(bytes), 3000)).toBe(3000);
      expect(await everyFile(directory)).toEqual([name]);
    }
    expect(failing).toBeGreaterThan(9);
  });

  it('removes what an earlier process left unfinished', async () => {
    const directory = await temporaryDirectory();
    await openDiskStorage({ directory, platform });
    await writeFile(join(directory, 'tmp', 'half'), 'half');
    await openDiskStorage({ directory, platform });
    expect(await everyFile(directory)).toEqual([]);
  });

  it('takes the same blob from many writers at once', async () => {
    const directory = await temporaryDirectory();
    const storage = await openDiskStorage({ directory, platform });
    const bytes = randomBytes(20_000);
    const name = sha256(bytes);
    await Promise.all(Array.from({ length: 8 }, () => storage.write(name, inPieces(bytes, 777), 20_000)));
    expect(await everyFile(directory)).toEqual([name]);
    expect(await readAll(storage.read(name, 0, 19_999))).toEqual(bytes);
  });

  it('never leaves its folder', async () => {
    const storage = await openDiskStorage({ directory: await temporaryDirectory(), platform });
    for (const name of ['', '..', '../'.repeat(20) + 'etc/passwd', 'A'.repeat(64), `${'a'.repeat(63)}/`]) {
      await expect(storage.size(name)).rejects.toThrow(RangeError);
      await expect(storage.write(name, inPieces(new Uint8Array()), 1)).rejects.toThrow(RangeError);
      expect(() => storage.read(name, 0, 0)).toThrow(RangeError);
    }
  });
});
