/** What a rollout plan has a device do, from the signed plan to the version that answers. */
import { describe, expect, it } from 'vitest';
import type { SignedPlan } from '../../../src/update/plan.ts';
import { unitHash } from '../../../src/update/unit.ts';
import { testPlatform } from '../platform.ts';
import {
  createWorld,
  hour,
  minute,
  startApp,
  until,
  version,
  type App,
  type AppOptions,
  type FakeFollower,
  type World,
} from './updater-fixture.ts';

const [one, two, three] = [version(1), version(2), version(3)];

interface Rolling {
  readonly world: World;
  readonly app: App;
  readonly model: FakeFollower;
  /** Changes the plan for 1.1.0, and has the device see that. */
  change(plan: Partial<SignedPlan>): Promise<void>;
}

/** A device that has committed 1.0.0, in a world in which 1.1.0 is rolled out as the test says. */
async function rolling(
  plan: (facts: { readonly salt: string; readonly id: string }) => Partial<SignedPlan>,
  options: AppOptions = {},
): Promise<Rolling> {
  const world = await createWorld();
  await world.ship('1.0.0', one);
  const app = startApp(world, options);
  const model = await app.follow();
  await app.prove(model);
  const release = await world.repository.release('digits', '1.1.0', two);
  await world.repository.rollOut(release, 100);
  const [{ salt } = { salt: '' }] = world.repository.plans['stable'] ?? [];
  const { installId = '' } = await app.client.state();
  const change = async (next: Partial<SignedPlan>): Promise<void> => {
    await world.change(next);
    await app.update();
  };
  await change(plan({ salt, id: installId }));
  return { world, app, model, change };
}

/** A share that hardly any device is in. */
const hardlyAny = { state: 'ramp', bp: 1 } as const;

describe('a device', () => {
  it.each<[string, Parameters<typeof rolling>[0], string, string, AppOptions?]>([
    [
      'in `allow` takes part whatever its bucket',
      ({ salt, id }) => ({ ...hardlyAny, allow: [unitHash(salt, id)] }),
      '1.1.0',
      'began',
    ],
    ['in `deny` does not', ({ salt, id }) => ({ deny: [unitHash(salt, id)] }), '1.0.0', 'denied'],
    [
      'in both does not',
      ({ salt, id }) => ({ allow: [unitHash(salt, id)], deny: [unitHash(salt, id)] }),
      '1.0.0',
      'denied',
    ],
    ['outside the share does not', () => hardlyAny, '1.0.0', 'not-in-bucket'],
    [
      'that meets one of the rules takes part',
      () => ({ rules: [{ app: '>=9.0.0' }, { app: '>=2.0.0 <3.0.0', runtime: ['test'] }] }),
      '1.1.0',
      'complete',
      { app: { version: '2.5.0' } },
    ],
    [
      'that meets none of the rules does not',
      () => ({ rules: [{ app: '>=3.0.0' }, { os: ['ios'] }] }),
      '1.0.0',
      'rules',
      { app: { version: '2.5.0' } },
    ],
    [
      'that does not say what a rule asks for does not',
      () => ({ rules: [{ app: '>=1.0.0' }] }),
      '1.0.0',
      'rules',
    ],
    [
      'that does not know a condition of a rule does not',
      () => ({ rules: [{ ...{ moon: ['full'] }, runtime: ['test'] }] }),
      '1.0.0',
      'rules',
    ],
    [
      'with the attribute that a rule asks for takes part',
      () => ({ rules: [{ attributes: { site: ['vienna', 'graz'] } }] }),
      '1.1.0',
      'complete',
      { app: { attributes: { site: 'graz' } } },
    ],
    [
      'without the attribute that places it in a bucket does not',
      () => ({ state: 'ramp', bp: 10_000, bucketBy: 'site' }),
      '1.0.0',
      'no-attribute',
    ],
    [
      'placed by an attribute takes part',
      () => ({ state: 'ramp', bp: 10_000, bucketBy: 'site' }),
      '1.1.0',
      'began',
      { app: { attributes: { site: 'graz' } } },
    ],
  ])('%s', async (_, plan, expected, reason, options) => {
    const { app, model } = await rolling(plan, options);
    expect(model.version()).toBe(expected);
    const { decision } = await app.state();
    expect(reason === 'began' ? ['began', 'in-bucket', 'allowed', 'complete'] : [reason, 'began']).toContain(
      decision?.reason,
    );
    await app.client.close();
  });

  it('that has begun stays in when the rule stops to hold, and leaves when it is denied', async () => {
    const { app, model, change, world } = await rolling(() => ({ rules: [{ runtime: ['test'] }] }));
    await app.prove(model);
    await change({ rules: [{ runtime: ['browser'] }] });
    expect(model.version()).toBe('1.1.0');
    const [{ salt } = { salt: '' }] = world.repository.plans['stable'] ?? [];
    const { installId = '' } = await app.client.state();
    await change({ deny: [unitHash(salt, installId)] });
    expect(model.answered).toEqual(['1.0.0', '1.1.0', '1.0.0']);
    await app.client.close();
  });
});

