import { setImmediate } from 'node:timers/promises';
import type { Backend, LoadProgress, Model } from 'inlay';
import { bucketOf } from 'inlay/update';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { nodePlatform } from '../../src/platform-node.ts';
import {
  backends,
  blobsOf,
  codeOf,
  factorOf,
  failsAtRun,
  nextOf,
  scale,
  startDevice,
  startWorld,
  update,
  type World,
} from './follow-fixture.ts';
import { verify } from './server-fixture.ts';

describe('swaps under load', () => {
  it('fail no call, mix no versions and never go back', async () => {
    const world = await startWorld();
    await world.ship(1);
    const { inlay, load } = await startDevice(world);
    const model = await load();
    const last = 21;
    let isOver = false;
    const x = Float32Array.from({ length: 128 }, (_, i) => i + 1);
    const callers = Array.from({ length: 8 }, async () => {
      const seen: number[] = [];
      while (!isOver) {
        const { y } = await model.run({ x });
        const factors = new Set(Array.from(y?.data as Float32Array, (value, i) => value / (i + 1)));
        const [factor = NaN] = factors;
        if (factors.size !== 1) throw new Error(`One answer has the factors ${[...factors].join(', ')}.`);
        if (seen.at(-1) !== factor) seen.push(factor);
        // The server lives on this event loop too.
        await setImmediate();
      }
      return seen;
    });
    for (let version = 2; version <= last; version += 1) {
      await world.ship(version);
      expect(await update(inlay, model)).toBe(`swapped to ${version}`);
      expect(inlay.info().models).toMatchObject([{ version: String(version) }]);
    }
    isOver = true;
    for (const seen of await Promise.all(callers)) {
      expect(seen).toEqual([...new Set(seen)].sort((a, b) => a - b));
      expect(seen.length).toBeGreaterThan(last / 2);
    }
    expect(model.stats()).toMatchObject({ calls: { failed: 0 } });
    expect(await factorOf(model)).toBe(last);
  });

  it('happen between releases of equal bytes too, so that the version is the one that was rolled out', async () => {
    const world = await startWorld();
    await world.ship(1, scale(7));
    const { inlay, load } = await startDevice(world);
    const model = await load();
    await world.ship(2, scale(7));
    expect(await update(inlay, model)).toBe('swapped to 2');
    expect(await factorOf(model)).toBe(7);
  });

  it('keep no session of a version that no run needs', async () => {
    const world = await startWorld();
    await world.ship(1);
    const counted = countSessions();
    const { inlay, load } = await startDevice(world, { backends: [counted.backend] });
    const model = await load();
    for (const version of [2, 3, 4]) {
      await world.ship(version);
      await Promise.all([update(inlay, model), factorOf(model)]);
    }
    await vi.waitFor(() => expect(counted.open).toBe(1));
    await model.close();
    expect(counted.open).toBe(0);
  });
});

