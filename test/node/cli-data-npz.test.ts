import { spawnSync } from 'node:child_process';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { unzipSync, zipSync } from 'fflate';
import { describe, expect, it } from 'vitest';
import { readZip } from '../../src/cli/data/zip.ts';
import { createZipWriter } from '../../src/cli/data/zip-writer.ts';
import { isInlayError } from '../../src/core/errors.ts';
import {
  bytesOf,
  codeOf,
  collect,
  dataFile,
  handleOf,
  npy,
  tensorOf,
  tensorsOf,
} from './cli-data-fixture.ts';
import { temporaryDirectory } from './server-fixture.ts';

const two = npy({ descr: '<f4', shape: [2, 2], data: bytesOf(Float32Array.of(1, 2, 3, 4)) });
const ids = npy({ descr: '<i8', shape: [2], data: bytesOf(BigInt64Array.of(7n, 8n)) });
const three = npy({ descr: '|u1', shape: [3], data: Uint8Array.of(1, 2, 3) });

async function* inPieces(bytes: Uint8Array, pieceBytes: number): AsyncIterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

async function zipOf(
  files: Readonly<Record<string, Uint8Array>>,
): Promise<{ path: string; bytes: Uint8Array }> {
  const path = join(await temporaryDirectory(), 'out.npz');
  const file = await open(path, 'w');
  const writer = createZipWriter(file);
  for (const [name, bytes] of Object.entries(files)) await writer.add(name, bytes.length, inPieces(bytes, 5));
  await writer.finish();
  await file.close();
  return { path, bytes: new Uint8Array(await readFile(path)) };
}

async function membersOf(bytes: Uint8Array): Promise<Record<string, Uint8Array>> {
  const members: Record<string, Uint8Array> = {};
  for (const { path, bytes: source, verify } of await readZip(
    await handleOf(bytes),
    'test.npz',
    bytes.length,
  )) {
    await verify();
    members[path] = new Uint8Array(Buffer.concat(await collect(source.stream(0))));
  }
  return members;
}

describe('an .npz file', () => {
  it.each([
    ['stored, as np.savez does', 0],
    ['deflated, as np.savez_compressed does', 6],
  ] as const)('has a column for each array, %s', async (_, level) => {
    const file = await dataFile(
      'a.npz',
      zipSync({ 'x.npy': two, 'ids.npy': ids, 'readme.txt': ids }, { level }),
    );
    expect(file.columns).toEqual(['x', 'ids']);
    const rows = await collect(file.rows(['ids', 'x'], 0));
    expect(rows.map(({ index, place }) => ({ index, place }))).toEqual([
      { index: 0, place: 'row 0' },
      { index: 1, place: 'row 1' },
    ]);
    expect(rows.map((row) => [tensorOf(row, 'ids').data, tensorOf(row, 'x').data])).toEqual([
      [BigInt64Array.of(7n), Float32Array.of(1, 2)],
      [BigInt64Array.of(8n), Float32Array.of(3, 4)],
    ]);
    expect(file.extent.total).toBe(2);
    expect((await tensorsOf(file, 'x', 1)).map((row) => row.toArray())).toEqual([[3, 4]]);
  });

  it('leaves arrays alone that are not asked for', async () => {
    const file = await dataFile('a.npz', zipSync({ 'x.npy': two, 'other.npy': three }));
    expect(await tensorsOf(file, 'x')).toHaveLength(2);
    expect(await codeOf(() => collect(file.rows(['x', 'other'], 0)))).toBe('ERR_INLAY_FEED_SHAPE');
  });

  it('is refused without arrays, and if one of them is no array', async () => {
    expect(await codeOf(() => dataFile('a.npz', zipSync({ 'x.txt': two })))).toBe('ERR_INLAY_FEED_VALUE');
    expect(await codeOf(() => dataFile('a.npz', zipSync({ 'x.npy': new Uint8Array(99) })))).toBe(
      'ERR_INLAY_FEED_VALUE',
    );
    expect(await codeOf(() => dataFile('a.npz', two))).toBe('ERR_INLAY_FEED_VALUE');
  });

  it('is refused before the first row if a byte of an array is damaged', async () => {
    const bytes = zipSync({ 'x.npy': two }, { level: 0 });
    const at = Buffer.from(bytes).indexOf(bytesOf(Float32Array.of(3)));
    bytes[at] = 1;
    const file = await dataFile('a.npz', bytes);
    await expect(collect(file.rows(['x'], 0))).rejects.toThrow(
      'a.npz (x.npy) cannot be read: its checksum is wrong.',
    );
  });
});

