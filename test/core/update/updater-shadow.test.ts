/** A release in the shadow, from the signed plan to the calls that it gets. */
import { describe, expect, it } from 'vitest';
import { BackendError } from '../../../src/core/errors.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import type { SignedPlan } from '../../../src/update/plan.ts';
import {
  createWorld,
  filesIn,
  gate,
  minute,
  startApp,
  until,
  version,
  type App,
  type AppOptions,
  type FakeFollower,
  type FollowerOptions,
  type World,
} from './updater-fixture.ts';

const [one, two] = [version(1), version(2)];
const answer = { y: new Tensor('float32', [1], Float32Array.of(1)) };
const everybody = { state: 'ramp', bp: 0, shadow: { bp: 10_000, sampleBp: 1000 } } as const;

interface Shadowed {
  readonly world: World;
  readonly app: App;
  readonly model: FakeFollower;
  change(plan: Partial<SignedPlan>): Promise<void>;
}

/** A device that has committed 1.0.0, and has 1.1.0 in the shadow. */
async function shadowed(options: AppOptions = {}, follower: FollowerOptions = {}): Promise<Shadowed> {
  const world = await createWorld();
  await world.ship('1.0.0', one);
  const app = startApp(world, options);
  const model = await app.follow(follower);
  await app.prove(model);
  const release = await world.repository.release('digits', '1.1.0', two);
  await world.repository.rollOut(release, 100);
  const change = async (next: Partial<SignedPlan>): Promise<void> => {
    await world.change(next);
    await app.update();
  };
  await change(everybody);
  return { world, app, model, change };
}