describe('loading by name', () => {
  it('downloads a release once, however many load it at once, and updates all of them', async () => {
    const world = await startWorld();
    await world.ship(1);
    const { inlay, load } = await startDevice(world);
    const models = await Promise.all([load(), load()]);
    const files = world.network.requests().filter((path) => path.startsWith('/v1/targets/'));
    expect(files).toHaveLength(1);
    await world.ship(2);
    const outcomes = models.map(nextOf);
    await inlay.checkForUpdates();
    expect(await Promise.all(outcomes)).toEqual(['swapped to 2', 'swapped to 2']);
    expect(await Promise.all(models.map(factorOf))).toEqual([2, 2]);
    expect(world.network.requests().filter((path) => path.startsWith('/v1/targets/'))).toHaveLength(1);
  });

  it('ends with the reason of its signal, and a later load works', async () => {
    const world = await startWorld();
    await world.ship(1);
    const { inlay, load } = await startDevice(world);
    const reason = new Error('The user left.');
    const load1 = (signal: AbortSignal): Promise<Model> => inlay.load({ name: 'digits' }, { signal });
    await expect(load1(AbortSignal.abort(reason))).rejects.toBe(reason);
    expect(world.network.requests()).toEqual([]);

    const held = holdFile(world);
    const controller = new AbortController();
    const aborted = load1(controller.signal);
    await held.asked;
    controller.abort(reason);
    await expect(aborted).rejects.toBe(reason);
    held.letGo();
    expect(await factorOf(await load())).toBe(1);
    await vi.waitFor(() => expect(inlay.info().models).toHaveLength(1));
  });

  it('says how far the download is', async () => {
    const world = await startWorld();
    await world.ship(1);
    const { inlay } = await startDevice(world);
    const heard: LoadProgress[] = [];
    await inlay.load({ name: 'digits' }, { onProgress: (progress) => heard.push(progress) });
    const { length: totalBytes } = scale(1);
    expect(heard.map(({ phase }) => phase).filter((phase, at, all) => phase !== all[at - 1])).toEqual([
      'download',
      'open',
      'warm-up',
    ]);
    expect(heard.filter(({ phase }) => phase === 'download').at(-1)).toEqual({
      phase: 'download',
      loadedBytes: totalBytes,
      totalBytes,
    });
  });

  it('refuses a release that is larger than this device takes, without a byte of it', async () => {
    const world = await startWorld();
    await world.ship(1);
    const { inlay } = await startDevice(world, { maxModelBytes: scale(1).length - 1 });
    const loading = inlay.load({ name: 'digits' });
    await expect(loading).rejects.toMatchObject({
      code: 'ERR_INLAY_MODEL_UNAVAILABLE',
      cause: { code: 'ERR_INLAY_MODEL_UNSUPPORTED' },
    });
    expect(world.network.requests().filter((path) => path.startsWith('/v1/targets/'))).toEqual([]);
  });

  it('ends when the Inlay is closed during the download, and leaves nothing behind', async () => {
    const world = await startWorld();
    await world.ship(1);
    const { inlay, load, directory } = await startDevice(world);
    const held = holdFile(world);
    const loading = codeOf(load());
    await held.asked;
    await inlay.close();
    expect(await loading).toBe('ERR_INLAY_CLOSED');
    expect(await blobsOf(directory)).toEqual([]);
    held.letGo();
    expect(await factorOf(await (await startDevice(world, { directory })).load())).toBe(1);
  });
});

describe('closing', () => {
  it.each(['the Inlay', 'the model'])(
    '%s during an update waits for no download and says nothing',
    async (what) => {
      const world = await startWorld();
      await world.ship(1);
      const { inlay, load, directory } = await startDevice(world);
      const model = await load();
      await world.ship(2);
      const held = holdFile(world);
      const outcomes: string[] = [];
      void nextOf(model).then((outcome) => outcomes.push(outcome));
      await inlay.checkForUpdates();
      await held.asked;
      const last = factorOf(model);
      await (what === 'the model' ? model : inlay).close();
      expect(await last).toBe(1);
      expect(await codeOf(factorOf(model))).toBe('ERR_INLAY_CLOSED');
      held.letGo();
      await inlay.close();
      expect(outcomes).toEqual([]);
      expect(await blobsOf(directory)).toHaveLength(1);
    },
  );

  it.each(['the Inlay', 'the model'])('%s during a swap frees both versions', async (what) => {
    const world = await startWorld();
    await world.ship(1);
    const counted = countSessions();
    const { inlay, load } = await startDevice(world, { backends: [counted.backend] });
    const model = await load();
    const outcomes: string[] = [];
    void nextOf(model).then((outcome) => outcomes.push(outcome));
    await world.ship(2);
    const held = counted.holdNext();
    await inlay.checkForUpdates();
    await held.asked;
    await (what === 'the model' ? model : inlay).close();
    held.letGo();
    await vi.waitFor(() => expect(counted).toMatchObject({ created: 2, open: 0 }));
    expect(outcomes).toEqual([]);
  });
});

