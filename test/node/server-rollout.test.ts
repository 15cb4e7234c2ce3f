import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import Database from 'libsql';
import { describe, expect, it } from 'vitest';
import { addRelease, expiresIn } from '../../src/publish/release.ts';
import { signMetadata } from '../../src/publish/sign.ts';
import type { AuditRecord, ServerStatus } from '../../src/server/index.ts';
import type { Targets, TargetsPolicy } from '../../src/trust/metadata.ts';
import { readPlan, type SignedPlan } from '../../src/update/plan.ts';
import { unitHash } from '../../src/update/unit.ts';
import {
  expectOk,
  install,
  problemOf,
  publish,
  rootOf,
  sha256,
  startTestServer,
  tinyModel,
  tipOf,
  verify,
  type Publisher,
  type TestServer,
} from './server-fixture.ts';

const set = (server: TestServer, version: string, percent: number, options: object = {}): Promise<Response> =>
  server.put('rollouts/stable/digits', JSON.stringify({ version, percent, ...options }));

const act = (server: TestServer, action: string, body: object = {}): Promise<Response> =>
  server.admin(`rollouts/stable/digits/${action}`, { method: 'POST', body: JSON.stringify(body) });

const planOf = async (answer: Promise<Response>): Promise<SignedPlan> =>
  (await expectOk(answer)) as SignedPlan;

const audit = async (server: TestServer): Promise<readonly AuditRecord[]> =>
  ((await expectOk(server.admin('audit'))) as { records: AuditRecord[] }).records;

const status = async (server: TestServer): Promise<ServerStatus> =>
  (await expectOk(server.admin('status'))) as ServerStatus;

/** A server with two releases of which everybody runs the first. */
async function startWithReleases(): Promise<{ server: TestServer; publisher: Publisher }> {
  const server = await startTestServer();
  const publisher = await install(server);
  for (const version of ['1.0.0', '2.0.0', '3.0.0']) await publish(server, publisher, version);
  await expectOk(set(server, '1.0.0', 100));
  return { server, publisher };
}

async function putTargets(
  server: TestServer,
  publisher: Publisher,
  changes: Partial<Targets>,
): Promise<Response> {
  const targets = { ...publisher.targets, ...changes, version: publisher.targets.version + 1 };
  const response = await server.put('targets', await signMetadata(targets, [publisher.signer]));
  if (response.ok) publisher.targets = targets;
  return response;
}

const withdraw = (
  server: TestServer,
  publisher: Publisher,
  models: TargetsPolicy['models'],
): Promise<Response> => putTargets(server, publisher, { custom: { models: models ?? {} } });

