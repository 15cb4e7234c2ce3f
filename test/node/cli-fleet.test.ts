import { randomBytes as random } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { createAlerts } from '../../src/server/alerts/alerts.ts';
import { openSqlite } from '../../src/server/db/sqlite.ts';
import { createDrift } from '../../src/server/drift/drift.ts';
import { newStage, takeLook, type LookInputs } from '../../src/server/guards/look.ts';
import { readProgramme } from '../../src/server/guards/read-programme.ts';
import { NO_COUNTS } from '../../src/stats/e-process.ts';
import { runCommand } from '../../src/cli/program.ts';
import type { RolloutEvidence, StagePower } from '../../src/server/api/answers.ts';
import {
  expectOk,
  install,
  publish,
  startTestServer,
  testPlatform,
  type TestServer,
} from './server-fixture.ts';

interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function inlay(server: TestServer, ...args: readonly string[]): Promise<Result> {
  const out: string[] = [];
  const err: string[] = [];
  const code = await runCommand(args, {
    print: (text) => out.push(text),
    printError: (text) => err.push(text),
    env: { INLAY_SERVER: server.url, INLAY_TOKEN: server.token },
    cwd: server.dataDir,
    interrupted: () => new Promise(() => undefined),
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

async function startFleet(): Promise<TestServer> {
  const server = await startTestServer({ platform: testPlatform(Date.now()) });
  const publisher = await install(server);
  for (const version of ['1.0.0', '1.1.0']) await publish(server, publisher, version);
  const body = JSON.stringify({ version: '1.0.0', percent: 100 });
  await expectOk(server.put('rollouts/stable/digits', body));
  return server;
}

/** Sends the report of one device over five minutes. */
async function report(server: TestServer, failed: number): Promise<void> {
  const now = server.platform.now();
  const sealed = {
    v: 1,
    app: 'stable',
    dev: random(12).toString('base64url'),
    epoch: random(8).toString('base64url'),
    seq: 0,
    sent: now,
    sdk: 'inlay/0.0.0',
    rt: 'node',
    cls: 3,
    consent: 'full',
    win: [
      {
        t: Math.floor(now / 300_000) * 300 - 600,
        d: 300,
        m: 'digits',
        ver: '1.0.0',
        n: 100,
        ok: 100 - failed,
        err: { run: failed },
        h: { lat: { s: 5, z: 0, sum: 2, min: 0.02, max: 0.02, b: [-181, 100] } },
      },
    ],
  };
  const body = JSON.stringify({ reports: [sealed] });
  const response = await fetch(`${server.url}/v1/reports`, { method: 'POST', body });
  expect(await response.json()).toMatchObject({ done: [{ seq: 0 }], refused: [] });
}

describe('inlay fleet', () => {
  it('counts devices, and hides cells with few of them', async () => {
    const server = await startFleet();
    expect((await inlay(server, 'fleet')).out).toContain('No device has reported yet');
    for (let i = 0; i < 5; i += 1) await report(server, 0);
    const few = await inlay(server, 'fleet', 'status', '--json');
    expect(JSON.parse(few.out)).toMatchObject({ devices: null, kAnonymity: 20, rows: [{ devices: null }] });
  });

  it('shows who runs what, calls over time, and failures by code', async () => {
    const server = await startFleet();
    await Promise.all(Array.from({ length: 25 }, () => report(server, 4)));
    const status = await inlay(server, 'fleet');
    expect(status.out).toMatch(/^25 devices reported within a day/);
    expect(status.out).toMatch(/digits +1\.0\.0 +- +- +25 +\d{4}-/);
    const series = await inlay(server, 'fleet', 'series', 'digits', '--last', '2h', '--step', '5m');
    expect(series.out).toMatch(/at \(UTC\) +of +calls +failed +p50 +p95 +p99 +cache/);
    expect(series.out).toMatch(/1\.0\.0 +2,500 +4 % +(19|20)\.\d ms/);
    const errors = await inlay(server, 'fleet', 'errors', 'digits');
    expect(errors.out).toMatch(/1\.0\.0 +run +100 +4 %/);
    const other = await inlay(server, 'fleet', 'errors', 'digits', '--version', '9.9.9');
    expect(other.out).toBe('No call failed.');
  });

  it('ends with 2 for a time that is none', async () => {
    const { code, err } = await inlay(await startTestServer(), 'fleet', 'series', 'digits', '--last', '0h');
    expect(code).toBe(2);
    expect(err).toContain('It is more than nothing.');
  });
});

describe('inlay alerts', () => {
  const rule = {
    id: 'failures',
    title: 'Calls fail',
    cond: { kind: 'threshold', signal: 'errorRate', windowS: 900 },
    levels: { warning: 0.01, critical: 0.5 },
    min: { devices: 1, n: 1 },
  };

  it('lists what fires, lets somebody take care of it, and silences it', async () => {
    const server = await startFleet();
    expect((await inlay(server, 'alerts')).out).toBe('Nothing fires.');
    await writeFile(join(server.dataDir, 'rule.json'), JSON.stringify(rule));
    const added = await inlay(server, 'alerts', 'rules', '--add', 'rule.json');
    expect(added.out).toMatch(/failures +on +Calls fail +warning, critical/);
    await Promise.all(Array.from({ length: 5 }, () => report(server, 4)));
    const db = await openSqlite(join(server.dataDir, 'inlay.db'));
    const { platform } = server;
    const drift = createDrift({ db, platform, catalog: { state: none }, blobs: { read: none } });
    const [look] = createAlerts({ db, platform, drift, env: {} }).jobs;
    await look?.run(platform.now(), new AbortController().signal, { assertHeld: () => Promise.resolve() });
    await db.destroy();

    const listed = await inlay(server, 'alerts');
    expect(listed.out).toMatch(/[0-9a-f]{12} +warning +firing +failures +/);
    const id = /^[0-9a-f]{12}/m.exec(listed.out)?.[0] ?? '';
    const acked = await inlay(server, 'alerts', 'ack', id);
    expect(acked.out).toBe('failures is yours: nobody is told again until it gets worse.');
    expect((await inlay(server, 'alerts')).out).toMatch(/acked by [0-9a-f]{8}/);
    const silenced = await inlay(server, 'alerts', 'silence', 'model=digits', '--for', '2h');
    expect(silenced.out).toMatch(/^Alerts with model=digits tell nobody until \d{4}-/);
    const { out } = await inlay(server, 'audit', '--json');
    const { records } = JSON.parse(out) as { records: { action: string }[] };
    expect(records.slice(0, 3).map(({ action }) => action)).toEqual(['silence', 'alert-ack', 'alert-rule']);
  });

  it('plays a rule on what has been', async () => {
    const server = await startFleet();
    await writeFile(join(server.dataDir, 'rule.json'), JSON.stringify(rule));
    const { code, out } = await inlay(server, 'alerts', 'test', 'rule.json', '--days', '1');
    expect(code).toBe(0);
    expect(out).toMatch(/^In the last 1 days it would have fired 0 times, in \d+ looks\./);
  });

  it.each([
    [['ack', 'xyz'], 2, 'It is 4 to 64 hex digits'],
    [['contacts', 'add', 'none.json'], 1, 'The contact none.json cannot be read as JSON'],
    [['contacts', 'remove', 'none'], 1, 'There is no contact "none"'],
    [['contacts', 'test', 'none'], 1, 'There is no contact "none"'],
    [['ack', '0000'], 1, 'No alert has an id that begins with 0000'],
    [['silence', 'digits', '--for', '1h'], 1, 'write it like model=digits'],
    [['rules', '--add', 'none.json'], 1, 'cannot be read as JSON'],
    [['rules', '--remove', 'none'], 1, 'There is no rule "none"'],
    [['test', 'none.json', '--days', '15'], 2, 'It is an integer from 1 to 14.'],
  ] as const)('ends with a reason for %j', async (args, code, words) => {
    const result = await inlay(await startTestServer(), 'alerts', ...args);
    expect(result.code).toBe(code);
    expect(result.err).toContain(words);
  });
});

describe('inlay alerts contacts', () => {
  it('adds contacts, lists and removes them, and shows no secret address', async () => {
    const server = await startTestServer();
    expect((await inlay(server, 'alerts', 'contacts')).out).toContain('Nobody is told of alerts.');
    const slack = { id: 'team', kind: 'slack', url: 'https://hooks.example/T1/secret', levels: ['critical'] };
    await writeFile(join(server.dataDir, 'contact.json'), JSON.stringify(slack));
    const added = await inlay(server, 'alerts', 'contacts', 'add', 'contact.json');
    expect(added.out).toContain('npx inlay alerts contacts test team');
    const listed = await inlay(server, 'alerts', 'contacts', 'list');
    expect(listed.out).toMatch(/team +slack +hooks\.example +critical +what no rule routes/);
    expect(listed.out).not.toContain('secret');
    const found = JSON.parse((await inlay(server, 'alerts', 'contacts', '--json')).out) as unknown;
    expect(found).toEqual([{ ...slack, isDefault: true }]);
    expect((await inlay(server, 'alerts', 'contacts', 'remove', 'team')).code).toBe(0);
    expect((await inlay(server, 'alerts', 'contacts', '--json')).out).toBe('[]');
  });

  it('tells whether a test was taken', async () => {
    const server = await startTestServer();
    let status = 404;
    const hook = createServer((_, response) => response.writeHead(status).end());
    await new Promise<void>((done) => hook.listen(0, '127.0.0.1', done));
    onTestFinished(() => void hook.close());
    const { port } = hook.address() as AddressInfo;
    const contact = { id: 'hook', kind: 'slack', url: `http://127.0.0.1:${port}/` };
    await writeFile(join(server.dataDir, 'hook.json'), JSON.stringify(contact));
    await inlay(server, 'alerts', 'contacts', 'add', 'hook.json');
    const late = await inlay(server, 'alerts', 'contacts', 'test', 'hook', '--wait', '0s');
    expect(late).toMatchObject({ code: 1, out: '' });
    expect(late.err).toContain('The test for hook still waits after 0 s');

    const db = await openSqlite(join(server.dataDir, 'inlay.db'));
    const { platform } = server;
    const drift = createDrift({ db, platform, catalog: { state: none }, blobs: { read: none } });
    const alerts = createAlerts({ db, platform, drift, env: {}, allowLoopback: true });
    const outbox = alerts.jobs.find(({ name }) => name === 'outbox');
    const deliver = (): Promise<void> | undefined =>
      outbox?.run(platform.now(), new AbortController().signal, { assertHeld: () => Promise.resolve() });
    /** Delivers until the command has ended. */
    const tested = async (...flags: readonly string[]): Promise<Result> => {
      let isDone = false;
      const asked = inlay(server, 'alerts', 'contacts', 'test', 'hook', ...flags).finally(() => {
        isDone = true;
      });
      while (!isDone) {
        await deliver();
        await setImmediate();
      }
      return asked;
    };
    const refused = await tested();
    expect(refused.code).toBe(1);
    expect(refused.err).toMatch(/hook has not taken the test: .*404/);
    status = 200;
    expect(await tested()).toMatchObject({ code: 0, out: 'hook has taken the test.' });
    expect(JSON.parse((await tested('--json')).out)).toMatchObject({ contact: 'hook', state: 'delivered' });
    await db.destroy();
  });
});

describe('/metrics', () => {
  it('needs a key, and has what was reported', async () => {
    const server = await startFleet();
    expect((await server.get('/metrics')).status).toBe(401);
    const headers = { Authorization: `Bearer ${server.token}` };
    const response = await server.get('/metrics', headers);
    expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(await response.text()).toContain('inlay_');
  });
});

describe('inlay server migrate', () => {
  it('copies everything into an empty database, and not beside a server that runs', async () => {
    const server = await startFleet();
    const args = ['server', 'migrate', '--data', '.', '--to', 'copy.db'];
    const early = await inlay(server, ...args);
    expect(early.code).toBe(1);
    expect(early.err).toContain('Another server uses the data directory');
    await server.close();
    const moved = await inlay(server, ...args);
    expect(moved).toMatchObject({ code: 0, err: '' });
    expect(moved.out).toMatch(/token +1\n/);
    expect(moved.out).toContain('All rows are there.');
    const again = await inlay(server, ...args);
    expect(again.code).toBe(1);
    expect(again.err).toContain('ERR_INLAY_CONFLICT');
  });
});

const none = (): never => {
  throw new Error('Nothing is read here.');
};

describe('inlay rollout plan', () => {
  it('says what each stage can detect before anyone starts it', async () => {
    const server = await startFleet();
    const args = ['rollout', 'plan', '--devices', '100000', '--stages', '1,10'];
    const { code, out } = await inlay(server, ...args);
    expect(code).toBe(0);
    expect(out).toMatch(/^1 %: 1,000 devices, 9,000 in control\nguard +bad before +worse by/);
    expect(out).toMatch(/10 %: 10,000 devices/);
    const stages = JSON.parse((await inlay(server, ...args, '--json')).out) as StagePower[];
    expect(stages.map(({ bp, treated }) => [bp, treated])).toEqual([
      [100, 1000],
      [1000, 10_000],
    ]);
  });
});

describe('inlay rollout start', () => {
  it('begins the first stage, shows its evidence, and goes on, pauses and ends by hand', async () => {
    const server = await startFleet();
    const started = await inlay(
      server,
      ...['rollout', 'start', 'digits', '1.1.0', '--stages', '1,10,100', '--soak', '1h', '--control', '5'],
    );
    expect(started).toMatchObject({ code: 0, err: '' });
    expect(started.out).toMatch(
      /^digits 1\.1\.0 begins on 1 % of channel stable\.\nStages: 1 %, 10 %, 100 %;/,
    );
    expect(started.out).toContain('npx inlay rollout watch digits');
    const watched = await inlay(server, 'rollout', 'watch', 'digits', '--once');
    expect(watched.out).toMatch(/^digits 1\.1\.0 in stable: running, stage 1 of 3, 1 % since/);
    expect(watched.out).toMatch(/^errors \* +open +0\.00 \/ 5\.48 +0\.00 \/ 3\.00 +0 of 0 +0 of 0 /m);
    expect(watched.out).toMatch(/^tripwire \* +clean +- +- +0 of 0 +0 of 0 /m);
    // The candidate is reported sooner than the control: at first their numbers say nothing.
    expect(watched.out).not.toContain('sample-ratio');
    const advanced = await inlay(server, 'rollout', 'advance', 'digits', '--reason', 'looks fine');
    expect(advanced.out).toBe('digits 1.1.0 goes on to 10 % of the devices.');
    expect((await inlay(server, 'rollout', 'pause', 'digits')).code).toBe(0);
    const paused = await inlay(server, 'rollout', 'watch', 'digits', '--json');
    expect(paused.code).toBe(4);
    expect(JSON.parse(paused.out)).toMatchObject({ status: 'held', plan: { state: 'paused', bp: 1000 } });
    const again = await inlay(server, 'rollout', 'start', 'digits', '1.1.0');
    expect(again.code).toBe(1);
    expect(again.err).toContain('ERR_INLAY_CONFLICT');
    expect((await inlay(server, 'rollout', 'rollback', 'digits', '--reason', 'enough')).code).toBe(0);
    const shown = await inlay(server, 'rollout', 'show', 'digits');
    expect(shown.out).toContain('enough (0 devices had it; 0 of 0 judged ones were worse off');
    expect(shown.out).toContain('advance by ');
    const { out } = await inlay(server, 'rollout', 'watch', 'digits', '--once', '--json');
    expect(JSON.parse(out) as RolloutEvidence).toMatchObject({
      status: 'ended',
      plan: { state: 'rolledback' },
    });
  });

  it('tells all its stages which devices take part, and how often they ask and report', async () => {
    const server = await startFleet();
    const started = await inlay(
      server,
      ...['rollout', 'start', 'digits', '1.1.0', '--stages', '1,10', '--json'],
      ...['--rules', '[{"os":["android"]}]', '--poll', '2m', '--report-every', '1m', '--lease', '1h'],
      ...['--trial', 'minInferences=5', '--net', 'unmetered', '--start', '2030-01-01T08:00:00Z'],
    );
    const said = {
      rules: [{ os: ['android'] }],
      pollS: 120,
      report: { everyS: 60 },
      leaseS: 3600,
      trial: { minInferences: 5 },
      net: { unmetered: true },
    };
    expect(JSON.parse(started.out)).toMatchObject({
      plan: { ...said, bp: 100, startAt: '2030-01-01T08:00:00Z' },
      programme: { startAt: Date.parse('2030-01-01T08:00:00Z') },
    });
    const advanced = await inlay(server, 'rollout', 'advance', 'digits', '--reason', 'now', '--json');
    expect(JSON.parse(advanced.out)).toMatchObject({ plan: { ...said, stage: 1, bp: 1000 } });
    const changed = ['rollout', 'set', 'digits', '1.1.0', '--percent', '10', '--report-every', '5m'];
    expect((await inlay(server, ...changed)).code).toBe(0);
    const { out } = await inlay(server, 'rollout', 'watch', 'digits', '--once', '--json');
    const plan = { ...said, stage: 1, bp: 1000, report: { everyS: 300 } };
    expect(JSON.parse(out)).toMatchObject({ status: 'running', stage: 1, plan });
  });

  it('takes a programme from a file', async () => {
    const server = await startFleet();
    const programme = { strategy: 'canary', stages: [{ bp: 500, soakS: 60, maxS: 600 }], onFail: 'hold' };
    await writeFile(join(server.dataDir, 'programme.json'), JSON.stringify(programme));
    const args = ['rollout', 'start', 'digits', '1.1.0', '--programme', 'programme.json', '--json'];
    const { out } = await inlay(server, ...args);
    expect(JSON.parse(out)).toMatchObject({ plan: { bp: 500 }, programme: { onFail: 'hold' } });
    const rules = [{ os: ['ios'] }];
    const rolling = { strategy: 'rolling', stages: [{ bp: 500, soakS: 60, maxS: 600, rules }] };
    await writeFile(join(server.dataDir, 'rolling.json'), JSON.stringify(rolling));
    const flags = ['--programme', 'rolling.json', '--rules', '[{"os":["android"]}]'];
    const { err } = await inlay(server, 'rollout', 'start', 'digits', '1.1.0', '--channel', 'beta', ...flags);
    expect(err).toContain('The stages of the programme have rules of their own');
  });

  it('begins at a time to come', async () => {
    const server = await startFleet();
    const args = ['--strategy', 'blue-green', '--start', '2100-01-01T08:00:00Z', '--json'];
    const { out } = await inlay(server, 'rollout', 'start', 'digits', '1.1.0', ...args);
    expect(JSON.parse(out)).toMatchObject({
      stageAt: Date.UTC(2100, 0, 1, 8),
      plan: { bp: 10_000, state: 'ramp', startAt: '2100-01-01T08:00:00Z' },
    });
  });

  it.each([
    [['start', 'digits', '1.1.0', '--stages', '1,x'], 2, 'It is a number from 0 to 100.'],
    [['start', 'digits', '1.1.0', '--strategy', 'hope'], 2, 'Allowed choices are'],
    [['start', 'digits', '1.1.0', '--arm', 'b'], 2, 'Write it like b=1.2.0:50.'],
    [['start', 'digits', '1.1.0', '--programme', 'none.json'], 1, 'cannot be read as JSON'],
    [['start', 'digits', '9.9.9'], 1, 'Model digits has no version 9.9.9'],
    [['start', 'digits', '1.1.0', '--stages', '10,1'], 1, 'is below that of the stage before'],
    [['start', 'digits', '1.1.0', '--report-every', '30s'], 1, 'a whole number from 60 to 604800'],
    [['start', 'digits', '1.1.0', '--rules', '[{"tv":["x"]}]'], 1, 'the unknown field "tv"'],
    [['verify', 'faces'], 1, 'Model faces has no rollout in channel stable'],
    [['watch', 'faces', '--once'], 1, 'Model faces has no rollout in channel stable'],
    [['advance', 'digits', '--reason', ' '], 2, 'Say why.'],
  ] as const)('ends with a reason for %j', async (args, code, words) => {
    const result = await inlay(await startFleet(), 'rollout', ...args);
    expect(result.code).toBe(code);
    expect(result.err).toContain(words);
  });
});

describe('inlay rollout verify', () => {
  it('computes the verdicts again, and finds those that do not follow', async () => {
    const server = await startFleet();
    const started = await inlay(server, 'rollout', 'start', 'digits', '1.1.0', '--json');
    const { plan } = JSON.parse(started.out) as RolloutEvidence;
    const early = await inlay(server, 'rollout', 'verify', 'digits');
    expect(early).toMatchObject({ code: 0, out: 'The guards have not looked at digits yet.' });

    const { look } = takeLook(newStage(), inputs());
    const db = await openSqlite(join(server.dataDir, 'inlay.db'));
    const row = { rollout: plan.id, stage: 0, look: 1, at: look.inputs.at, decision: look.decision.kind };
    await db
      .insertInto('guard_look')
      .values({ ...row, body: JSON.stringify(look) })
      .execute();
    const sound = await inlay(server, 'rollout', 'verify', 'digits');
    expect(sound.code).toBe(0);
    expect(sound.out).toMatch(/^1 +1 +-$/m);
    expect(sound.out).toContain('Every verdict follows from what was seen.');

    const forged = { ...look, decision: { ...look.decision, kind: 'pass' } };
    await db
      .updateTable('guard_look')
      .set({ body: JSON.stringify(forged) })
      .execute();
    await db.destroy();
    const broken = await inlay(server, 'rollout', 'verify', 'digits', '--json');
    expect(broken.code).toBe(1);
    expect(JSON.parse(broken.out)).toEqual([{ stage: 0, looks: 1, broken: [1] }]);
    expect(broken.err).toContain('do not follow from what was seen');
  });
});

function inputs(): LookInputs {
  const { strategy, stages, guard: options, inconclusive, soakOnly } = readProgramme({ strategy: 'canary' });
  const [limits = { bp: 100, soakS: 60, maxS: 600 }] = stages;
  const nobody = { treated: 0, control: 0 };
  return {
    at: 60_000,
    stageAt: 0,
    rules: { strategy, stage: 0, stages: stages.length, options, limits, inconclusive, soakOnly },
    judged: {},
    any: NO_COUNTS,
    devices: nobody,
    fatal: nobody,
    rejected: nobody,
    hasCalls: false,
  };
}