describe('a listener that throws', () => {
  it('does not end the updates', async () => {
    const world = await startWorld();
    await world.ship(1);
    const { inlay, load } = await startDevice(world);
    const model = await load();
    const thrown = catchUnhandled();
    model.on('update-failed', () => {
      throw new Error('The listener of failures fails.');
    });
    model.on('swapped', () => {
      throw new Error('The listener of swaps fails.');
    });
    await world.ship(2, failsAtRun);
    expect(await update(inlay, model)).toBe('ERR_INLAY_RUN_FAILED');
    await world.ship(3);
    expect(await update(inlay, model)).toBe('swapped to 3');
    await world.ship(4);
    expect(await update(inlay, model)).toBe('swapped to 4');
    expect(await factorOf(model)).toBe(4);
    await vi.waitFor(() =>
      expect(thrown).toMatchObject([
        { message: 'The listener of failures fails.' },
        { message: 'The listener of swaps fails.' },
        { message: 'The listener of swaps fails.' },
      ]),
    );
  });
});

describe('a rollout to a share', () => {
  it('reaches that share, and a device that has the candidate keeps it while the share rises', async () => {
    const world = await startWorld();
    await world.ship(1);
    await world.ship(2, scale(2), 10);
    const platform = nodePlatform();
    const devices = Array.from({ length: 200 }, () => Buffer.from(platform.randomBytes(16)).toString('hex'));
    let before = new Set<string>();
    for (const percent of [10, 50, 100]) {
      await world.rollOut(2, percent);
      const [plan] = (await verify(world.server)).plans;
      if (!plan) throw new Error('The plan is missing.');
      const chosen = new Set(devices.filter((id) => bucketOf(plan.salt, id) < plan.bp));
      const share = percent / 100;
      const sigma = Math.sqrt(devices.length * share * (1 - share));
      expect(Math.abs(chosen.size - devices.length * share)).toBeLessThanOrEqual(4 * sigma);
      expect([...before].filter((id) => !chosen.has(id))).toEqual([]);
      before = chosen;
    }
  });

  it('leaves a device outside on the base, and takes it in when the share reaches it', async () => {
    const world = await startWorld();
    await world.ship(1);
    const { inlay, load } = await startDevice(world);
    const model = await load();
    await world.ship(2, scale(2), 0.01);
    const outcome = nextOf(model);
    for (const percent of [20, 40, 60, 80, 100]) {
      await world.rollOut(2, percent);
      await inlay.checkForUpdates();
    }
    expect(await outcome).toBe('swapped to 2');
    expect(await factorOf(model)).toBe(2);
  });
});

/** Holds the next model file back. */
function holdFile(world: World): Held {
  const held = hold();
  world.network.spoil = async (path) => {
    if (path.startsWith('/v1/targets/')) await held.pass();
  };
  return held;
}

/** The backend of the other tests, with its open sessions counted. */
function countSessions(): { backend: Backend; created: number; open: number; holdNext(): Held } {
  const [real] = backends;
  if (!real) throw new Error('The backend is missing.');
  let held: Held | undefined;
  const counted = {
    created: 0,
    open: 0,
    holdNext: () => (held = hold()),
    backend: {
      ...real,
      createSession: async (source, options) => {
        await held?.pass();
        const session = await real.createSession(source, options);
        counted.created += 1;
        counted.open += 1;
        return {
          ...session,
          release: async () => {
            await session.release();
            counted.open -= 1;
          },
        };
      },
      close: async () => {},
    } satisfies Backend,
  };
  return counted;
}

interface Held {
  /** Resolves when something waits. */
  readonly asked: Promise<void>;
  pass(): Promise<void>;
  letGo(): void;
}

function hold(): Held {
  let letGo = (): void => {};
  let ask = (): void => {};
  const free = new Promise<void>((resolve) => (letGo = resolve));
  const asked = new Promise<void>((resolve) => (ask = resolve));
  onTestFinished(() => letGo());
  return {
    asked,
    letGo,
    pass: () => {
      ask();
      return free;
    },
  };
}

/** Takes unhandled rejections away from the test runner until the test ends. */
function catchUnhandled(): readonly unknown[] {
  const reasons: unknown[] = [];
  const others = process.listeners('unhandledRejection');
  const listener = (reason: unknown): void => void reasons.push(reason);
  process.removeAllListeners('unhandledRejection').on('unhandledRejection', listener);
  onTestFinished(() => {
    process.removeListener('unhandledRejection', listener);
    for (const other of others) process.on('unhandledRejection', other);
  });
  return reasons;
}
