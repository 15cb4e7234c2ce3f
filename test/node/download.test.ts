/** Downloads in pieces from a real server that misbehaves: the right bytes, or an error that says what happened. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { StoreError } from '../../src/core/errors.ts';
import type { Blob, PartialBlob, Store } from '../../src/core/store.ts';
import { openFsStore } from '../../src/stores/fs.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { createMemoryStore } from '../../src/stores/memory.ts';
import { downloadTarget } from '../../src/update/download.ts';
import type { DownloadOptions } from '../../src/update/download-file.ts';
import { blobsIn } from '../conformance/store.ts';
import {
  describe as describeFile,
  hastyPlatform,
  randomBytes,
  startServer,
  type FaultServer,
  type HastyPlatform,
  type Turn,
} from './download-fixture.ts';

/** When the clock of a test stands still. */
const start = Date.UTC(2030, 0, 1);
const size = 65_536;
const content = randomBytes(10 * size - 1000);
const { target, chunks } = describeFile(content, size);

let store: Store;
let server: FaultServer | undefined;
let platform: HastyPlatform;
beforeEach(() => {
  store = createMemoryStore();
  platform = hastyPlatform();
});
afterEach(async () => {
  await server?.close();
  server = undefined;
});

async function serving(answer?: (turn: Turn) => void, bytes: Uint8Array = content): Promise<FaultServer> {
  await server?.close();
  server = await startServer(bytes, answer);
  return server;
}
const download = ({ url }: FaultServer, options: Partial<DownloadOptions> = {}): Promise<Blob> =>
  downloadTarget({ platform, store, url, target, chunks, ...options });

/** The file is in the store, and it is the only one. */
async function expectContent(): Promise<void> {
  expect(await blobsIn(store)).toEqual([target.sha256]);
  const bytes = await (await store.blob(target.sha256))?.bytes();
  expect(Buffer.compare(bytes ?? new Uint8Array(), content)).toBe(0);
}
async function expectFailure(outcome: Promise<unknown>, code: string): Promise<void> {
  await expect(outcome).rejects.toMatchObject({ code });
  expect(await blobsIn(store)).toEqual([]);
}