describe('a rollout', () => {
  it('is paused, resumed, halted, resumed, promoted and rolled back, each with its reason', async () => {
    const { server } = await startWithReleases();
    const first = await planOf(set(server, '2.0.0', 10));
    const steps = [
      ['pause', 'paused'],
      ['resume', 'ramp'],
      ['halt', 'halted'],
      ['resume', 'ramp'],
      ['promote', 'complete'],
      ['rollback', 'rolledback'],
    ] as const;
    for (const [action, state] of steps) {
      const plan = await planOf(act(server, action, { reason: `so it is: ${action}` }));
      expect(plan).toMatchObject({ id: first.id, salt: first.salt, state });
      expect((await verify(server)).plans).toEqual([plan]);
    }
    const records = (await audit(server)).slice(0, steps.length);
    expect(records.map(({ action }) => action)).toEqual(steps.map(([action]) => action).reverse());
    expect(records.map(({ details }) => details['reason'])).toEqual(
      steps.map(([action]) => `so it is: ${action}`).reverse(),
    );
    expect(await problemOf(act(server, 'resume'))).toEqual([409, 'ERR_INLAY_CONFLICT']);
    const shown = (await expectOk(server.admin('rollouts/stable/digits'))) as { records: unknown[] };
    expect(shown).toMatchObject({ plan: { state: 'rolledback' } });
    expect(shown.records.length).toBeGreaterThanOrEqual(steps.length);
    const again = await planOf(set(server, '2.0.0', 5));
    expect(again).toMatchObject({ state: 'ramp', bp: 500, base: { version: '1.0.0' } });
    expect(again.id).not.toBe(first.id);
  });

  it('that is paused or halted takes no share, and one that is not there no action', async () => {
    const { server } = await startWithReleases();
    await expectOk(set(server, '2.0.0', 10));
    for (const action of ['pause', 'halt']) {
      await expectOk(act(server, action));
      expect(await problemOf(set(server, '2.0.0', 20))).toEqual([409, 'ERR_INLAY_CONFLICT']);
    }
    expect(await problemOf(act(server, 'promote', { reason: 'now' }))).toEqual([409, 'ERR_INLAY_CONFLICT']);
    const other = server.admin('rollouts/beta/digits/halt', { method: 'POST', body: '{}' });
    expect(await problemOf(other)).toEqual([404, 'ERR_INLAY_NOT_FOUND']);
    expect(await problemOf(act(server, 'explode'))).toEqual([404, 'ERR_INLAY_NOT_FOUND']);
    expect(await problemOf(server.admin('rollouts/beta/digits'))).toEqual([404, 'ERR_INLAY_NOT_FOUND']);
  });

  it('is promoted at once only with a reason', async () => {
    const { server } = await startWithReleases();
    await expectOk(set(server, '2.0.0', 10, { durationS: 86_400 }));
    for (const body of [{}, { reason: ' ' }, { reason: 5 }]) {
      expect(await problemOf(act(server, 'promote', body))).toEqual([422, 'ERR_INLAY_REFUSED']);
    }
    const plan = await planOf(act(server, 'promote', { reason: 'The old one has a hole.' }));
    expect(plan).toMatchObject({ state: 'complete', bp: 10_000 });
    expect(Object.keys(plan)).not.toContain('startAt');
  });

  it('ramps over a time, stops where it is, and goes on from there', async () => {
    const { server } = await startWithReleases();
    expect(await planOf(set(server, '2.0.0', 20, { durationS: 36_000 }))).toMatchObject({
      fromBp: 0,
      bp: 2000,
      durationS: 36_000,
      startAt: '2026-03-01T12:00:00Z',
    });
    server.platform.advanceHours(5);
    const paused = await planOf(act(server, 'pause'));
    expect(paused).toMatchObject({ fromBp: 1000, durationS: 18_000, startAt: '2026-03-01T17:00:00Z' });
    server.platform.advanceHours(40);
    const resumed = await planOf(act(server, 'resume'));
    expect(resumed).toMatchObject({ fromBp: 1000, durationS: 18_000, startAt: '2026-03-03T09:00:00Z' });
    server.platform.advanceHours(2.5);
    const raised = await planOf(set(server, '2.0.0', 50, { durationS: 3600 }));
    expect(raised).toMatchObject({ fromBp: 1500, bp: 5000, durationS: 3600 });
  });

  it('takes every option, and signs devices by hashes of their identifiers', async () => {
    const { server } = await startWithReleases();
    const options = {
      control: 45,
      rules: [{ os: ['ios'], app: '>=3.2.0', attributes: { site: ['a', 'b'] } }],
      allow: ['install-1'],
      deny: ['install-2', 'install-3'],
      bucketBy: 'site',
      trial: { minInferences: 50, soakS: 60 },
      net: { unmetered: true, idle: false },
      pollS: 600,
      leaseS: 1200,
      reason: 'The first try.',
    };
    const plan = await planOf(set(server, '2.0.0', 1, options));
    expect(plan).toMatchObject({
      ctl: 4500,
      rules: options.rules,
      allow: [unitHash(plan.salt, 'install-1')],
      deny: [unitHash(plan.salt, 'install-2'), unitHash(plan.salt, 'install-3')],
      bucketBy: 'site',
      trial: { minInferences: 50 },
      net: { unmetered: true },
      pollS: 600,
      leaseS: 1200,
    });
    expect(Object.keys(plan.trial ?? {})).toEqual(['minInferences']);
    expect(await planOf(set(server, '2.0.0', 2))).toEqual({ ...plan, bp: 200 });
    expect(await planOf(act(server, 'retry'))).toMatchObject({ retryNonce: 1, bp: 200 });
    expect((await verify(server)).plans).toMatchObject([{ retryNonce: 1 }]);
  });

  it.each([
    { control: 101 },
    { control: -1 },
    { durationS: 1.5 },
    { durationS: 40_000_000 },
    { rules: {} },
    { rules: [{ os: 'ios' }] },
    { rules: [{ app: 'x' }] },
    { rules: [{ colour: ['red'] }] },
    { allow: 'install-1' },
    { allow: [''] },
    { deny: Array.from({ length: 501 }, (_, i) => `install-${i}`) },
    { trial: { strikes: 0 } },
    { trial: { luck: 1 } },
    { trial: { maxErrorBp: 0.5 } },
    { net: { unmetered: 'yes' } },
    { pollS: 0 },
    { leaseS: 7199 },
    { pollS: 60, leaseS: 119 },
    { reason: 'x'.repeat(501) },
    { dryRun: 'yes' },
    { state: 'complete' },
    { bp: 1 },
  ])('refuses option %# of what no plan can have, and changes nothing', async (options) => {
    const { server } = await startWithReleases();
    const before = await tipOf(server);
    expect(await problemOf(set(server, '2.0.0', 10, options))).toEqual([422, 'ERR_INLAY_REFUSED']);
    expect(await tipOf(server)).toEqual(before);
  });

  it.each([
    ['minInferences', 0, 1_000_000_000],
    ['soakS', 0, 31_536_000],
    ['strikes', 1, 100],
    ['loadTimeoutS', 1, 3600],
    ['maxErrorBp', 0, 10_000],
    ['maxP95Percent', 1, 1_000_000],
    ['maxMemoryMiB', 0, 2 ** 31],
    ['graceS', 0, 3600],
  ])('takes %s of a trial from %i to %i, as a plan does, and says so otherwise', async (name, low, high) => {
    const { server } = await startWithReleases();
    for (const value of [low, high]) {
      await expectOk(set(server, '2.0.0', 10, { trial: { [name]: value }, dryRun: true }));
    }
    for (const value of [low - 1, high + 1, 1.5]) {
      const { message } = (await (await set(server, '2.0.0', 10, { trial: { [name]: value } })).json()) as {
        message: string;
      };
      expect(message).toBe(
        `In the option trial, ${name} is a whole number from ${low} to ${high}, not ${value}.`,
      );
    }
  });

  it('is not needed any more for a release once it was rolled back, but its base is', async () => {
    const { server, publisher } = await startWithReleases();
    await expectOk(set(server, '2.0.0', 10));
    const { targets } = publisher.targets;
    const without = (version: string): Targets['targets'] =>
      Object.fromEntries(
        Object.entries(targets).filter(
          ([, { custom }]) => (custom as { version?: string }).version !== version,
        ),
      );
    const refusal = async (): Promise<unknown> =>
      (
        (await (await putTargets(server, publisher, { targets: without('1.0.0') })).json()) as {
          message: string;
        }
      ).message;
    expect(await refusal()).toContain('1.0.0, which other devices run; complete it first.');
    await expectOk(act(server, 'halt'));
    expect(await refusal()).toContain(
      '1.0.0, which other devices run; resume and complete the rollout first.',
    );
    await expectOk(act(server, 'rollback'));
    expect(await refusal()).toContain(
      '1.0.0, which devices run since 2.0.0 was rolled back; roll another version out to all of them first.',
    );
    await expectOk(putTargets(server, publisher, { targets: without('2.0.0') }));
    await expectOk(set(server, '3.0.0', 100));
    await expectOk(putTargets(server, publisher, { targets: without('1.0.0') }));
    await verify(server);
  });

  it('is shown before it is signed', async () => {
    const { server } = await startWithReleases();
    const before = await tipOf(server);
    expect(await planOf(set(server, '2.0.0', 10, { dryRun: true }))).toMatchObject({
      bp: 1000,
      state: 'ramp',
    });
    expect(await planOf(act(server, 'rollback', { dryRun: true }))).toMatchObject({ state: 'rolledback' });
    expect(await problemOf(set(server, '2.0.0', 10, { dryRun: true, pollS: 0 }))).toEqual([
      422,
      'ERR_INLAY_REFUSED',
    ]);
    expect(await tipOf(server)).toEqual(before);
    expect((await audit(server)).filter(({ action }) => action === 'rollback')).toEqual([]);
  });

  it('is kept whole by any sequence of requests', async () => {
    const { server } = await startWithReleases();
    const step = fc.oneof(
      fc.record({
        version: fc.constantFrom('1.0.0', '2.0.0', '3.0.0'),
        percent: fc.constantFrom(1, 10, 50, 100),
        durationS: fc.constantFrom(0, 3600),
      }),
      fc.constantFrom('pause', 'resume', 'halt', 'rollback', 'promote', 'retry'),
      fc.integer({ min: 1, max: 5 }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 8 }), async (steps) => {
        for (const one of steps) {
          if (typeof one === 'number') {
            server.platform.advanceHours(one);
            continue;
          }
          const [before] = (await verify(server)).plans;
          const answer =
            typeof one === 'string'
              ? act(server, one, { reason: 'So.' })
              : set(server, one.version, one.percent, { durationS: one.durationS });
          const { status: code } = await answer;
          expect([200, 409, 422]).toContain(code);
          const [after] = (await verify(server)).plans;
          if (code !== 200) expect(after).toEqual(before);
          if (before && after?.id === before.id && !['halted', 'rolledback'].includes(after.state)) {
            expect(after.bp).toBeGreaterThanOrEqual(before.bp);
          }
          if (before?.state === 'rolledback' && after?.id === before.id)
            expect(after.state).toBe('rolledback');
        }
      }),
      { numRuns: 25 },
    );
    expect(server.errors).toEqual([]);
  });
});

