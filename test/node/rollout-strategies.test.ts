/** Strategies as people ask for them: on the command line, and of the server. */
import { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { toRolloutBody, withRolloutOptions, type RolloutFlags } from '../../src/cli/rollout-options.ts';
import type { SignedPlan } from '../../src/update/plan.ts';
import { expectOk, install, publish, startTestServer, type TestServer } from './server-fixture.ts';

const set = (server: TestServer, version: string, percent: number, options: object = {}): Promise<Response> =>
  server.put('rollouts/stable/digits', JSON.stringify({ version, percent, ...options }));

async function startWithReleases(): Promise<TestServer> {
  const server = await startTestServer();
  const publisher = await install(server);
  for (const version of ['1.0.0', '2.0.0', '3.0.0']) await publish(server, publisher, version);
  await expectOk(set(server, '1.0.0', 100));
  return server;
}

const bodyOf = (...args: string[]): object => {
  const command = withRolloutOptions(new Command())
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
  return toRolloutBody(command.parse(args, { from: 'user' }).opts<RolloutFlags>(), '.');
};

describe('the command line', () => {
  it('reads what strategies need', () => {
    expect(
      bodyOf(
        ...['--arms', 'a=1.2.0:50, b=1.3.0-rc.1:12.5%', '--shadow', '20', '--shadow-sample', '5'],
        ...['--pin', '--report-every', '15m', '--start', '2030-01-01T08:00:00Z'],
      ),
    ).toEqual({
      arms: [
        { name: 'a', version: '1.2.0', weightBp: 5000 },
        { name: 'b', version: '1.3.0-rc.1', weightBp: 1250 },
      ],
      shadow: 20,
      shadowSample: 5,
      pinned: true,
      reportS: 900,
      startAt: Date.UTC(2030, 0, 1, 8),
    });
    expect(bodyOf('--unpin')).toEqual({ pinned: false });
    expect(bodyOf()).toEqual({});
  });

  it.each([
    ['an arm without a share', ['--arms', 'a=1.2.0']],
    ['an arm without a version', ['--arms', 'a:50']],
    ['an arm with a share of more than all', ['--arms', 'a=1.2.0:101']],
    ['a shadow of more than all', ['--shadow', '101']],
    ['a begin in another zone', ['--start', '2030-01-01T08:00:00+01:00']],
    ['a begin on no day', ['--start', '2030-13-01T08:00:00Z']],
    ['a pin and none', ['--pin', '--unpin']],
  ])('refuses %s', (_, args) => {
    expect(() => bodyOf(...args)).toThrow();
  });
});

describe('the server', () => {
  it('signs arms by their versions, a shadow, a stage and a pin', async () => {
    const server = await startWithReleases();
    const arms = [{ name: 'a', version: '3.0.0', weightBp: 4000 }];
    const plan = (await expectOk(
      set(server, '2.0.0', 10, { arms, shadow: 50, stage: 2, pinned: true, reportS: 600 }),
    )) as SignedPlan;
    expect(plan).toMatchObject({
      stage: 2,
      pinned: true,
      arms: [{ name: 'a', entry: { version: '3.0.0', seq: 3 }, ranges: [[0, 400]] }],
      shadow: { bp: 5000, sampleBp: 1000 },
      report: { everyS: 600 },
    });
    expect(Object.keys(plan.arms?.[0] ?? {})).toEqual(['name', 'entry', 'ranges']);
    const answer = await set(server, '3.0.0', 5);
    expect([answer.status, await answer.json()]).toEqual([
      409,
      { code: 'ERR_INLAY_CONFLICT', message: expect.stringContaining('is pinned to 2.0.0') as unknown },
    ]);
    await expectOk(set(server, '2.0.0', 100, { pinned: false }));
    await expectOk(set(server, '3.0.0', 5));
  });

  it('refuses what cannot be, says so, and changes nothing', async () => {
    const server = await startWithReleases();
    const wrong: readonly (readonly [what: string, options: object, words: RegExp])[] = [
      ['arms that are none', { arms: 'a' }, /The option arms is a list of arms/],
      ['an arm that is none', { arms: [1] }, /Each of the arms is an object/],
      [
        'an arm without a weight',
        { arms: [{ name: 'a', version: '3.0.0' }] },
        /Each of the arms needs weightBp/,
      ],
      [
        'an arm with half a weight',
        { arms: [{ name: 'a', version: '3.0.0', weightBp: 0.5 }] },
        /weightBp is a whole number from 0 to 10000/,
      ],
      [
        'an arm with an entry of its own',
        { arms: [{ name: 'a', version: '3.0.0', weightBp: 1, entry: {} }] },
        /unknown field "entry"/,
      ],
      [
        'an arm that nobody published',
        { arms: [{ name: 'a', version: '9.0.0', weightBp: 1 }] },
        /no version 9\.0\.0/,
      ],
      [
        'an arm on the base',
        { arms: [{ name: 'a', version: '1.0.0', weightBp: 1 }] },
        /measured as the control/,
      ],
      ['a shadow below the share', { shadow: 5 }, /not above the share of 10 %/],
      ['a stage of half', { stage: 0.5 }, /The option stage is a whole number/],
      ['a pin that is neither', { pinned: 1 }, /The option pinned is true or false/],
      ['reports each second', { reportS: 1 }, /The option reportS is a whole number from 60/],
      ['a begin before time began', { startAt: -1 }, /The option startAt is a whole number/],
    ];
    for (const [what, options, words] of wrong) {
      const answer = await set(server, '2.0.0', 10, options);
      const { message } = (await answer.json()) as { message: string };
      expect([what, message]).toEqual([what, expect.stringMatching(words)]);
      expect([404, 409, 422]).toContain(answer.status);
    }
    const { plan } = (await expectOk(server.admin('rollouts/stable/digits'))) as { plan: SignedPlan };
    expect(plan).toMatchObject({ state: 'complete', cand: { version: '1.0.0' } });
  });
});
