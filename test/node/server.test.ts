import { stat } from 'node:fs/promises';
import { request } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it, onTestFinished } from 'vitest';
import { toUtf8 } from '../../src/core/bytes.ts';
import { addRelease, expiresIn } from '../../src/publish/release.ts';
import { signMetadata } from '../../src/publish/sign.ts';
import type { RolloutAnswer } from '../../src/server/catalog.ts';
import { startServer } from '../../src/server/index.ts';
import type { Targets } from '../../src/trust/metadata.ts';
import type { SignedPlan } from '../../src/update/plan.ts';
import {
  createPublisher,
  createSigner,
  expectOk,
  install,
  problemOf,
  publish,
  randomBytes,
  release,
  rootOf,
  sha256,
  startTestServer,
  temporaryDirectory,
  tinyModel,
  tipOf,
  verify,
  type Publisher,
  type TestServer,
  type Tip,
} from './server-fixture.ts';

const status = (server: TestServer): Promise<unknown> => expectOk(server.admin('status'));

const setRollout = (
  server: TestServer,
  version: string,
  percent: number,
  channel = 'stable',
): Promise<Response> => server.put(`rollouts/${channel}/digits`, JSON.stringify({ version, percent }));

const signedTargets = (publisher: Publisher, targets: Targets): Promise<Uint8Array<ArrayBuffer>> =>
  signMetadata(targets, [publisher.signer]);

describe('first start', () => {
  it('shows the token once and keeps the online key to itself', async () => {
    const server = await startTestServer();
    expect(server.token).toMatch(/^inlay_[\w-]{43}$/);
    const { mode } = await stat(join(server.dataDir, 'online-key.json'));
    expect(mode & 0o777).toBe(0o600);
    expect(await expectOk(server.get('/v1/online-key'))).toEqual(server.onlineKey);
    await server.close();
    const again = await startTestServer({ dataDir: server.dataDir, token: server.token });
    expect(again.token).toBe(server.token);
    expect('token' in (await startServerAgain(again))).toBe(false);
    expect(again.onlineKey).toEqual(server.onlineKey);
  });

  async function startServerAgain(server: TestServer): Promise<object> {
    await server.close();
    const running = await startServer({
      port: 0,
      dataDir: server.dataDir,
      platform: server.platform,
      signer: 'inline',
    });
    await running.close();
    return running;
  }

  it('does not use the token up when the port is taken', async () => {
    const other = await startTestServer();
    const dataDir = await temporaryDirectory();
    const port = Number(new URL(other.url).port);
    await expect(startServer({ port, dataDir, signer: 'inline' })).rejects.toMatchObject({
      code: 'ERR_INLAY_CONFLICT',
      message: `Port ${port} of 127.0.0.1 is taken; stop what listens there, or choose another with --port.`,
    });
    const server = await startServer({ port: 0, dataDir, signer: 'inline' });
    expect(server.token).toBeDefined();
    await server.close();
  });

  it('refuses a data directory that another server uses', async () => {
    const { dataDir } = await startTestServer();
    await expect(startServer({ port: 0, dataDir, signer: 'inline' })).rejects.toMatchObject({
      code: 'ERR_INLAY_CONFLICT',
    });
  });

  it('says so while nothing is installed', async () => {
    const server = await startTestServer();
    expect(await problemOf(server.get('/v1/tip'))).toEqual([503, 'ERR_INLAY_NOT_FOUND']);
    expect(await problemOf(server.get('/v1/metadata/timestamp.json'))).toEqual([404, 'ERR_INLAY_NOT_FOUND']);
    expect(await status(server)).toMatchObject({ root: 0, targets: 0, models: {} });
    expect(await (await server.get('/healthz')).text()).toBe('ok');
  });

  it('replaces a lost token', async () => {
    const server = await startTestServer();
    await server.close();
    const again = await startTestServer({ dataDir: server.dataDir, newToken: true });
    expect(again.token).not.toBe(server.token);
    await status(again);
    const old = fetch(`${again.url}/v1/admin/status`, {
      headers: { Authorization: `Bearer ${server.token}` },
    });
    expect((await old).status).toBe(401);
  });
});