describe('a release in the shadow', () => {
  it('is brought, opened beside what answers, and gets the share of the calls that the plan says', async () => {
    const { app, model } = await shadowed();
    expect(model.mirrored()).toMatchObject({ target: { version: '1.1.0' }, sampleBp: 1000 });
    expect(model.version()).toBe('1.0.0');
    expect(model.openCount()).toBe(2);
    expect(await app.state()).toMatchObject({
      running: 'committed',
      trial: { phase: 'staged', release: { version: '1.1.0' } },
      decision: { kind: 'stay', reason: 'shadow' },
    });
    expect(await app.events()).not.toContain('activated 1.1.0');
    await app.client.close();
    expect(model.openCount()).toBe(1);
  });

  it('is never committed, however long it does well', async () => {
    const { app, model } = await shadowed();
    for (let call = 0; call < 100; call += 1) model.mirrored()?.target.watch.answered(1, answer);
    await app.pass(60 * minute);
    expect(await app.state()).toMatchObject({ trial: { phase: 'staged' }, running: 'committed' });
    await app.client.close();
  });

  it('answers without another download when the share comes to it', async () => {
    const { world, app, model, change } = await shadowed();
    const { requests } = world.server;
    const before = requests.length;
    await change({ state: 'complete', bp: 10_000, shadow: undefined });
    expect(model.version()).toBe('1.1.0');
    expect(model.mirrored()).toBeUndefined();
    expect(model.openCount()).toBe(1);
    const files = requests.slice(before).filter((request) => JSON.stringify(request).includes('/models/'));
    expect(files).toEqual([]);
    await app.client.close();
  });

  it.each([
    ['a pause, which keeps the file', { state: 'paused' }, true],
    ['a halt, which gives it up', { state: 'halted' }, false],
    ['a rollback', { state: 'rolledback' }, false],
    ['a shadow that is over', { shadow: undefined }, false],
    ['a share of no calls, which keeps the file', { shadow: { bp: 10_000, sampleBp: 0 } }, true],
  ] as const)('is closed by %s', async (_, plan, isKept) => {
    const { app, model, change } = await shadowed();
    await change(plan);
    expect(model.mirrored()).toBeUndefined();
    expect(model.openCount()).toBe(1);
    expect((await app.state()).trial !== undefined).toBe(isKept);
    expect(model.version()).toBe('1.0.0');
    await app.client.close();
  });

  it('that fails is rejected, closed, and not brought again; calls go on', async () => {
    const { app, model, change } = await shadowed();
    const { watch } = model.mirrored()?.target ?? {};
    for (let call = 0; call < 5; call += 1) {
      watch?.failed(new BackendError('ERR_INLAY_RUN_FAILED', 'It does not run.'));
      await app.pass(100);
    }
    expect(model.mirrored()).toBeUndefined();
    expect(model.openCount()).toBe(1);
    const state = await app.state();
    expect(state).toMatchObject({ running: 'committed', rejected: [{ version: '1.1.0', reason: 'errors' }] });
    expect(state.trial).toBeUndefined();
    expect(state.decision).toMatchObject({ reason: 'rejected' });
    await change({ shadow: { bp: 9999, sampleBp: 1000 } });
    expect(model.openCount()).toBe(1);
    await app.client.close();
  });

  it('that does not open is rejected as a trial is, and what answers is not touched', async () => {
    const { app, model } = await shadowed(
      {},
      {
        onOpen: ({ version: name }) => {
          if (name === '1.1.0') throw new BackendError('ERR_INLAY_RUN_FAILED', 'It does not open.');
        },
      },
    );
    expect(model.version()).toBe('1.0.0');
    expect(await app.state()).toMatchObject({ rejected: [{ version: '1.1.0', reason: 'open' }] });
    expect(model.openCount()).toBe(1);
    await app.client.close();
  });

  it('that fails where it can do no harm is not opened beside what answers', async () => {
    const opened: unknown[] = [];
    const { app } = await shadowed(
      {
        prove: async ({ version: name }) => {
          if (name === '1.1.0') throw new BackendError('ERR_INLAY_WORKER_LOST', 'It took its place along.');
        },
      },
      { onOpen: (target) => void opened.push(target.version) },
    );
    expect(opened).not.toContain('1.1.0');
    const { strikes, rejected } = await app.state();
    expect(Object.keys(strikes).length + rejected.length).toBe(1);
    await app.client.close();
  });

  it('is closed with its model, and comes again with the next one', async () => {
    const { app, model } = await shadowed();
    app.client.updater('digits').leave(model);
    await app.pass(0);
    expect(model.mirrored()).toBeUndefined();
    const next = await app.follow();
    await app.update();
    expect(next.mirrored()).toMatchObject({ target: { version: '1.1.0' } });
    await app.client.close();
  });

  it('that hangs at its opening keeps nobody from closing', async () => {
    const hanging = gate();
    const world = shadowed(
      {},
      { onOpen: ({ version: name }) => (name === '1.1.0' ? hanging.wait() : undefined) },
    );
    const { app } = await world;
    expect(hanging.asked()).toBe(true);
    await app.client.close();
    hanging.open();
  });

  it('leaves no file of what was given up', async () => {
    const { app, change } = await shadowed();
    await change({ state: 'rolledback' });
    expect((await app.state()).trial).toBeUndefined();
    expect((await filesIn(app.store)).length).toBeLessThanOrEqual(2);
    await app.client.close();
  });
});

it('that an app has wait for its next start does not begin while it runs, once the share has come to it', async () => {
  const policy = { activate: 'next-start' } as const;
  const { world, app } = await shadowed({ policy });
  await app.client.close();
  const second = startApp(world, { store: app.store, policy });
  const model = await second.follow();
  await second.update();
  expect(model.mirrored()).toMatchObject({ target: { version: '1.1.0' } });
  await world.change({ state: 'complete', bp: 10_000, shadow: undefined });
  await second.update();
  expect(model.mirrored()).toBeUndefined();
  expect(model.version()).toBe('1.0.0');
  await second.client.close();
  const third = startApp(world, { store: app.store, policy });
  const next = await third.follow();
  await until(() => next.version() === '1.1.0');
  await third.client.close();
});