describe('a plan that breaks what its rollout promised', () => {
  it.each<[string, Partial<SignedPlan>]>([
    ['a share that falls', { bp: 5000 }],
    ['another salt', { salt: 'f'.repeat(16) }],
  ])('does not count: %s', async (_, broken) => {
    const { app, model, change } = await rolling(() => ({ state: 'ramp', bp: 10_000 }));
    await app.prove(model);
    await change(broken);
    expect(model.version()).toBe('1.1.0');
    expect((await app.state()).decision?.reason).toBe('plan-broken');
    await app.client.close();
  });
});

describe('a paused rollout', () => {
  it('begins with nobody, and goes on with those who began', async () => {
    const { app, model, change } = await rolling(() => ({ state: 'paused', bp: 10_000 }));
    expect(model.version()).toBe('1.0.0');
    await change({ state: 'ramp' });
    expect(model.version()).toBe('1.1.0');
    await change({ state: 'paused' });
    expect(model.version()).toBe('1.1.0');
    await app.prove(model);
    expect((await app.state()).committed?.release.version).toBe('1.1.0');
    await app.client.close();
  });
});

describe('a lease', () => {
  const leased = () => ({ leaseS: 3600 });
  const cut = ({ server }: World): void => {
    server.intercept = () => Promise.reject(new TypeError('fetch failed'));
  };

  it('that nobody renews ends a trial by the clock alone', async () => {
    const { app, model, world } = await rolling(leased);
    expect(model.version()).toBe('1.1.0');
    cut(world);
    await app.pass(59 * minute);
    expect(model.version()).toBe('1.1.0');
    await app.pass(2 * minute);
    expect(model.answered).toEqual(['1.0.0', '1.1.0', '1.0.0']);
    expect(await app.events()).toContain('offered lease-over');
    await app.client.close();
  });

  it('is renewed by every check, also by one that brings nothing', async () => {
    const { app, model } = await rolling(leased);
    for (let check = 0; check < 4; check += 1) {
      await app.pass(50 * minute);
      await app.update();
    }
    expect(model.answered).toEqual(['1.0.0', '1.1.0']);
    await app.client.close();
  });

  it('ends with the trial: what is committed stays', async () => {
    const { app, model, world } = await rolling(leased);
    await app.prove(model);
    cut(world);
    await app.pass(3 * hour);
    expect(model.version()).toBe('1.1.0');
    await app.client.close();
  });

  it('goes on over a start without network, and ends when it would have', async () => {
    const { app, world } = await rolling(leased);
    cut(world);
    await app.pass(30 * minute);
    await app.client.close();
    const next = startApp(world, { store: app.store, platform: app.platform });
    const model = await next.follow();
    await next.pass(1);
    expect(model.answered).toEqual(['1.1.0']);
    await next.pass(31 * minute);
    expect(model.answered).toEqual(['1.1.0', '1.0.0']);
    await next.client.close();
  });
});

describe('a plan that asks for polls', () => {
  const polls = ({ server }: World): number =>
    server.requests.splice(0).filter(({ path }) => path.startsWith('/v1/tip')).length;

  it('gets them as often as it asks, at once, until it does not ask any more', async () => {
    const { app, world, change } = await rolling(() => ({}), { pollMs: 24 * hour });
    const next = (): number => Math.max(...app.platform.timers());
    expect(next()).toBeGreaterThan(hour);
    await change({ pollS: 60 });
    expect(next()).toBeLessThanOrEqual(minute);
    polls(world);
    await app.pass(minute);
    for (let poll = 0; poll < 5; poll += 1) {
      await until(() => next() === minute);
      await app.pass(minute);
    }
    expect(polls(world)).toBe(6);
    await change({ pollS: 7200 });
    await app.pass(minute);
    await until(() => next() === 2 * hour);
    await app.client.close();
  });
});

