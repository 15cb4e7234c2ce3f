import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { concatBytes } from '../../../src/core/bytes.ts';
import { StoreError, UpdateError } from '../../../src/core/errors.ts';
import type { Store } from '../../../src/core/store.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import type { Way } from '../../../src/update/manifest.ts';
import type { Patcher } from '../../../src/update/patcher.ts';
import { createTransfers, type TransferParts } from '../../../src/update/transfer.ts';
import type { Obtained } from '../../../src/update/transfer-ways.ts';
import { blobsIn } from '../../conformance/store.ts';
import { testPlatform } from '../platform.ts';
import { chunksOf, randomBytes, refOf, serveFiles, type FileServer } from './download-files.ts';

/**
 * A patch is JSON: a list of `[offset, length]` in the base, of bytes, and of numbers of zeros.
 * @throws {@link UpdateError} for anything else.
 */
const trivial: Patcher = {
  codec: 'trivial',
  apply: async function* (base, patch) {
    let steps: ([number, number] | { bytes: number[] } | number)[];
    try {
      steps = JSON.parse(new TextDecoder().decode(await patch.bytes())) as typeof steps;
    } catch (cause) {
      throw new UpdateError('ERR_INLAY_PATCH', 'The patch is malformed.', { cause });
    }
    for (const step of steps) {
      if (Array.isArray(step)) yield await base.read(...step);
      else yield typeof step === 'number' ? new Uint8Array(step) : Uint8Array.from(step.bytes);
    }
  },
};
const patchOf = (...steps: unknown[]): Uint8Array => new TextEncoder().encode(JSON.stringify(steps));

const base = randomBytes(20_000, 1);
// Half of it compresses.
const next = concatBytes([base.subarray(0, 9000), Uint8Array.of(1, 2, 3), new Uint8Array(10_000)]);
const patch = patchOf([0, 9000], { bytes: [1, 2, 3] }, 10_000);
const file = refOf(next);
const from = refOf(base).sha256;

