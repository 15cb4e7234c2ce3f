import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { runCommand } from '../../src/cli/program.ts';
import type { AuditRecord } from '../../src/server/index.ts';
import type { SignedPlan } from '../../src/update/plan.ts';
import {
  install,
  publish,
  startTestServer,
  temporaryDirectory,
  testPlatform,
  tipOf,
  verify,
  type TestServer,
} from './server-fixture.ts';

interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function startForOperator(): Promise<{
  server: TestServer;
  cwd: string;
  run(...args: string[]): Promise<Result>;
}> {
  const server = await startTestServer({ platform: testPlatform(Date.now()) });
  const publisher = await install(server);
  for (const version of ['1.0.0', '2.0.0']) await publish(server, publisher, version);
  const cwd = await temporaryDirectory();
  const run = async (...args: string[]): Promise<Result> => {
    const out: string[] = [];
    const err: string[] = [];
    const code = await runCommand(args, {
      print: (text) => out.push(text),
      printError: (text) => err.push(text),
      env: { INLAY_SERVER: server.url, INLAY_TOKEN: server.token },
      cwd,
      interrupted: () => Promise.resolve(),
    });
    return { code, out: out.join('\n'), err: err.join('\n') };
  };
  await run('rollout', 'set', 'digits', '1.0.0', '--percent', '100');
  return { server, cwd, run };
}