describe('admin plane', () => {
  it.each([undefined, '', 'Bearer', 'Bearer ', 'Bearer wrong', 'Basic aW5sYXk6eA=='])(
    'refuses the authorization %s on every route',
    async (authorization) => {
      const server = await startTestServer();
      const headers: Record<string, string> =
        authorization === undefined ? {} : { Authorization: authorization };
      for (const [method, path] of [
        ['GET', 'status'],
        ['GET', 'audit'],
        ['PUT', 'root'],
        ['PUT', 'targets'],
        ['PUT', `blobs/${'0'.repeat(64)}`],
        ['PUT', 'rollouts/stable/digits'],
        ['GET', 'no-such-route'],
      ] as const) {
        const body = method === 'PUT' ? { body: randomBytes(200_000) } : {};
        const response = fetch(`${server.url}/v1/admin/${path}`, { method, headers, ...body });
        expect(await problemOf(response)).toEqual([401, 'ERR_INLAY_UNAUTHORIZED']);
      }
      expect(await status(server)).toMatchObject({ root: 0, blobs: { count: 0 } });
    },
  );

  it('answers JSON for what does not exist', async () => {
    const server = await startTestServer();
    for (const path of ['/', '/v1', '/v2/tip', '/v1/metadata/x', '/v1/targets/models/a/1/b', '/%ff']) {
      expect(await problemOf(server.get(path))).toEqual([404, 'ERR_INLAY_NOT_FOUND']);
    }
    expect(await problemOf(server.admin('status', { method: 'DELETE' }))).toEqual([
      404,
      'ERR_INLAY_NOT_FOUND',
    ]);
  });

  it('refuses a blob that hashes to something else and keeps nothing', async () => {
    const server = await startTestServer();
    const bytes = randomBytes(100_000);
    const name = sha256(randomBytes(3));
    expect(await problemOf(server.put(`blobs/${name}`, bytes))).toEqual([422, 'ERR_INLAY_STORE_MISMATCH']);
    expect(await problemOf(server.admin(`blobs/${name}`))).toEqual([404, 'ERR_INLAY_NOT_FOUND']);
    expect(await problemOf(server.put('blobs/abc', bytes))).toEqual([422, 'ERR_INLAY_REFUSED']);
    expect(await status(server)).toMatchObject({ blobs: { count: 0, sizeBytes: 0 } });
  });

  it('refuses bodies above the caps', async () => {
    const server = await startTestServer({ maxBlobBytes: 1000 });
    const large = randomBytes(6_000_000);
    for (const path of ['root', 'targets', 'rollouts/stable/digits', `blobs/${sha256(large)}`]) {
      expect(await problemOf(server.put(path, large))).toEqual([413, 'ERR_INLAY_LENGTH']);
    }
    // Without a Content-Length the bytes themselves are counted.
    const stream = new Blob([large]).stream();
    const init = { method: 'PUT', body: stream, duplex: 'half' } as RequestInit;
    expect(await problemOf(server.admin(`blobs/${sha256(large)}`, init))).toEqual([413, 'ERR_INLAY_LENGTH']);
    expect(await status(server)).toMatchObject({ blobs: { count: 0 } });
    const small = randomBytes(1000);
    await expectOk(server.put(`blobs/${sha256(small)}`, small));
  });

  it('installs a root only for this server, signed by itself and not expired', async () => {
    const server = await startTestServer();
    const { platform, onlineKey } = server;
    const publisher = await createPublisher(platform, onlineKey);
    const later = expiresIn(platform.now(), 365);
    const good = rootOf(publisher, onlineKey, later);
    const other = await createSigner(platform);
    const attempts = [
      [await signMetadata(good, [other]), 422, 'ERR_INLAY_SIGNATURE'],
      [await signMetadata(rootOf(publisher, other, later), [publisher.root]), 422, 'ERR_INLAY_REFUSED'],
      [
        await signMetadata(rootOf(publisher, onlineKey, later, 2), [publisher.root]),
        409,
        'ERR_INLAY_CONFLICT',
      ],
      [
        await signMetadata(rootOf(publisher, onlineKey, expiresIn(platform.now(), -1)), [publisher.root]),
        422,
        'ERR_INLAY_EXPIRED',
      ],
      [toUtf8('{}'), 422, 'ERR_INLAY_METADATA_INVALID'],
      [await signedTargets(publisher, publisher.targets), 422, 'ERR_INLAY_METADATA_INVALID'],
    ] as const;
    for (const [bytes, statusCode, code] of attempts) {
      expect(await problemOf(server.put('root', bytes))).toEqual([statusCode, code]);
    }
    const early = server.put('targets', await signedTargets(publisher, publisher.targets));
    expect(await problemOf(early)).toEqual([409, 'ERR_INLAY_CONFLICT']);
    expect(await status(server)).toMatchObject({ root: 0, targets: 0 });
    const bytes = await signMetadata(good, [publisher.root]);
    expect(await expectOk(server.put('root', bytes))).toEqual({ version: 1 });
    expect(await expectOk(server.put('root', bytes))).toEqual({ version: 1 });
  });

  it('follows a rotation of the root keys', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    const before = await tipOf(server);
    const expires = expiresIn(server.platform.now(), 365);
    const next: Publisher = { ...publisher, root: await createSigner(server.platform) };
    const root = rootOf(next, server.onlineKey, expires, 2);
    expect(await problemOf(server.put('root', await signMetadata(root, [next.root])))).toEqual([
      422,
      'ERR_INLAY_SIGNATURE',
    ]);
    expect(await problemOf(server.put('root', await signMetadata(root, [publisher.root])))).toEqual([
      422,
      'ERR_INLAY_SIGNATURE',
    ]);
    await expectOk(server.put('root', await signMetadata(root, [publisher.root, next.root])));
    const after = await tipOf(server);
    expect(after.roots).toHaveLength(2);
    expect(after.timestamp).not.toBe(before.timestamp);
    expect((await tipOf(server, 1)).roots).toEqual([after.roots[1]]);
    expect((await tipOf(server, 2)).roots).toEqual([]);
    expect((await tipOf(server, 99)).roots).toEqual([]);
    await verify(server);
  });

  it('refuses targets that devices could not use, and changes nothing', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    const bytes = tinyModel('one');
    const { targets } = release(server, publisher, '1.0.0', bytes);
    const refusal = async (body: Targets, signer = publisher.signer): Promise<[number, string]> =>
      problemOf(server.put('targets', await signMetadata(body, [signer])));
    const before = await tipOf(server);

    expect(await refusal(targets)).toEqual([422, 'ERR_INLAY_REFUSED']);
    await expectOk(server.put(`blobs/${sha256(bytes)}`, bytes));
    expect(await refusal(targets, await createSigner(server.platform))).toEqual([422, 'ERR_INLAY_SIGNATURE']);
    expect(await refusal(targets, publisher.root)).toEqual([422, 'ERR_INLAY_SIGNATURE']);
    expect(await refusal({ ...targets, version: 3 })).toEqual([409, 'ERR_INLAY_CONFLICT']);
    expect(await refusal({ ...targets, version: 1 })).toEqual([409, 'ERR_INLAY_CONFLICT']);
    const past = expiresIn(server.platform.now(), 0);
    expect(await refusal({ ...targets, expires: past })).toEqual([422, 'ERR_INLAY_EXPIRED']);

    const [[path, file] = ['', undefined]] = Object.entries(targets.targets);
    if (!file) throw new Error('There is one release.');
    const custom = { model: 'digits', version: '1.0.0', seq: 1 };
    const malformed: Targets['targets'][] = [
      { [path]: { ...file, length: file.length + 1 } },
      { [path]: { ...file, custom: { ...custom, seq: 2 } } },
      { [path]: { ...file, custom: { ...custom, model: 'other' } } },
      { [path]: { length: file.length, hashes: file.hashes } },
      { [path]: { ...file, hashes: { sha512: 'ab'.repeat(64) } } },
      { [path]: { ...file, hashes: { sha256: sha256(bytes).toUpperCase() } } },
      { 'models/digits/1/../../../x': file },
      { 'models/digits/1/a/b.onnx': file },
      { 'models/digits/1/A.onnx': file },
      { 'rollout/stable.json': file },
      { [path]: file, 'models/digits/2/digits.onnx': { ...file, custom: { ...custom, seq: 2 } } },
    ];
    for (const listed of malformed) {
      expect(await refusal({ ...targets, targets: listed })).toEqual([422, 'ERR_INLAY_REFUSED']);
    }
    const { delegations, ...withoutDelegations } = targets;
    expect(await refusal(withoutDelegations)).toEqual([422, 'ERR_INLAY_REFUSED']);
    const [role] = delegations?.roles ?? [];
    if (!role || !delegations) throw new Error('There is a delegation.');
    for (const roles of [
      [{ ...role, paths: ['models/*'] }],
      [{ ...role, paths: ['rollout/*', 'models/*'] }],
      [{ ...role, keyids: [publisher.signer.keyid] }],
      [role, { ...role, name: 'team' }],
    ]) {
      expect(await refusal({ ...targets, delegations: { ...delegations, roles } })).toEqual([
        422,
        'ERR_INLAY_REFUSED',
      ]);
    }

    expect(await tipOf(server)).toEqual(before);
    expect(await status(server)).toMatchObject({ targets: 1, models: {} });
    await expectOk(server.put('targets', await signedTargets(publisher, targets)));
  });

  it('lets one of two racing publishers win and the other land on top', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    const rival: Publisher = { ...publisher };
    const results = await Promise.allSettled([
      publish(server, publisher, '1.0.0'),
      publish(server, rival, '2.0.0'),
    ]);
    expect(results.map((result) => result.status).sort()).toEqual(['fulfilled', 'rejected']);
    const [winner, loser, version] =
      results[0].status === 'fulfilled' ? [publisher, rival, '2.0.0'] : [rival, publisher, '1.0.0'];
    loser.targets = winner.targets;
    await publish(server, loser, version);
    const { targets } = await verify(server);
    expect(targets.version).toBe(3);
    expect(Object.keys(targets.targets)).toHaveLength(2);
  });

  it('keeps an audit log of who changed what', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    await expectOk(setRollout(server, '1.0.0', 10));
    await problemOf(setRollout(server, '9.9.9', 10));
    const { records } = (await expectOk(server.admin('audit'))) as {
      records: { action: string; actor: string }[];
    };
    expect(records.map(({ action }) => action)).toEqual(['rollout', 'targets', 'targets', 'root', 'token']);
    expect(records.slice(0, 4).every(({ actor }) => actor === sha256(toUtf8(server.token)).slice(0, 8))).toBe(
      true,
    );
    expect(JSON.stringify(records)).not.toContain(server.token);
  });
});