async function gzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream('gzip'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
const zipped = await gzip(next);

const patchWay = (bytes: Uint8Array = patch): Way => ({
  ...refOf(bytes, 'x.patch'),
  kind: 'patch',
  codec: 'trivial',
  from,
});
const zipWay = (bytes: Uint8Array = zipped): Way => ({
  ...refOf(bytes, 'x.gz'),
  kind: 'compressed',
  codec: 'gzip',
});

let store: Store;
let files: FileServer;
beforeEach(async () => {
  store = createMemoryStore();
  await store.putBlob(from, base);
  files = serveFiles(next, patch, zipped);
});
afterEach(() => {
  vi.unstubAllGlobals();
});

const obtain = (
  ways: readonly Way[],
  parts: Partial<TransferParts> = {},
  isUpdate = true,
): Promise<Obtained> =>
  createTransfers({
    platform: testPlatform({ fetch: files.fetch }),
    store,
    url: 'https://sync.test',
    patchers: [trivial],
    ...parts,
  }).obtain({ ...file, chunks: chunksOf(next, 4096), ways, isUpdate });

/** The file came in this way, after these failures, and nothing else stayed. */
async function expectFile(
  { blob, way, fallbacks }: Obtained,
  kind: string,
  ...reasons: string[]
): Promise<void> {
  expect([way, ...fallbacks.map(({ reason }) => reason)]).toEqual([kind, ...reasons]);
  expect(blob.sha256).toBe(file.sha256);
  expect(await (await store.blob(file.sha256))?.bytes()).toEqual(next);
  const others = (await blobsIn(store)).filter((name) => name !== file.sha256 && name !== from);
  expect(others).toEqual([]);
}

describe('the ways to a file', () => {
  it.each([
    ['patch', () => patchWay()],
    ['compressed', () => zipWay()],
  ])('lead over what is %s', async (kind, way) => {
    await expectFile(await obtain([way()]), kind);
    expect(files.requests.map(({ sha256 }) => sha256)).toEqual([way().sha256]);
  });

  it('are tried from the cheapest to the whole file', async () => {
    expect(patch.length).toBeLessThan(zipped.length);
    await expectFile(await obtain([zipWay(), patchWay()]), 'patch');
    await store.deleteBlob(file.sha256);
    files.remove(patchWay().sha256);
    await expectFile(await obtain([zipWay(), patchWay()]), 'compressed', 'http-status');
    await store.deleteBlob(file.sha256);
    files.remove(zipWay().sha256);
    await expectFile(await obtain([zipWay(), patchWay()]), 'full', 'http-status', 'http-status');
  });

  it('are left out when they cost more than the file', async () => {
    const dear = randomBytes(file.length, 4);
    await expectFile(await obtain([zipWay(dear), { ...file, kind: 'full' }]), 'full');
    expect(files.requests).toHaveLength(1);
  });

  it('tell of every failure, in order', async () => {
    files.remove(zipWay().sha256);
    const told: string[] = [];
    const obtained = await obtain([zipWay(), patchWay()], {
      patchers: [],
      onFallback: (target, { way, reason, error }) => {
        told.push(`${target.sha256 === file.sha256} ${way.kind} ${reason} ${error === undefined}`);
      },
    });
    await expectFile(obtained, 'full', 'codec-unknown', 'http-status');
    expect(told).toEqual(['true patch codec-unknown true', 'true compressed http-status false']);
  });

  it('leave no part behind of a way that was given up', async () => {
    const parts = new Set<string>();
    const watched: Store = {
      ...store,
      openPartial: async (sha256, sizeBytes) => {
        const part = await store.openPartial(sha256, sizeBytes);
        parts.add(sha256);
        const ends =
          <Args extends unknown[], Result>(task: (...args: Args) => Promise<Result>) =>
          async (...args: Args): Promise<Result> => {
            const result = await task(...args);
            parts.delete(sha256);
            return result;
          };
        return { ...part, finish: ends(part.finish), discard: ends(part.discard) };
      },
    };
    files.remove(zipWay().sha256);
    await expectFile(await obtain([zipWay()], { store: watched }), 'full', 'http-status');
    expect([...parts]).toEqual([]);
  });

  it('do not begin at a base that is not there, or was damaged', async () => {
    await store.deleteBlob(from);
    await expectFile(await obtain([patchWay()]), 'full', 'patch-base-missing');
    expect(files.requests).toHaveLength(1);
    await store.deleteBlob(file.sha256);
    const damaged: Store = {
      ...store,
      blob: async (name) =>
        name === from
          ? {
              sha256: from,
              sizeBytes: base.length,
              bytes: async () => new Uint8Array(base.length),
              read: async (_, length) => new Uint8Array(length),
            }
          : store.blob(name),
    };
    await expectFile(await obtain([patchWay()], { store: damaged }), 'full', 'patch-base-missing');
    await store.deleteBlob(file.sha256);
    // Nobody expects a first install to have a base.
    await expectFile(await obtain([patchWay()], {}, false), 'full');
  });

  it.each([
    ['is malformed', 'patch-failed', patchOf().slice(1)],
    ['reads beyond its base', 'patch-failed', patchOf([19_999, 2])],
    ['makes something else', 'patch-output-hash', patchOf([0, 19_003])],
    ['makes too little', 'patch-output-hash', patchOf([0, 9000])],
    ['makes too much', 'patch-output-length', patchOf([0, 9000], { bytes: [1, 2, 3] }, 10_000, [0, 1])],
  ])('fall back when a patch %s', async (_, reason, bytes) => {
    files.add(bytes);
    await expectFile(await obtain([patchWay(bytes)]), 'full', reason);
  });

  it('stop a patch that makes too much at once, and let it end', async () => {
    let pieces = 0;
    let hasEnded = false;
    const endless: Patcher = {
      codec: 'trivial',
      apply: async function* () {
        try {
          for (;;) {
            pieces += 1;
            yield new Uint8Array(10_000);
          }
        } finally {
          hasEnded = true;
        }
      },
    };
    await expectFile(await obtain([patchWay()], { patchers: [endless] }), 'full', 'patch-output-length');
    expect([pieces, hasEnded]).toEqual([2, true]);
  });

  it('fall back when what was compressed is not what was signed', async () => {
    const bomb = await gzip(new Uint8Array(10_000_000));
    const cases = [
      [randomBytes(500), 'decode-failed'],
      [zipped.slice(0, -20), 'decode-failed'],
      [await gzip(new Uint8Array(100)), 'decode-output-hash'],
      [bomb, 'decode-output-length'],
    ] as const;
    for (const [bytes, reason] of cases) {
      files.add(bytes);
      await expectFile(await obtain([zipWay(bytes)]), 'full', reason);
      await store.deleteBlob(file.sha256);
    }
  });

  it('lead over a patch that starts from nothing, and over gzip where that fails', async () => {
    const alone: Patcher = {
      codec: 'idp',
      apply: async function* (nothing, made) {
        yield await nothing.bytes();
        if ((await made.bytes())[0] !== 1)
          throw new UpdateError('ERR_INLAY_PATCH', 'The patch is malformed.');
        yield next;
      },
    };
    await store.deleteBlob(from);
    const cases: readonly (readonly [number, Patcher, ...string[]])[] = [
      [1, alone],
      [2, alone, 'decode-failed'],
      [1, trivial, 'codec-unknown'],
    ];
    for (const [first, patcher, ...reasons] of cases) {
      const bytes = Uint8Array.of(first);
      files.add(bytes);
      const way: Way = { ...refOf(bytes, 'x.idp'), kind: 'compressed', codec: 'idp' };
      await expectFile(await obtain([zipWay(), way], { patchers: [patcher] }), 'compressed', ...reasons);
      await store.deleteBlob(file.sha256);
    }
    const asked = files.requests.map(({ sha256 }) => (sha256 === zipWay().sha256 ? 'gzip' : 'idp'));
    expect(asked).toEqual(['idp', 'idp', 'gzip', 'gzip']);
  });

  it('do not lead over gzip where the runtime knows none', async () => {
    vi.stubGlobal('DecompressionStream', undefined);
    await expectFile(await obtain([zipWay()]), 'full', 'codec-unknown');
  });

  it('fall back when the server has another patch', async () => {
    const other = randomBytes(patch.length, 5);
    const platform = testPlatform({
      fetch: async (url, init) => (url.endsWith('.patch') ? new Response(other) : files.fetch(url, init)),
    });
    await expectFile(await obtain([patchWay()], { platform }), 'full', 'hash');
  });

  it('fall back when there is room for the file, but not for the patch beside it', async () => {
    const tight: Store = {
      ...store,
      reserve: async (sizeBytes) => {
        if (sizeBytes > file.length) throw new StoreError('ERR_INLAY_STORE_FULL', 'Too much.');
      },
    };
    await expectFile(await obtain([patchWay()], { store: tight }), 'full', 'no-room');
  });

  it('do not go on when it is the caller who ended it', async () => {
    files.stallAfter(10);
    const controller = new AbortController();
    const transfers = createTransfers({
      platform: testPlatform({ fetch: files.fetch }),
      store,
      url: 'https://sync.test',
      patchers: [trivial],
      onBytes: () => controller.abort(new Error('enough')),
    });
    const { signal } = controller;
    await expect(transfers.obtain({ ...file, ways: [patchWay()], signal })).rejects.toThrow('enough');
    await transfers.settled();
    expect(files.requests).toHaveLength(1);
    expect(await blobsIn(store)).toEqual([from]);
  });
});