describe('hostile options', () => {
  it('never make the server fail, or sign what devices would not read', async () => {
    const { server } = await startWithReleases();
    const names = [
      'control',
      'durationS',
      'rules',
      'allow',
      'deny',
      'bucketBy',
      'trial',
      'net',
      'pollS',
      'leaseS',
    ];
    const value = fc.oneof(
      fc.jsonValue(),
      fc.constantFrom(
        0,
        1,
        60,
        7200,
        2 ** 53,
        -1,
        0.5,
        '',
        '\ud800',
        [],
        {},
        [{ os: ['ios'] }],
        ['install-1'],
      ),
      fc
        .record({ os: fc.array(fc.string()), attributes: fc.dictionary(fc.string(), fc.array(fc.string())) })
        .map((rule) => [rule]),
    );
    const options = fc.dictionary(fc.constantFrom(...names, 'reason', 'dryRun', '__proto__', 'id'), value);
    const paths = ['rollouts/stable/digits/pause', 'rollouts/stable/digits/retry', 'rollouts/x/y/halt'];
    await fc.assert(
      fc.asyncProperty(options, fc.nat(), async (body, i) => {
        const percent = 1 + (i % 3);
        const answer = await server.put(
          'rollouts/stable/digits',
          JSON.stringify({ version: i % 2 ? '2.0.0' : '3.0.0', percent, ...body }),
        );
        expect([200, 409, 422]).toContain(answer.status);
        const action = server.admin(paths[i % paths.length] ?? '', {
          method: 'POST',
          body: JSON.stringify(body),
        });
        expect([200, 404, 409, 422]).toContain((await action).status);
      }),
      { numRuns: 300 },
    );
    const [plan] = (await verify(server)).plans;
    expect(readPlan(plan)).toBeDefined();
    expect(server.errors).toEqual([]);
  });
});