describe('a download in pieces', () => {
  it('asks once, without a range, for a file of which nothing is there', async () => {
    const loaded: number[] = [];
    const files = await serving();
    await download(files, { onLoaded: (bytes) => loaded.push(bytes) });
    await expectContent();
    expect(files.seen).toMatchObject([{ range: undefined, ifRange: undefined }]);
    expect(loaded[0]).toBe(0);
    expect(loaded.at(-1)).toBe(content.length);
    expect(loaded).toEqual([...loaded].sort((a, b) => a - b));
  });

  it('asks in ranges of at most so many bytes where a body comes only as a whole', async () => {
    const files = await serving();
    await download(files, { rangeBytes: 3 * size });
    await expectContent();
    expect(files.seen.map(({ range }) => range)).toEqual([
      `bytes=0-${3 * size - 1}`,
      `bytes=${3 * size}-${6 * size - 1}`,
      `bytes=${6 * size}-${9 * size - 1}`,
      `bytes=${9 * size}-${content.length - 1}`,
    ]);
  });

  it.each([70_000, 40_000, 3 * size + 1])('finishes on a line that drops every %i bytes', async (only) => {
    const files = await serving(({ serve }) => serve({ only, ends: 'reset' }));
    await download(files);
    await expectContent();
    expect(files.seen.length).toBeLessThanOrEqual(Math.ceil(content.length / only) + 1);
    expect(files.seen.slice(1).every(({ ifRange }) => ifRange === '"one"')).toBe(true);
  });

  it('goes on where a server fell silent', async () => {
    const files = await serving(({ number, serve }) =>
      serve(number === 0 ? { only: 5 * size, ends: 'stall' } : {}),
    );
    const onLoaded = (loaded: number): void => {
      if (loaded === 5 * size) setImmediate(platform.expire);
    };
    await download(files, { onLoaded });
    await expectContent();
    expect(files.seen).toHaveLength(2);
    expect(files.seen[1]?.range).toBe(`bytes=${5 * size}-${content.length - 1}`);
  });

  it('gives up on a server that stays silent, and keeps what it has', async () => {
    const files = await serving(({ number, serve, response }) => {
      if (number === 0) serve({ only: 5 * size, ends: 'stall' });
      else {
        response.flushHeaders();
        setImmediate(platform.expire);
      }
    });
    const onLoaded = (loaded: number): void => {
      if (loaded === 5 * size && files.seen.length === 1) setImmediate(platform.expire);
    };
    await expectFailure(download(files, { onLoaded }), 'ERR_INLAY_NETWORK');
    // The one that brought something is the first failure.
    expect(files.seen).toHaveLength(5);
    const better = await serving();
    await download(better);
    await expectContent();
    expect(better.sent()).toBe(content.length - 5 * size);
  });

  it('goes on where a body ended early without an error', async () => {
    const files = await serving(({ number, serve, response }) => {
      if (number > 0) serve();
      else {
        response.write(content.subarray(0, 4 * size + 5));
        response.end();
      }
    });
    await download(files);
    await expectContent();
    expect(files.seen[1]?.range).toBe(`bytes=${4 * size + 5}-${content.length - 1}`);
  });

  it('refuses a file that always ends early', async () => {
    const files = await serving(({ response }) => {
      response.write(content.subarray(0, 100));
      response.end();
    });
    await expectFailure(download(files), 'ERR_INLAY_LENGTH');
    expect(files.seen.length).toBeGreaterThan(1);
  });

  it.each([-1, 1, 50_000])('refuses a file whose stated length is wrong by %i', async (difference) => {
    const other = randomBytes(content.length + difference);
    other.set(content.subarray(0, other.length));
    const files = await serving(undefined, other);
    await expectFailure(download(files), 'ERR_INLAY_LENGTH');
    expect(files.seen).toHaveLength(1);
  });

  it('reads nothing beyond the signed length', async () => {
    const files = await serving(({ response }) => {
      response.write(content);
      response.write(new Uint8Array(100));
    });
    await download(files);
    await expectContent();
  });

  it('skips what is there when a server ignores ranges', async () => {
    let bytes = 0;
    const files = await serving(({ number, seen, serve }) => {
      Object.assign(seen, { range: undefined });
      serve(number === 0 ? { only: 4 * size, ends: 'reset' } : {});
    });
    const loaded: number[] = [];
    await download(files, {
      onBytes: (count) => {
        bytes += count;
      },
      onLoaded: (count) => loaded.push(count),
    });
    await expectContent();
    expect(files.seen).toHaveLength(2);
    expect(bytes).toBe(content.length + 4 * size);
    expect(Math.max(...loaded)).toBe(content.length);
  });

  it('takes the same file under another tag', async () => {
    const files = await serving(({ number, serve }) =>
      serve(number === 0 ? { only: 4 * size, ends: 'reset' } : { etag: '"two"' }),
    );
    await download(files);
    await expectContent();
    expect(files.seen).toMatchObject([{}, { ifRange: '"one"' }]);
  });

  it('refuses another file of the same length that takes its place halfway', async () => {
    const other = randomBytes(content.length, 7);
    const files = await serving(({ number, serve }) =>
      serve(number === 0 ? { only: 4 * size, ends: 'reset' } : { etag: '"two"', bytes: other }),
    );
    await expectFailure(download(files), 'ERR_INLAY_HASH');
    expect(files.seen).toHaveLength(3);
  });

  it.each([
    ['begins elsewhere', `bytes 0-99/${content.length}`],
    ['is of a file of another length', `bytes ${4 * size}-${content.length - 1}/${content.length + 1}`],
    ['is none', 'pages 1-2/3'],
    ['is missing', undefined],
  ])('asks for the whole file when a range %s', async (_, range) => {
    const files = await serving(({ number, seen, serve, response }) => {
      if (number !== 1) {
        serve(number === 0 ? { only: 4 * size, ends: 'reset' } : {});
        return;
      }
      expect(seen.range).toBeDefined();
      response.writeHead(206, range === undefined ? {} : { 'content-range': range });
      response.end(content.subarray(4 * size));
    });
    await download(files);
    await expectContent();
    expect(files.seen[2]).toMatchObject({ range: undefined, ifRange: undefined });
  });

  it('asks for the whole file once when a range is out of range, and then gives up', async () => {
    const files = await serving(({ number, serve, response }) => {
      if (number === 0) serve({ only: 4 * size, ends: 'reset' });
      else response.writeHead(416).end();
    });
    await expectFailure(download(files), 'ERR_INLAY_HTTP_STATUS');
    expect(files.seen.map(({ range }) => range !== undefined)).toEqual([false, true, false]);
  });

  it('fails when even the whole file comes as another range', async () => {
    const files = await serving(({ response }) => {
      response.writeHead(206, { 'content-range': 'bytes 5-9/10' }).end('wrong');
    });
    await expectFailure(download(files), 'ERR_INLAY_HTTP_CONTENT');
  });

  it('keeps what it has when a login page answers in between', async () => {
    const files = await serving(({ number, serve, response }) => {
      if (number === 1) response.setHeader('content-type', 'text/html').end('<html>Welcome to our café');
      else serve(number === 0 ? { only: 4 * size, ends: 'reset' } : {});
    });
    await expectFailure(download(files), 'ERR_INLAY_HTTP_CONTENT');
    await download(files);
    await expectContent();
    expect(files.seen[2]?.range).toBe(`bytes=${4 * size}-${content.length - 1}`);
  });

  it('gives up on redirects in circles', async () => {
    const files = await serving(({ request, response }) => {
      response.writeHead(302, { location: request.url }).end();
    });
    await expectFailure(download(files), 'ERR_INLAY_NETWORK');
  });

  it.each([
    [429, '7'],
    [503, '7'],
    [503, new Date(start + 9000).toUTCString()],
  ])('waits as long as a server asks with status %i and Retry-After %s', async (status, retryAfter) => {
    const files = await serving(({ number, serve, response }) => {
      if (number === 1) response.writeHead(status, { 'retry-after': retryAfter }).end();
      else serve(number === 0 ? { only: 4 * size, ends: 'reset' } : {});
    });
    await download(files, { platform: { ...platform, now: () => start } });
    await expectContent();
    expect(platform.waits).toHaveLength(2);
    expect(platform.waits[1]).toBeGreaterThanOrEqual(7000);
    expect(platform.waits[1]).toBeLessThanOrEqual(60_000);
  });

  it('does not try a server again that asks for an hour', async () => {
    const files = await serving(({ response }) => response.writeHead(503, { 'retry-after': '3600' }).end());
    await expectFailure(download(files), 'ERR_INLAY_HTTP_STATUS');
    expect(files.seen).toHaveLength(1);
  });

  it('goes on after a file was gone for a while', async () => {
    const files = await serving(({ number, serve, response }) => {
      if (number === 1) response.writeHead(404).end();
      else serve(number === 0 ? { only: 4 * size + 99, ends: 'reset' } : {});
    });
    await expectFailure(download(files), 'ERR_INLAY_HTTP_STATUS');
    await download(files);
    await expectContent();
    expect(files.seen[2]?.range).toBe(`bytes=${4 * size}-${content.length - 1}`);
  });

  const spoilt = content.slice();
  spoilt[3 * size + 7] = (spoilt[3 * size + 7] ?? 0) ^ 1;

  it('asks again for a piece that is wrong', async () => {
    const files = await serving(({ number, serve }) => serve(number === 0 ? { bytes: spoilt } : {}));
    await download(files);
    await expectContent();
    expect(files.seen[1]?.range).toBe(`bytes=${3 * size}-${content.length - 1}`);
    expect(platform.waits).toEqual([]);
  });

  it('arbitrary installation: gives up on a piece that is wrong twice, and forgets the rest', async () => {
    const files = await serving(({ serve }) => serve({ bytes: spoilt }));
    await expectFailure(download(files), 'ERR_INLAY_HASH');
    expect(files.seen).toHaveLength(2);
    expect((await store.openPartial(target.sha256, target.length)).note).toBeUndefined();
  });

  it('arbitrary installation: reads little of a file that is another one', async () => {
    let bytes = 0;
    const files = await serving(({ serve }) => serve({ bytes: randomBytes(content.length, 9) }));
    const onBytes = (count: number): void => {
      bytes += count;
    };
    await expectFailure(download(files, { onBytes }), 'ERR_INLAY_HASH');
    // What was on its way while the first piece was hashed, twice.
    expect(bytes).toBeLessThanOrEqual(8 * size);
  });

  it('ends at a signal, keeps what it has, and fetches none of it twice', async () => {
    const controller = new AbortController();
    const files = await serving(({ number, serve }) =>
      serve(number === 0 ? { only: 6 * size, ends: 'stall' } : {}),
    );
    const reason = new Error('enough');
    const onLoaded = (loaded: number): void => {
      if (loaded === 6 * size) controller.abort(reason);
    };
    await expect(download(files, { signal: controller.signal, onLoaded })).rejects.toBe(reason);
    expect(await blobsIn(store)).toEqual([]);
    await download(files);
    await expectContent();
    expect(files.sent()).toBe(content.length);
  });

  it('lets two downloads of one file in one store end well', async () => {
    const files = await serving();
    const patient = { platform: nodePlatform(), attempts: { attempts: 5, baseMs: 20, capMs: 100 } };
    const [one, two] = await Promise.all([download(files, patient), download(files, patient)]);
    expect([one.sha256, two.sha256]).toEqual([target.sha256, target.sha256]);
    await expectContent();
  });

  it('verifies without hashes of pieces, too, and goes on after drops', async () => {
    const files = await serving(({ serve }) => serve({ only: 3 * size, ends: 'reset' }));
    await download(files, { chunks: { size } });
    await expectContent();
    expect(files.sent()).toBe(content.length);
    await store.deleteBlob(target.sha256);
    await expectFailure(
      download(await serving(({ serve }) => serve({ bytes: spoilt })), { chunks: { size } }),
      'ERR_INLAY_HASH',
    );
  });
});