describe('inlay rollout', () => {
  it('takes a version through all its states and says what comes next', async () => {
    const { server, run } = await startForOperator();
    const ok = async (...args: string[]): Promise<string> => {
      const { code, out, err } = await run('rollout', ...args);
      expect([code, err]).toEqual([0, '']);
      return out;
    };
    expect(await ok('set', 'digits', '2.0.0', '--percent', '5', '--over', '6h')).toContain(
      'runs on 5 % of channel stable, reached over 6h; the others run 1.0.0',
    );
    expect(await ok('list')).toMatch(/stable +digits +2\.0\.0 +ramp +5 % +1\.0\.0/);
    expect(await ok('pause', 'digits')).toMatch(/is paused.*\n\nNext:\n {2}npx inlay rollout resume digits/);
    expect(await ok('resume', 'digits')).toContain('goes on');
    expect(await ok('retry', 'digits')).toContain('tried again');
    expect(await ok('halt', 'digits', '--reason', 'It hears nothing.')).toContain('rollout rollback digits');
    const shown = await ok('show', 'digits');
    expect(shown).toMatch(/state +halted/);
    expect(shown).toContain('It hears nothing.');
    await ok('resume', 'digits');
    expect(await ok('promote', 'digits', '--now', '--reason', 'A hole in the old one.')).toContain(
      'is complete',
    );
    expect(await ok('rollback', 'digits')).toContain('devices go to 1.0.0');
    expect((await verify(server)).plans).toMatchObject([{ state: 'rolledback' }]);
    const { plan, records } = JSON.parse(await ok('show', 'digits', '--json')) as {
      plan: SignedPlan;
      records: AuditRecord[];
    };
    expect(plan.state).toBe('rolledback');
    expect(records[1]).toMatchObject({ action: 'promote', details: { reason: 'A hole in the old one.' } });
  });

  it('takes every option of a plan', async () => {
    const { server, cwd, run } = await startForOperator();
    await writeFile(join(cwd, 'rules.json'), '[{"os":["ios"]},{"app":">=3.2.0"}]');
    const { code, err } = await run(
      ...[
        'rollout',
        'set',
        'digits',
        '2.0.0',
        '--percent',
        '1',
        '--control',
        '45%',
        '--rules',
        '@rules.json',
      ],
      ...['--allow', 'install-1', '--allow', 'install-2', '--deny', 'install-3', '--bucket-by', 'site'],
      ...[
        '--trial',
        'minInferences=50,soakS=3600',
        '--net',
        'unmetered,idle',
        '--poll',
        '10m',
        '--lease',
        '1h',
      ],
    );
    expect([code, err]).toEqual([0, '']);
    expect((await verify(server)).plans).toMatchObject([
      {
        ctl: 4500,
        rules: [{ os: ['ios'] }, { app: '>=3.2.0' }],
        bucketBy: 'site',
        trial: { minInferences: 50, soakS: 3600 },
        net: { unmetered: true, idle: true },
        pollS: 600,
        leaseS: 3600,
      },
    ]);
    const { out } = await run('rollout', 'show', 'digits');
    expect(out).toMatch(/devices +2 allowed, 1 denied/);
    expect(out).toMatch(/trial +minInferences=50, soakS=3600/);
    expect(out).toMatch(/polls every +10m/);
  });

  it('says which rollout it ends, that it goes back, and what devices have no model', async () => {
    const { run } = await startForOperator();
    const set = (...args: string[]): Promise<Result> => run('rollout', 'set', 'digits', ...args);
    expect((await set('2.0.0', '--percent', '20')).out).not.toContain('It takes the place');
    expect((await set('1.0.0', '--percent', '100')).err).toContain(
      'digits 1.0.0 is what the other devices run; to go back to it, use `inlay rollout rollback digits`.',
    );
    const first = await set('2.0.0', '--percent', '20', '--channel', 'beta');
    expect(first.out).toContain('\nIt is the first release here: the other devices have no model,');
    await run('rollout', 'pause', 'digits', '--channel', 'beta');
    const beta = ['1.0.0', '--percent', '10', '--channel', 'beta'];
    const notices = [
      'It takes the place of 2.0.0, which was paused at 20 %.',
      'This goes back: 1.0.0 was published before 2.0.0.',
    ];
    expect((await set(...beta, '--dry-run')).out).toContain(`}\n\n${notices.join('\n')}\n\nNothing was`);
    const json = JSON.parse((await set(...beta, '--dry-run', '--json')).out) as object;
    expect(json).toMatchObject({ channel: 'beta', notices });
    expect((await set(...beta)).out).toContain(`.\n${notices.join('\n')}\n\nNext:`);
    expect((await run('rollout', 'show', 'digits', '--channel', 'beta', '--json')).out).not.toContain(
      'notices',
    );
  });

  it('shows a plan without signing it', async () => {
    const { server, run } = await startForOperator();
    const before = await tipOf(server);
    const { out } = await run('rollout', 'set', 'digits', '2.0.0', '--percent', '5', '--dry-run');
    expect(JSON.parse(out.slice(0, out.indexOf('\n\n')))).toMatchObject({ bp: 500, state: 'ramp' });
    expect(out).toContain('Nothing was signed');
    expect((await run('rollout', 'rollback', 'digits', '--dry-run')).out).toContain('"rolledback"');
    expect(await tipOf(server)).toEqual(before);
  });

  it.each([
    [2, ['promote', 'digits', '--now'], /--reason/],
    [2, ['promote', 'digits', '--reason', 'so'], /--now/],
    [2, ['promote', 'digits', '--now', '--reason', ' '], /Say why/],
    [2, ['set', 'digits', '2.0.0', '--percent', '5', '--over', '6'], /such as 6h/],
    [2, ['set', 'digits', '2.0.0', '--percent', '5', '--trial', 'x'], /minInferences=50/],
    [1, ['set', 'digits', '2.0.0', '--percent', '5', '--rules', '{'], /no JSON/],
    [
      1,
      ['set', 'digits', '2.0.0', '--percent', '5', '--rules', '@none.json'],
      /^error: The rules none\.json cannot be read; check the path\. \(ERR_INLAY_FEED_VALUE\)$/,
    ],
    [
      1,
      ['set', 'digits', '2.0.0', '--percent', '5', '--rules', '{"colour":["red"]}'],
      /option rules has the unknown field "colour"; known are os, arch, runtime,/,
    ],
    [
      1,
      ['set', 'digits', '2.0.0', '--percent', '5', '--rules', '{"app":"new"}'],
      /In the option rules, app is a range of versions such as ">=3\.2\.0 <4\.0\.0", not "new"\./,
    ],
    [
      1,
      ['set', 'digits', '2.0.0', '--percent', '5', '--trial', 'strikes=0'],
      /In the option trial, strikes is a whole number from 1 to 100, not 0\./,
    ],
    [
      2,
      ['set', 'digits', '2.0.0', '--percent', '5', '--trial', 'luck=1'],
      /Unknown field "luck"; known are minInferences, soakS,/,
    ],
    [
      2,
      ['set', 'digits', '2.0.0', '--percent', '5', '--net', 'sometimes'],
      /Unknown field "sometimes"; known are unmetered, charging, idle\./,
    ],
    [1, ['set', 'digits', '2.0.0', '--percent', '60', '--control', '45'], /use 40 % at most\./],
    [1, ['set', 'digits', '2.0.0', '--percent', '5', '--allow', 'mine'], /"mine" is no install identifier/],
    [1, ['halt', 'digits'], /is complete and takes no halt; roll it back/],
    [1, ['pause', 'nothing'], /has no rollout in this channel; start one/],
    [1, ['show', 'nothing'], /has no rollout in channel stable/],
  ])('ends with %i for %j', async (code, args, message) => {
    const { run } = await startForOperator();
    const result = await run('rollout', ...args);
    expect(result.code).toBe(code);
    expect(result.err).toMatch(message);
  });

  it('warns of what expires', async () => {
    const { server, run } = await startForOperator();
    server.platform.advanceHours(24 * 170);
    const { out } = await run('status');
    expect(out).toMatch(/targets +\S+ +9 days/);
    expect(out).toContain('Warning: The metadata of role targets expires');
  });
});