describe('targets that withdraw', () => {
  it('the candidate take its rollout back in the same step', async () => {
    const { server, publisher } = await startWithReleases();
    const plan = await planOf(set(server, '2.0.0', 40));
    expect((await withdraw(server, publisher, { digits: { revoked: [2] } })).status).toBe(200);
    expect((await verify(server)).plans).toEqual([{ ...plan, state: 'rolledback' }]);
    expect((await audit(server))[0]).toMatchObject({
      action: 'targets',
      details: { rolledback: [{ channel: 'stable', model: 'digits', version: '2.0.0', rollout: plan.id }] },
    });
    expect(await problemOf(set(server, '2.0.0', 40))).toEqual([409, 'ERR_INLAY_CONFLICT']);
    expect(await planOf(set(server, '3.0.0', 10))).toMatchObject({ base: { version: '1.0.0' } });
  });

  it('candidate and base leave devices with neither', async () => {
    const { server, publisher } = await startWithReleases();
    const plan = await planOf(set(server, '2.0.0', 40));
    expect((await withdraw(server, publisher, { digits: { floorSeq: 3 } })).status).toBe(200);
    expect((await verify(server)).plans).toEqual([{ ...plan, state: 'rolledback', base: null }]);
    expect(await planOf(set(server, '3.0.0', 100))).toMatchObject({ base: null, state: 'complete' });
  });

  it('something else leave rollouts alone, and cannot be undone', async () => {
    const { server, publisher } = await startWithReleases();
    const plan = await planOf(set(server, '2.0.0', 40));
    expect((await withdraw(server, publisher, { digits: { revoked: [3], floorSeq: 2 } })).status).toBe(200);
    expect((await verify(server)).plans).toEqual([plan]);
    for (const models of [
      {},
      { digits: { revoked: [3] } },
      { digits: { floorSeq: 2 } },
      { digits: { revoked: [3], floorSeq: 1 } },
      { digits: { revoked: ['3'], floorSeq: 2 } },
      { digits: { revoked: 3, floorSeq: 2 } },
      { digits: { revoked: [3], floorSeq: -2 } },
      { digits: 5 },
    ]) {
      const answer = withdraw(server, publisher, models as TargetsPolicy['models']);
      expect(await problemOf(answer)).toEqual([422, 'ERR_INLAY_REFUSED']);
    }
  });
});