describe('a download in pieces to a store that fails', () => {
  /** Fails at a step of the part, counted over all of them. */
  const failing = (
    at: number,
    code: 'ERR_INLAY_STORE_FULL' | 'ERR_INLAY_STORE_IO',
    times = 1,
  ): Store & { readonly hasFailed: () => boolean } => {
    let steps = 0;
    const step = (): void => {
      steps += 1;
      if (steps > at && steps <= at + times) throw new StoreError(code, 'The store fails.');
    };
    const inner = store;
    return {
      ...inner,
      hasFailed: () => steps > at,
      reserve: async (sizeBytes) => {
        step();
        await inner.reserve(sizeBytes);
      },
      openPartial: async (sha256, sizeBytes): Promise<PartialBlob> => {
        // Once it has failed, what is there can still be thrown away.
        if (steps <= at) step();
        const part = await inner.openPartial(sha256, sizeBytes);
        const guarded =
          <Args extends unknown[], Result>(task: (...args: Args) => Promise<Result>) =>
          async (...args: Args): Promise<Result> => {
            step();
            return task(...args);
          };
        return {
          ...part,
          write: guarded(part.write),
          save: guarded(part.save),
          finish: guarded(part.finish),
        };
      },
    };
  };

  /** Seconds pass at every look at the clock, so each piece is noted. */
  const slowly = (): Partial<DownloadOptions> => {
    let ms = 0;
    return { platform: { ...platform, monotonicMs: () => (ms += 2100) } };
  };

  it('makes room and goes on, or fails and leaves nothing, when the disk is full at any step', async () => {
    const files = await serving();
    for (let at = 0; ; at += 1) {
      const fullOnce = failing(at, 'ERR_INLAY_STORE_FULL');
      await download(files, { ...slowly(), store: fullOnce });
      await expectContent();
      await store.deleteBlob(target.sha256);
      if (!fullOnce.hasFailed()) {
        expect(at).toBeGreaterThan(15);
        break;
      }
      const full = failing(at, 'ERR_INLAY_STORE_FULL', 1000);
      await expectFailure(download(files, { ...slowly(), store: full }), 'ERR_INLAY_STORE_FULL');
      expect((await store.openPartial(target.sha256, target.length)).note).toBeUndefined();
    }
  });

  it('fails at once when the disk breaks at any step, and can go on later', async () => {
    const files = await serving();
    for (let at = 0; ; at += 1) {
      const broken = failing(at, 'ERR_INLAY_STORE_IO', 1000);
      const outcome = await download(files, { ...slowly(), store: broken }).catch((error: unknown) => error);
      if (!broken.hasFailed()) break;
      expect(outcome).toMatchObject({ code: 'ERR_INLAY_STORE_IO' });
      expect(await blobsIn(store)).toEqual([]);
      await download(files);
      await expectContent();
      await store.deleteBlob(target.sha256);
    }
  });
});

