import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { StoreError } from '../../src/core/errors.ts';
import { signMetadata } from '../../src/publish/sign.ts';
import {
  createRepository,
  createSyncApp,
  openDiskStorage,
  openSqlite,
  type Repository,
  type ServerStatus,
} from '../../src/server/index.ts';
import { createTokens } from '../../src/server/tokens.ts';
import {
  createSigner,
  install,
  problemOf,
  publish,
  release,
  sha256,
  startTestServer,
  temporaryDirectory,
  testPlatform,
  tinyModel,
  verify,
  type ReachableServer,
  type TestPlatform,
} from './server-fixture.ts';

interface FaultyServer extends ReachableServer {
  readonly platform: TestPlatform;
  readonly errors: unknown[];
  /** Makes every later write to the database fail so; `undefined` mends it. */
  breakWith(error: Error | undefined): void;
}

/** The app alone, without a socket, over a real database that can be made to fail. */
async function createFaultyServer(): Promise<FaultyServer> {
  const directory = await temporaryDirectory();
  const platform = testPlatform();
  const db = await openSqlite(join(directory, 'inlay.db'));
  const real = createRepository(db, () => platform.now());
  onTestFinished(() => real.close());
  let fault: Error | undefined;
  const repository: Repository = {
    ...real,
    add: (files, event) => (fault ? Promise.reject(fault) : real.add(files, event)),
  };
  const { token } = await createTokens({ db, platform }).create({ name: 'test', role: 'admin' }, 'server');
  const signer = await createSigner(platform);
  const errors: unknown[] = [];
  const app = createSyncApp({
    db,
    repository,
    blobs: await openDiskStorage({ directory: join(directory, 'blobs'), platform }),
    signer,
    platform,
    onError: (error) => errors.push(error),
  });
  const send = async (path: string, init: RequestInit): Promise<Response> => app.request(path, init);
  const admin = (path: string, init: RequestInit = {}): Promise<Response> =>
    send(`/v1/admin/${path}`, { ...init, headers: { Authorization: `Bearer ${token}` } });
  return {
    url: '',
    token,
    onlineKey: { keyid: signer.keyid, key: signer.key },
    platform,
    errors,
    admin,
    put: (path, body) => admin(path, { method: 'PUT', body }),
    get: (path, headers = {}) => send(path, { headers }),
    breakWith: (error) => {
      fault = error;
    },
  };
}

describe('a server whose database fails', () => {
  it('answers what went wrong without its insides, and goes on once it is mended', async () => {
    const server = await createFaultyServer();
    const publisher = await install(server);
    const bytes = tinyModel('1.0.0');
    await server.put(`blobs/${sha256(bytes)}`, bytes);
    const { targets } = release(server, publisher, '1.0.0', bytes);
    const body = await signMetadata(targets, [publisher.signer]);
    for (const [error, status, code] of [
      [
        new StoreError('ERR_INLAY_STORE_FULL', 'The database has no space left.'),
        507,
        'ERR_INLAY_STORE_FULL',
      ],
      [new StoreError('ERR_INLAY_STORE_IO', 'The database failed.'), 500, 'ERR_INLAY_STORE_IO'],
      [new Error('secret internals'), 500, 'ERR_INLAY_SERVER'],
    ] as const) {
      server.breakWith(error);
      const answer = server.put('targets', body);
      expect(await (await answer).clone().text()).not.toMatch(/secret|\.ts/);
      expect(await problemOf(answer)).toEqual([status, code]);
      expect(server.errors.at(-1)).toBe(error);
    }
    server.breakWith(undefined);
    expect((await server.put('targets', body)).status).toBe(200);
  });

  it('keeps what was signed when it cannot keep a rollout, and has it once it is mended', async () => {
    const server = await createFaultyServer();
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    const full = new StoreError('ERR_INLAY_STORE_FULL', 'The database has no space left.');
    const set = (percent: number): Promise<Response> =>
      server.put('rollouts/stable/digits', JSON.stringify({ version: '1.0.0', percent }));
    const pause = (): Promise<Response> =>
      server.admin('rollouts/stable/digits/pause', { method: 'POST', body: '{}' });
    expect((await set(10)).status).toBe(200);
    const before = await (await server.get('/v1/tip')).text();
    server.breakWith(full);
    for (const answer of [set(20), pause(), set(30)])
      expect(await problemOf(answer)).toEqual([507, 'ERR_INLAY_STORE_FULL']);
    expect(await (await server.get('/v1/tip')).text()).toBe(before);
    server.breakWith(undefined);
    expect((await pause()).status).toBe(200);
    // The share of 20 % was signed, so that nothing may contradict it; the requests after it were not.
    expect((await verify(server)).plans).toMatchObject([{ bp: 2000, state: 'paused' }]);
  });

  it('goes on serving what is installed when it cannot renew it', async () => {
    const server = await createFaultyServer();
    await install(server);
    const before = await (await server.get('/v1/tip')).text();
    server.platform.advanceHours(10);
    const full = new StoreError('ERR_INLAY_STORE_FULL', 'The database has no space left.');
    server.breakWith(full);
    const stale = await server.get('/v1/tip');
    expect([stale.status, await stale.text()]).toEqual([200, before]);
    expect(server.errors).toEqual([full]);
    server.breakWith(undefined);
    expect(await (await server.get('/v1/tip')).text()).not.toBe(before);
  });
});

describe('a sender who leaves in the middle', () => {
  it.each(['root', 'targets', `blobs/${'0'.repeat(64)}`, 'rollouts/stable/digits'])(
    'of %s is not taken for a fault of the server',
    async (path) => {
      const server = await createFaultyServer();
      const body = new ReadableStream({
        pull: (controller) => {
          controller.enqueue(new Uint8Array(10));
          controller.error(new Error('aborted'));
        },
      });
      const init = { method: 'PUT', body, duplex: 'half' } as RequestInit;
      expect(await problemOf(server.admin(path, init))).toEqual([400, 'ERR_INLAY_NETWORK']);
      expect(server.errors).toEqual([]);
      const { blobs } = (await (await server.admin('status')).json()) as ServerStatus;
      expect(blobs.count).toBe(0);
    },
  );
});

describe('a server whose blobs were damaged', () => {
  it('does not serve a file of another length, and heals by another upload', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    const bytes = tinyModel('1.0.0');
    const { url, sha256: hash } = await publish(server, publisher, '1.0.0', bytes);
    const path = join(server.dataDir, 'blobs', hash.slice(0, 2), hash);
    await writeFile(path, 'short');
    expect(await problemOf(server.get(url))).toEqual([500, 'ERR_INLAY_STORE_MISSING']);
    await rm(path);
    expect(await problemOf(server.get(url))).toEqual([500, 'ERR_INLAY_STORE_MISSING']);
    expect((await server.put(`blobs/${hash}`, bytes)).status).toBe(200);
    expect((await server.get(url)).status).toBe(200);
  });

  it('does not start with a damaged online key rather than making another', async () => {
    const server = await startTestServer();
    await server.close();
    await writeFile(join(server.dataDir, 'online-key.json'), '{"keytype":"ed');
    await expect(startTestServer({ dataDir: server.dataDir })).rejects.toThrow(/online-key\.json is damaged/);
  });
});