describe('companions of a release', () => {
  const manifest = new TextEncoder().encode('{"v":1}');

  it('are taken in and served beside it, and nothing else is', async () => {
    const { server, publisher } = await startWithReleases();
    const model = tinyModel('with manifest');
    for (const bytes of [model, manifest]) await expectOk(server.put(`blobs/${sha256(bytes)}`, bytes));
    const added = addRelease(publisher.targets, {
      model: 'digits',
      version: '4.0.0',
      file: 'digits.onnx',
      length: model.length,
      sha256: sha256(model),
      companions: [
        { file: 'release.json', role: 'manifest', length: manifest.length, sha256: sha256(manifest) },
      ],
      expires: expiresIn(server.platform.now(), 180),
    });
    const path = `models/digits/${added.seq}/release.json`;
    const file = added.targets.targets[path];
    if (!file) throw new Error('The manifest is a target.');
    const bad: Targets['targets'][] = [
      { [path]: { ...file, custom: { ...file.custom, role: 'virus' } } },
      { [path]: { ...file, custom: { ...file.custom, seq: 99 } } },
      { [path]: { ...file, custom: { ...file.custom, model: 'faces' } } },
      { [path]: { ...file, length: 5 } },
      { 'models/digits/99/release.json': { ...file, custom: { ...file.custom, seq: 99 } } },
    ];
    for (const wrong of bad) {
      const { [path]: _, ...rest } = added.targets.targets;
      const answer = putTargets(server, publisher, { targets: { ...rest, ...wrong } });
      expect(await problemOf(answer)).toEqual([422, 'ERR_INLAY_REFUSED']);
    }
    expect((await putTargets(server, publisher, { targets: added.targets.targets })).status).toBe(200);
    const hash = sha256(manifest);
    const served = await server.get(`/v1/targets/models/digits/${added.seq}/${hash}.release.json`);
    expect([served.status, await served.text()]).toEqual([200, '{"v":1}']);
    expect((await status(server)).models['digits']).toHaveLength(4);
    expect(await problemOf(set(server, '5.0.0', 1))).toEqual([404, 'ERR_INLAY_NOT_FOUND']);
  });
});