describe('a download in pieces to a folder', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'inlay-download-'));
    store = openFsStore({ directory });
  });
  afterEach(async () => {
    await store.close();
    await rm(directory, { recursive: true, force: true });
  });

  it('lets two processes download one file into one folder', async () => {
    const files = await serving();
    const patient = { platform: nodePlatform(), attempts: { attempts: 5, baseMs: 20, capMs: 100 } };
    const other = openFsStore({ directory });
    await Promise.all([download(files, patient), download(files, { ...patient, store: other })]);
    await expectContent();
    await other.close();
  });

  const big = randomBytes(12 * 2 ** 20 + 5, 3);
  const file = describeFile(big, 2 ** 20);

  it('fetches nothing twice that was noted when the process was killed', async () => {
    const files = await serving(
      ({ number, serve }) => serve(number === 0 ? { only: 11 * 2 ** 20, ends: 'stall' } : {}),
      big,
    );
    let loaded = 0;
    const reached = new Promise<void>((resolve) => {
      const onLoaded = (bytes: number): void => {
        loaded = bytes;
        if (bytes === 11 * 2 ** 20) resolve();
      };
      // It never hears of its end.
      void download(files, { ...file, onLoaded }).catch(() => {});
    });
    await reached;
    expect(loaded).toBe(11 * 2 ** 20);
    const next = openFsStore({ directory });
    const resumed: number[] = [];
    await download(files, { ...file, store: next, onLoaded: (bytes) => resumed.push(bytes) });
    const noted = resumed[0] ?? 0;
    expect(noted).toBeGreaterThanOrEqual(8 * 2 ** 20);
    expect(files.seen[1]?.range).toBe(`bytes=${noted}-${big.length - 1}`);
    expect(files.seen).toHaveLength(2);
    const bytes = await (await next.blob(file.target.sha256))?.bytes();
    expect(Buffer.compare(bytes ?? new Uint8Array(), big)).toBe(0);
    await next.close();
  });

  it('fetches everything again when what was there is damaged, and only then', async () => {
    const controller = new AbortController();
    const files = await serving(({ number, serve }) =>
      serve(number === 0 ? { only: 6 * size, ends: 'stall' } : {}),
    );
    const onLoaded = (loaded: number): void => {
      if (loaded === 6 * size) controller.abort();
    };
    await expect(download(files, { signal: controller.signal, onLoaded })).rejects.toThrow();
    const part = await store.openPartial(target.sha256, target.length);
    const { note } = part;
    expect(note).toBeDefined();
    await part.write(2 * size, new Uint8Array(10));
    await part.save(note ?? new Uint8Array());
    await part.close();
    await download(files);
    await expectContent();
    expect(files.seen.map(({ range }) => range)).toEqual([
      undefined,
      `bytes=${6 * size}-${content.length - 1}`,
      undefined,
    ]);
  });
});