describe('readZip', () => {
  it('gives what was packed or a typed error, whichever byte is damaged', async () => {
    const files = { 'x.npy': two, 'y.npy': three };
    for (const level of [0, 6] as const) {
      const bytes = zipSync(files, { level });
      await fc.assert(
        fc.asyncProperty(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
          const damaged = Uint8Array.from(bytes);
          damaged[at] = (damaged[at] as number) ^ flip;
          try {
            for (const content of Object.values(await membersOf(damaged))) {
              expect([two, three].map((packed) => Buffer.compare(packed, content))).toContain(0);
            }
          } catch (error) {
            if (!isInlayError(error)) throw error;
          }
        }),
        { numRuns: 400 },
      );
    }
  });

  it('refuses an archive that is cut short anywhere', async () => {
    const bytes = zipSync({ 'x.npy': three });
    for (let length = 0; length < bytes.length; length += 1) {
      expect(await codeOf(() => membersOf(bytes.subarray(0, length)))).toBe('ERR_INLAY_FEED_VALUE');
    }
  });

  it('stops inflating at the size that the directory promises', async () => {
    const bytes = Buffer.from(zipSync({ 'x.npy': new Uint8Array(1 << 24) }));
    const directory = bytes.lastIndexOf(Buffer.from('504b0102', 'hex'));
    bytes.writeUInt32LE(1000, directory + 24);
    await expect(membersOf(bytes)).rejects.toThrow('it inflates to more than the 1000 bytes it promises');
  });

  it('finds a directory before a comment', async () => {
    const bytes = Buffer.from(zipSync({ 'x.npy': three }));
    bytes.writeUInt16LE(5, bytes.length - 2);
    expect(await membersOf(Buffer.concat([bytes, Buffer.from('hello')]))).toEqual({
      'x.npy': new Uint8Array(three),
    });
  });
});

describe('createZipWriter', () => {
  it('writes what other readers and its own read', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(fc.stringMatching(/^[a-z\u00e9/]{1,9}$/), fc.uint8Array({ maxLength: 300 }), {
          maxKeys: 5,
          noNullPrototype: true,
        }),
        async (files) => {
          const { bytes } = await zipOf(files);
          const plain = Object.fromEntries(
            Object.entries(files).map(([name, content]) => [name, new Uint8Array(content)]),
          );
          expect(unzipSync(bytes)).toEqual(plain);
          expect(await membersOf(bytes)).toEqual(plain);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('writes the same bytes for the same files', async () => {
    const files = { 'a.npy': two, 'b.npy': ids };
    expect((await zipOf(files)).bytes).toEqual((await zipOf(files)).bytes);
  });

  it('is understood by the tools of the system', async ({ skip }) => {
    const { path } = await zipOf({ 'x.npy': two, 'ids.npy': ids });
    const python = spawnSync('python3', [
      '-c',
      'import sys, zipfile; print(zipfile.ZipFile(sys.argv[1]).testzip())',
      path,
    ]);
    const unzip = spawnSync('unzip', ['-t', path]);
    if (python.error && unzip.error) skip('neither python3 nor unzip is installed');
    if (!python.error) expect(python.stdout.toString().trim()).toBe('None');
    if (!unzip.error) expect(unzip.status).toBe(0);
  });

  it('refuses a file of another size than promised', async () => {
    const file = await open(join(await temporaryDirectory(), 'out.npz'), 'w');
    await expect(createZipWriter(file).add('x', 9, inPieces(two, 5))).rejects.toThrow(RangeError);
    await file.close();
  });
});