describe('a database that was tampered with', () => {
  it('gets nothing signed, and what devices have stays what it was', async () => {
    const { server, publisher } = await startWithReleases();
    await expectOk(set(server, '2.0.0', 40));
    await server.close();
    const database = new Database(join(server.dataDir, 'inlay.db'));
    const row = database
      .prepare("SELECT version, text FROM metadata WHERE role = 'rollout' ORDER BY version DESC LIMIT 1")
      .get() as { version: number; text: string };
    const rewrite = (text: string): void => {
      database
        .prepare("UPDATE metadata SET text = ? WHERE role = 'rollout' AND version = ?")
        .run(text, row.version);
    };
    rewrite(row.text.replace('"bp":4000', '"bp":9000'));
    const options = { dataDir: server.dataDir, token: server.token, platform: server.platform };
    const tampered = await startTestServer(options);
    expect((await tampered.get('/v1/tip')).status).toBe(200);
    const was = await tipOf(tampered);
    for (const answer of [
      set(tampered, '2.0.0', 95),
      act(tampered, 'pause'),
      act(tampered, 'rollback'),
      withdraw(tampered, publisher, { digits: { revoked: [3] } }),
    ]) {
      expect(await problemOf(answer)).toEqual([500, 'ERR_INLAY_STORE_IO']);
    }
    server.platform.advanceHours(30);
    expect(await tipOf(tampered)).toEqual(was);
    await tampered.close();

    rewrite(row.text);
    const mended = await startTestServer(options);
    await expectOk(set(mended, '2.0.0', 50));
    expect((await verify(mended)).plans).toMatchObject([{ bp: 5000 }]);
    await publish(mended, publisher, '4.0.0');
    database.close();
  });

  it('that went back in time is brought forward to what was signed', async () => {
    const { server } = await startWithReleases();
    await expectOk(set(server, '2.0.0', 10));
    const late = await planOf(set(server, '2.0.0', 40));
    const before = await tipOf(server);
    await server.close();
    const database = new Database(join(server.dataDir, 'inlay.db'));
    for (const role of ['timestamp', 'snapshot', 'rollout']) {
      database
        .prepare(
          'DELETE FROM metadata WHERE role = ? AND version = (SELECT max(version) FROM metadata WHERE role = ?)',
        )
        .run(role, role);
    }
    database.close();
    const again = await startTestServer({
      dataDir: server.dataDir,
      token: server.token,
      platform: server.platform,
    });
    expect(await tipOf(again)).toEqual(before);
    expect((await verify(again)).plans).toEqual([late]);
    expect((await audit(again))[0]).toMatchObject({ actor: 'server', action: 'recover' });
  });
});

describe('a new online key', () => {
  it('is taken up by a root and targets that name it, and devices follow', async () => {
    const { server, publisher } = await startWithReleases();
    const plan = await planOf(set(server, '2.0.0', 40));
    const before = await tipOf(server);
    await server.close();
    await rm(join(server.dataDir, 'online-key.json'));
    const again = await startTestServer({
      dataDir: server.dataDir,
      token: server.token,
      platform: server.platform,
    });
    expect(again.onlineKey.keyid).not.toBe(server.onlineKey.keyid);
    expect(await tipOf(again)).toEqual(before);
    const root = rootOf(publisher, again.onlineKey, expiresIn(server.platform.now(), 365), 2);
    await expectOk(again.put('root', await signMetadata(root, [publisher.root])));
    await verify(again);
    const { keyid, key } = again.onlineKey;
    const delegations = {
      keys: { [keyid]: key },
      roles: [{ name: 'rollout', keyids: [keyid], threshold: 1, paths: ['rollout/*'], terminating: true }],
    };
    expect((await putTargets(again, publisher, { delegations })).status).toBe(200);
    expect((await verify(again)).plans).toEqual([plan]);
    expect(await planOf(set(again, '2.0.0', 60))).toMatchObject({ id: plan.id, bp: 6000 });
    await verify(again);
  });
});

describe('expiry', () => {
  it('is warned of 30 days ahead for the offline roles, a day ahead for the others', async () => {
    const warnings: string[] = [];
    const server = await startTestServer({ onWarning: (message) => warnings.push(message) });
    await install(server);
    const roles = async (): Promise<string[]> => (await status(server)).warnings.map(({ role }) => role);
    expect(await roles()).toEqual([]);
    expect((await status(server)).expiresInS).toMatchObject({ timestamp: 72 * 3600, targets: 180 * 86_400 });
    server.platform.advanceHours(49);
    expect(await roles()).toEqual(['timestamp']);
    await tipOf(server);
    expect(await roles()).toEqual([]);
    server.platform.advanceHours(24 * 149);
    await tipOf(server);
    expect(await roles()).toEqual(['targets']);
    server.platform.advanceHours(24 * 200);
    await server.get('/v1/tip');
    expect((await status(server)).warnings).toMatchObject([
      { role: 'root', leftS: expect.any(Number) as number },
      { role: 'targets', message: expect.stringMatching(/expired.*inlay keys renew/) as string },
    ]);
    await server.close();
    const again = await startTestServer({
      dataDir: server.dataDir,
      token: server.token,
      platform: server.platform,
      onWarning: (message) => warnings.push(message),
    });
    await again.close();
    expect(
      warnings.filter((message) => message.startsWith('The metadata of role targets expired')),
    ).toHaveLength(1);
  });
});