describe('rollouts', () => {
  it('raises, completes and supersedes a rollout that devices can verify', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    expect((await verify(server)).plans).toEqual([]);
    await expectOk(setRollout(server, '1.0.0', 100));
    await publish(server, publisher, '1.1.0');
    const first = (await expectOk(setRollout(server, '1.1.0', 10))) as SignedPlan;
    const raised = (await expectOk(setRollout(server, '1.1.0', 62.5))) as SignedPlan;
    expect(raised).toEqual({ ...first, bp: 6250 });
    expect(first).toMatchObject({
      bp: 1000,
      state: 'ramp',
      base: { version: '1.0.0' },
      cand: { version: '1.1.0' },
    });
    expect((await verify(server)).plans).toEqual([raised]);
    expect(await problemOf(setRollout(server, '1.0.0', 100))).toEqual([422, 'ERR_INLAY_REFUSED']);
    await expectOk(setRollout(server, '1.1.0', 100));
    const { notices, ...back } = (await expectOk(setRollout(server, '1.0.0', 100))) as RolloutAnswer;
    expect(notices).toEqual(['This goes back: 1.0.0 was published before 1.1.0.']);
    expect(back).toMatchObject({ state: 'complete', cand: { version: '1.0.0', seq: 1 } });
    expect(back.salt).not.toBe(first.salt);
    await expectOk(setRollout(server, '1.1.0', 1, 'beta'));
    expect((await verify(server)).plans).toEqual([back]);
    expect(await status(server)).toMatchObject({ channels: { stable: [back], beta: [{ bp: 100 }] } });
  });

  it('takes a channel by any name that is one', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    for (const percent of [10, 20]) await expectOk(setRollout(server, '1.0.0', percent, 'constructor'));
    expect(await status(server)).toMatchObject({ channels: { constructor: [{ bp: 2000 }] } });
    await verify(server);
  });

  it('signs nothing new for a share that is in force', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    const plan = await expectOk(setRollout(server, '1.0.0', 10));
    const before = await tipOf(server);
    expect(await expectOk(setRollout(server, '1.0.0', 10))).toEqual(plan);
    expect(await tipOf(server)).toEqual(before);
  });

  it('refuses what is no rollout', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    await expectOk(setRollout(server, '1.0.0', 50));
    const before = await tipOf(server);
    expect(await problemOf(setRollout(server, '1.0.0', 49))).toEqual([422, 'ERR_INLAY_REFUSED']);
    for (const percent of [0, -1, 101, 0.001, Number.NaN]) {
      expect(await problemOf(setRollout(server, '1.0.0', percent))).toEqual([422, 'ERR_INLAY_REFUSED']);
    }
    expect(await problemOf(setRollout(server, '2.0.0', 50))).toEqual([404, 'ERR_INLAY_NOT_FOUND']);
    expect(await problemOf(setRollout(server, '1.0.0', 50, 'No%20Name'))).toEqual([422, 'ERR_INLAY_REFUSED']);
    for (const body of [
      '',
      '[]',
      '{}',
      'null',
      '{"version":"1.0.0"}',
      '{"version":1,"percent":5}',
      '{"percent":"5"}',
    ]) {
      expect(await problemOf(server.put('rollouts/stable/digits', body))).toEqual([422, 'ERR_INLAY_REFUSED']);
    }
    expect(await tipOf(server)).toEqual(before);
  });

  it('refuses targets without a release that devices run, and takes them once none does', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    const { path } = await publish(server, publisher, '1.0.0');
    await publish(server, publisher, '1.1.0');
    await expectOk(setRollout(server, '1.0.0', 100));
    await expectOk(setRollout(server, '1.1.0', 10));
    const { [path]: removed, ...kept } = publisher.targets.targets;
    expect(removed).toBeDefined();
    const targets = { ...publisher.targets, version: publisher.targets.version + 1, targets: kept };
    const signed = await signedTargets(publisher, targets);
    expect(await problemOf(server.put('targets', signed))).toEqual([409, 'ERR_INLAY_CONFLICT']);
    await expectOk(setRollout(server, '1.1.0', 100));
    await expectOk(server.put('targets', signed));
    await verify(server);
    expect(await problemOf(setRollout(server, '1.0.0', 100))).toEqual([404, 'ERR_INLAY_NOT_FOUND']);
  });
});