describe('a download that is held', () => {
  /** A device whose line the test makes expensive. */
  function metered(world: World): { readonly options: AppOptions; isMetered: boolean } {
    const line = {
      isMetered: true,
      options: {
        platform: {
          ...testPlatform({ fetch: world.server.fetch }),
          conditions: () => ({ isMetered: line.isMetered }),
        },
      },
    };
    return line;
  }

  it.each(['the plan', 'the app'] as const)('by %s goes on when it may', async (who) => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const line = metered(world);
    line.isMetered = false;
    const app = startApp(world, {
      ...line.options,
      ...(who === 'the app' && { policy: { download: { unmetered: true } } }),
    });
    const model = await app.follow();
    await app.prove(model);
    line.isMetered = true;
    await world.ship('1.1.0', two, who === 'the plan' ? { net: { unmetered: true } } : {});
    await app.update();
    await app.pass(10 * minute);
    expect(model.version()).toBe('1.0.0');
    expect((await app.client.state()).transfers).toMatchObject([{ phase: 'held', heldBy: 'metered' }]);
    line.isMetered = false;
    await app.pass(minute);
    await until(() => model.version() === '1.1.0');
    expect((await app.client.state()).transfers).toEqual([]);
    await app.client.close();
  });

  it('makes way for what a newer plan wants', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const line = metered(world);
    const app = startApp(world, line.options);
    const model = await app.follow();
    await app.prove(model);
    await world.ship('1.1.0', two, { net: { unmetered: true } });
    await app.update();
    expect(model.version()).toBe('1.0.0');
    await world.ship('1.2.0', three);
    await app.update();
    expect(model.answered).toEqual(['1.0.0', '1.2.0']);
    expect((await app.client.state()).transfers).toEqual([]);
    await app.client.close();
  });

  it('waits no longer for a rollout that was taken back', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const line = metered(world);
    const app = startApp(world, line.options);
    const model = await app.follow();
    await app.prove(model);
    await world.ship('1.1.0', two, { net: { unmetered: true } });
    await app.update();
    await world.change({ state: 'rolledback' });
    await app.update();
    expect((await app.client.state()).transfers).toEqual([]);
    line.isMetered = false;
    await app.pass(hour);
    expect(model.answered).toEqual(['1.0.0']);
    await app.client.close();
  });
});

describe('a rejected release', () => {
  const refusing = {
    onOpen: ({ version: name }: { readonly version: string | undefined }) => {
      if (name === '1.1.0') throw new Error('It does not open.');
    },
  };

  it('is not downloaded or opened again before its time, and is when `retryNonce` says so', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const app = startApp(world);
    let mayOpen = false;
    let tries = 0;
    const model = await app.follow({
      onOpen: ({ version: name }) => {
        if (name !== '1.1.0') return;
        tries += 1;
        if (!mayOpen) throw new Error('It does not open.');
      },
    });
    await app.prove(model);
    await world.ship('1.1.0', two);
    await app.update();
    await app.update();
    await app.pass(23 * hour);
    expect([tries, model.version()]).toEqual([1, '1.0.0']);
    expect((await app.state()).decision).toMatchObject({ reason: 'rejected' });
    mayOpen = true;
    await world.change({ retryNonce: 1 });
    await app.update();
    expect([tries, model.version()]).toEqual([2, '1.1.0']);
    await app.client.close();
  });

  it('leaves a first start with the base', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    await world.ship('1.1.0', two, { state: 'ramp', bp: 10_000 });
    const app = startApp(world);
    const model = await app.follow(refusing);
    expect(model.answered).toEqual(['1.0.0']);
    expect((await app.state()).rejected).toMatchObject([{ version: '1.1.0', reason: 'open' }]);
    await app.client.close();
  });

  it('that is too large leaves a first start with the base', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    await world.ship('1.1.0', version(2, 400), { state: 'ramp', bp: 10_000 });
    const app = startApp(world, { maxModelBytes: 300 });
    expect((await app.follow()).answered).toEqual(['1.0.0']);
    expect((await app.state()).rejected).toMatchObject([{ version: '1.1.0', reason: 'too-large' }]);
    await app.client.close();
  });
});