describe('device plane', () => {
  it('sends the tip of five models in at most 1.5 kB', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    for (const [i, model] of ['a', 'b', 'c', 'd', 'e'].entries()) {
      // Two versions each, so that every plan has a base.
      for (const version of ['1.0.0', '1.1.0']) await publishAs(server, publisher, model, version);
      for (const [version, percent] of [
        ['1.0.0', 100],
        ['1.1.0', 10 + i],
      ] as const) {
        await expectOk(server.put(`rollouts/stable/${model}`, JSON.stringify({ version, percent })));
      }
    }
    const full = await raw(server, '/v1/tip?root=1', { 'Accept-Encoding': 'gzip' });
    expect(full.status).toBe(200);
    const tip = JSON.parse(gunzipSync(full.body).toString()) as Tip;
    expect(tip.roots).toEqual([]);
    expect(full.body.length).toBeLessThanOrEqual(1536);
    expect(full.sizeBytes).toBeLessThanOrEqual(2048);
  });

  it('takes at most 350 bytes both ways for a poll that brings nothing new', async () => {
    const server = await startTestServer();
    await install(server);
    const { host, hostname, port } = new URL(server.url);
    const etag = (await server.get('/v1/tip?root=1')).headers.get('etag');
    // What the protocol needs; `fetch` of Node adds some 150 bytes of its own.
    const sent = `GET /v1/tip?root=1 HTTP/1.1\r\nHost: ${host}\r\nAccept-Encoding: gzip\r\nIf-None-Match: ${etag}\r\n\r\n`;
    const socket = connect(Number(port), hostname);
    onTestFinished(() => {
      socket.destroy();
    });
    socket.setEncoding('latin1').write(sent);
    let received = '';
    for await (const text of socket) {
      received += String(text);
      if (received.includes('\r\n\r\n')) break;
    }
    expect(received).toMatch(/^HTTP\/1\.1 304 /);
    expect(received.endsWith('\r\n\r\n')).toBe(true);
    expect(sent.length + received.length).toBeLessThanOrEqual(350);
  });

  async function publishAs(
    server: TestServer,
    publisher: Publisher,
    model: string,
    version: string,
  ): Promise<void> {
    const bytes = tinyModel(`${model} ${version}`);
    await expectOk(server.put(`blobs/${sha256(bytes)}`, bytes));
    const { targets } = addRelease(publisher.targets, {
      model,
      version,
      file: 'model.onnx',
      length: bytes.length,
      sha256: sha256(bytes),
      expires: publisher.targets.expires,
    });
    await expectOk(server.put('targets', await signedTargets(publisher, targets)));
    publisher.targets = targets;
  }

  /** Without the headers that `fetch` adds, and with what came over the wire. */
  function raw(
    server: TestServer,
    path: string,
    headers: Record<string, string>,
  ): Promise<{ status: number; headers: Record<string, unknown>; body: Buffer; sizeBytes: number }> {
    return new Promise((done, fail) => {
      const sent = request(`${server.url}${path}`, { headers }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => {
          const body = Buffer.concat(chunks);
          const head = response.rawHeaders.reduce((sum, text) => sum + text.length + 2, 0);
          const sizeBytes =
            `HTTP/1.1 ${response.statusCode} ${response.statusMessage}\r\n\r\n`.length + head + body.length;
          done({ status: response.statusCode ?? 0, headers: response.headers, body, sizeBytes });
        });
      });
      sent.on('error', fail);
      sent.end();
    });
  }

  it('revalidates the tip and changes its tag with its content', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    const first = await server.get('/v1/tip?root=1');
    const etag = first.headers.get('etag') ?? '';
    expect(etag).toMatch(/^"[^"]+"$/);
    expect(first.headers.get('cache-control')).toBe('no-cache');
    for (const tag of [etag, `W/${etag}`, `"x", ${etag}`, '*']) {
      expect((await server.get('/v1/tip?root=1', { 'If-None-Match': tag })).status).toBe(304);
    }
    expect((await server.get('/v1/tip?root=0', { 'If-None-Match': etag })).status).toBe(200);
    const plain = await server.get('/v1/tip?root=1', {
      'Accept-Encoding': 'identity',
      'If-None-Match': etag,
    });
    expect(plain.status).toBe(200);
    expect(plain.headers.get('content-encoding')).toBeNull();
    await publish(server, publisher, '1.0.0');
    const second = await server.get('/v1/tip?root=1', { 'If-None-Match': etag });
    expect(second.status).toBe(200);
    expect(second.headers.get('etag')).not.toBe(etag);
  });

  it.each(['-1', '1.5', 'x', '', '9'.repeat(20)])('refuses the root version %s', async (root) => {
    const server = await startTestServer();
    await install(server);
    expect(await problemOf(server.get(`/v1/tip?root=${root}`))).toEqual([422, 'ERR_INLAY_REFUSED']);
  });

  it('serves every metadata file under its version, to be kept for ever', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    const { roots, snapshot, rollout } = await tipOf(server);
    for (const [file, text] of [
      ['1.root.json', roots[0]],
      ['1.snapshot.json', snapshot],
      ['1.rollout.json', rollout],
    ] as const) {
      const response = await server.get(`/v1/metadata/${file}`);
      expect(response.headers.get('cache-control')).toContain('immutable');
      expect(await response.text()).toBe(text);
    }
    await publish(server, publisher, '1.0.0');
    for (const [file, text] of [
      ['1.snapshot.json', snapshot],
      ['2.snapshot.json', (await tipOf(server)).snapshot],
    ] as const) {
      expect(await (await server.get(`/v1/metadata/${file}`)).text()).toBe(text);
    }
    const newest = await server.get('/v1/metadata/timestamp.json');
    expect(newest.headers.get('cache-control')).toBe('no-cache');
    expect(await newest.text()).toBe((await tipOf(server)).timestamp);
    for (const file of ['2.root.json', '0.root.json', '1.timestamp.json', 'root.json', '1.online-key.json']) {
      expect((await server.get(`/v1/metadata/${file}`)).status).toBe(404);
    }
  });

  it('serves the plans of a channel as the file that its metadata describes', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    await expectOk(setRollout(server, '1.0.0', 10));
    const rollout = (JSON.parse((await tipOf(server)).rollout) as { signed: Targets }).signed;
    const { hashes, length } = rollout.targets['rollout/stable.json'] ?? { hashes: {}, length: 0 };
    const response = await server.get(`/v1/targets/rollout/${hashes['sha256']}.stable.json`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    expect(bytes).toHaveLength(length);
    expect(sha256(bytes)).toBe(hashes['sha256']);
  });

  it('serves only released files, whole, in ranges and by their tag', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    const bytes = randomBytes(200_000);
    const unreleased = randomBytes(10);
    await expectOk(server.put(`blobs/${sha256(unreleased)}`, unreleased));
    const { url, sha256: hash } = await publish(server, publisher, '1.0.0', bytes);

    const whole = await server.get(url);
    expect(whole.status).toBe(200);
    expect(Object.fromEntries(whole.headers)).toMatchObject({
      etag: `"${hash}"`,
      'content-length': '200000',
      'accept-ranges': 'bytes',
      'cache-control': 'public, max-age=31536000, immutable',
      'access-control-allow-origin': '*',
    });
    expect(sha256(new Uint8Array(await whole.arrayBuffer()))).toBe(hash);

    const part = await server.get(url, { Range: 'bytes=1000-1999' });
    expect([part.status, part.headers.get('content-range')]).toEqual([206, 'bytes 1000-1999/200000']);
    expect(new Uint8Array(await part.arrayBuffer())).toEqual(bytes.subarray(1000, 2000));
    const tail = await server.get(url, { Range: 'bytes=199990-', 'If-Range': `"${hash}"` });
    expect([tail.status, await tail.arrayBuffer().then((rest) => rest.byteLength)]).toEqual([206, 10]);
    const unusable: readonly Record<string, string>[] = [
      { Range: 'bytes=0-1,5-6' },
      { Range: 'bytes=0-1', 'If-Range': '"other"' },
      { Range: 'bytes=0-1', 'If-Range': `W/"${hash}"` },
    ];
    for (const headers of unusable) {
      const response = await server.get(url, headers);
      expect([response.status, (await response.arrayBuffer()).byteLength]).toEqual([200, 200_000]);
    }
    const beyond = await server.get(url, { Range: 'bytes=200000-' });
    expect([beyond.status, beyond.headers.get('content-range')]).toEqual([416, 'bytes */200000']);
    expect(beyond.headers.get('cache-control')).toBe('no-store');
    expect(await beyond.json()).toMatchObject({ code: 'ERR_INLAY_REFUSED' });
    expect((await server.get(url, { 'If-None-Match': `"${hash}"` })).status).toBe(304);

    for (const Range of ['bytes=0-', 'bytes=0-9', 'bytes=200000-']) {
      const head = await fetch(server.url + url, { method: 'HEAD', headers: { Range } });
      expect([head.status, head.headers.get('content-length')]).toEqual([200, '200000']);
    }
    for (const path of [
      url.replace(hash, sha256(unreleased)),
      url.replace('digits.onnx', 'other.onnx'),
      url.replace('/1/', '/2/'),
      url.replace(hash, '..%2f..%2fonline-key'),
    ]) {
      expect(await problemOf(server.get(path))).toEqual([404, 'ERR_INLAY_NOT_FOUND']);
    }
  });

  it('survives a reader that leaves in the middle', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    const { url } = await publish(server, publisher, '1.0.0', randomBytes(5_000_000));
    for (let i = 0; i < 5; i += 1) {
      const controller = new AbortController();
      const response = await fetch(server.url + url, { signal: controller.signal });
      await response.body?.getReader().read();
      controller.abort();
    }
    expect((await (await server.get(url)).arrayBuffer()).byteLength).toBe(5_000_000);
    expect(server.errors).toEqual([]);
  });

  it('answers the preflight of a web page, but not for the admin plane', async () => {
    const server = await startTestServer();
    const headers = {
      Origin: 'https://app.example',
      'Access-Control-Request-Method': 'GET',
      'Access-Control-Request-Headers': 'if-none-match',
    };
    const tip = await fetch(`${server.url}/v1/tip`, { method: 'OPTIONS', headers });
    expect(tip.status).toBe(204);
    expect(tip.headers.get('access-control-allow-origin')).toBe('*');
    expect(tip.headers.get('access-control-allow-headers')?.toLowerCase()).toContain('if-none-match');
    const admin = await fetch(`${server.url}/v1/admin/status`, { method: 'OPTIONS', headers });
    expect(admin.headers.get('access-control-allow-origin')).toBeNull();
  });
});

describe('renewal', () => {
  it('signs the timestamp again when less than 66 hours are left, at the request of a device', async () => {
    const server = await startTestServer();
    await install(server);
    const first = await tipOf(server);
    server.platform.advanceHours(5.9);
    expect(await tipOf(server)).toEqual(first);
    server.platform.advanceHours(0.2);
    const second = await tipOf(server);
    expect(second).toEqual({ ...first, timestamp: second.timestamp });
    expect(second.timestamp).not.toBe(first.timestamp);
    await verify(server);
  });

  it('renews everything after a long stop, so that devices verify again', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    const plan = await expectOk(setRollout(server, '1.0.0', 100));
    await server.close();
    server.platform.advanceHours(24 * 30);
    const again = await startTestServer({
      dataDir: server.dataDir,
      token: server.token,
      platform: server.platform,
    });
    expect((await verify(again)).plans).toEqual([plan]);
  });

  it('keeps everything valid while somebody publishes all the time', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    for (let i = 0; i < 40; i += 1) {
      server.platform.advanceHours(5);
      await publish(server, publisher, `1.0.${i}`);
    }
    await verify(server);
  });

  it('renews once for many devices at a time', async () => {
    const server = await startTestServer();
    await install(server);
    server.platform.advanceHours(7);
    const tips = await Promise.all(Array.from({ length: 20 }, () => tipOf(server)));
    expect(new Set(tips.map(({ timestamp }) => timestamp)).size).toBe(1);
    const { records } = (await expectOk(server.admin('audit'))) as { records: { action: string }[] };
    expect(records.filter(({ action }) => action === 'renew')).toHaveLength(1);
  });
});

describe('restart', () => {
  it('keeps everything', async () => {
    const server = await startTestServer();
    const publisher = await install(server);
    const { url } = await publish(server, publisher, '1.0.0');
    await expectOk(setRollout(server, '1.0.0', 25));
    const before = { tip: await tipOf(server), status: await status(server) };
    await server.close();
    await server.close();
    const again = await startTestServer({
      dataDir: server.dataDir,
      token: server.token,
      platform: server.platform,
    });
    expect({ tip: await tipOf(again), status: await status(again) }).toEqual(before);
    expect((await again.get(url)).status).toBe(200);
    await publish(again, publisher, '1.1.0');
    await verify(again);
  });

  it('answers the request in flight before it closes', async () => {
    const server = await startTestServer();
    const bytes = randomBytes(100_000);
    let sayStarted = (): void => undefined;
    const started = new Promise<void>((resolve) => {
      sayStarted = resolve;
    });
    const body = new ReadableStream({
      pull: async (controller) => {
        controller.enqueue(bytes.subarray(0, 50_000));
        sayStarted();
        await new Promise((resolve) => {
          setImmediate(resolve);
        });
        controller.enqueue(bytes.subarray(50_000));
        controller.close();
      },
    });
    const init = { method: 'PUT', body, duplex: 'half' } as RequestInit;
    const uploading = server.admin(`blobs/${sha256(bytes)}`, init);
    await started;
    // The server has seen the request once it answers a later one on another connection.
    await status(server);
    const [response] = await Promise.all([uploading, server.close()]);
    expect(response.status).toBe(200);
  });
});
