/** Ends in the middle of something, and stores that fail: no hang, nothing unhandled, and the next start works. */
import { describe, expect, it } from 'vitest';
import { StoreError } from '../../../src/core/errors.ts';
import type { Store } from '../../../src/core/store.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { codeOf } from '../engine/device.ts';
import {
  createWorld,
  fakeFollower,
  gate,
  minute,
  settle,
  startApp,
  until,
  version,
} from './updater-fixture.ts';

const [one, two, three] = [version(1), version(2), version(3)];

describe('closing', () => {
  it.each(['the first poll', 'the first download', 'the first proof', 'the first opening'])(
    'during %s ends the load with ERR_INLAY_CLOSED, and leaves nothing behind',
    async (where) => {
      const world = await createWorld();
      await world.ship('1.0.0', one);
      const held = gate();
      world.server.intercept = async (path) => {
        if (where === 'the first poll' && path.startsWith('/v1/tip')) await held.wait();
        if (where === 'the first download' && path.startsWith('/v1/targets/')) await held.wait();
        return undefined;
      };
      const app = startApp(world, {
        prove: async () => {
          if (where === 'the first proof') await held.wait();
        },
      });
      const follower = fakeFollower({
        onOpen: async () => {
          if (where === 'the first opening') await held.wait();
        },
      });
      const joining = codeOf(app.client.updater('digits').join(follower, undefined, undefined));
      await until(held.asked);
      await app.client.close();
      expect(await joining).toBe('ERR_INLAY_CLOSED');
      expect(app.platform.timers()).toEqual([]);
      held.open();
      await settle();
      expect([follower.openCount(), follower.answered]).toEqual([0, []]);
      const next = startApp(world, { store: app.store });
      expect((await next.follow()).answered).toEqual(['1.0.0']);
      const { rejected, strikes } = await next.state();
      expect([rejected, strikes]).toEqual([[], {}]);
      await next.client.close();
    },
  );

  it.each(['a poll', 'a download', 'a proof', 'an opening', 'the wait for a quiet moment'])(
    'during %s of an update waits for nothing, and the next start goes on',
    async (where) => {
      const world = await createWorld();
      await world.ship('1.0.0', one);
      const held = gate();
      let isHolding = false;
      const hold = async (what: string): Promise<void> => {
        if (isHolding && what === where) await held.wait();
      };
      world.server.intercept = async (path) => {
        await hold(path.startsWith('/v1/tip') ? 'a poll' : 'a download');
        return undefined;
      };
      const app = startApp(world, {
        prove: () => hold('a proof'),
        policy: { activate: where === 'the wait for a quiet moment' ? 'idle' : 'now' },
      });
      const model = await app.follow({ onOpen: () => hold('an opening') });
      await app.prove(model);
      await world.ship('1.1.0', two);
      isHolding = true;
      model.isIdleFor = 0;
      const checking = app.client.check().catch(() => {});
      if (where === 'the wait for a quiet moment') {
        await checking;
        await settle();
        expect((await app.state()).trial?.phase).toBe('staged');
      } else await until(held.asked);
      await app.client.close();
      await checking;
      expect(app.platform.timers()).toEqual([]);
      held.open();
      await settle();
      expect([model.answered, model.openCount(), model.errors]).toEqual([['1.0.0'], 1, []]);
      const next = startApp(world, { store: app.store });
      const after = await next.follow();
      await next.update();
      await until(() => after.version() === '1.1.0');
      const { rejected, strikes, markers } = await next.state();
      expect([rejected, strikes, markers.length]).toEqual([[], {}, 1]);
      await next.client.close();
    },
  );

  it('twice is closing once, and what comes after it fails', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const app = startApp(world);
    await app.follow();
    await Promise.all([app.client.close(), app.client.close()]);
    expect(await codeOf(app.client.check())).toBe('ERR_INLAY_CLOSED');
    expect(await codeOf(app.follow())).toBe('ERR_INLAY_CLOSED');
  });
});

describe('leaving', () => {
  it('while the first answer of an update is written down leaves nothing that runs', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const real = createMemoryStore();
    const held = gate();
    let isHeld = false;
    const store: Store = {
      ...real,
      updateRecord: async (...args) => {
        if (isHeld) await held.wait();
        return real.updateRecord(...args);
      },
    };
    const app = startApp(world, { store });
    const model = await app.follow({
      onOpen: ({ version: name }) => {
        isHeld = name === '1.1.0';
      },
    });
    await app.prove(model);
    await world.ship('1.1.0', two);
    await app.client.check();
    await until(held.asked);
    app.client.updater('digits').leave(model);
    isHeld = false;
    held.open();
    await settle();
    expect([model.openCount(), model.answered]).toEqual([1, ['1.0.0']]);
    const left = await app.state();
    expect([left.running, left.rejected, left.strikes, left.markers]).toEqual([undefined, [], {}, []]);
    expect((await app.follow()).answered).toEqual(['1.1.0']);
    await app.client.close();
    expect(app.platform.timers()).toEqual([]);
  });
});

describe('a store that fails in the middle', () => {
  /** A store whose writes fail while the test says so. */
  function fragile(): {
    readonly store: Store;
    fault: 'ERR_INLAY_STORE_FULL' | 'ERR_INLAY_STORE_READ_ONLY' | undefined;
  } {
    const real = createMemoryStore();
    const check = (): void => {
      if (state.fault !== undefined) throw new StoreError(state.fault, 'The write failed.');
    };
    const state: ReturnType<typeof fragile> = {
      fault: undefined,
      store: {
        ...real,
        putBlob: async (...args) => {
          check();
          return real.putBlob(...args);
        },
        openPartial: async (...args) => {
          check();
          return real.openPartial(...args);
        },
        updateRecord: async (...args) => {
          check();
          return real.updateRecord(...args);
        },
        deleteBlob: async (...args) => {
          check();
          return real.deleteBlob(...args);
        },
        pin: async (...args) => {
          check();
          return real.pin(...args);
        },
      },
    };
    return state;
  }

  it.each(['ERR_INLAY_STORE_FULL', 'ERR_INLAY_STORE_READ_ONLY'] as const)(
    'does not stop the model, and updates go on when it works again: %s',
    async (code) => {
      const world = await createWorld();
      await world.ship('1.0.0', one);
      const disk = fragile();
      const app = startApp(world, { store: disk.store });
      const model = await app.follow();
      await app.prove(model);
      disk.fault = code;
      await world.ship('1.1.0', two);
      // What was verified counts; there is no room to bring it.
      expect(await codeOf(app.client.check())).toBe('fulfilled');
      await settle();
      expect([model.version(), model.openCount()]).toEqual(['1.0.0', 1]);
      disk.fault = undefined;
      await app.update();
      expect(model.version()).toBe('1.1.0');
      await app.prove(model);
      expect((await app.state()).committed?.release.version).toBe('1.1.0');
      await app.client.close();
    },
  );

  it.each(['staged', 'active'] as const)(
    'while a release is %s lets the trial come to its end, and makes up for it',
    async (phase) => {
      const world = await createWorld();
      await world.ship('1.0.0', one);
      const disk = fragile();
      const app = startApp(world, { store: disk.store, policy: { activate: 'manual' } });
      const model = await app.follow();
      await app.prove(model);
      await world.ship('1.1.0', two);
      await app.update();
      const updater = app.client.updater('digits');
      if (phase === 'active') await updater.activate();
      disk.fault = 'ERR_INLAY_STORE_READ_ONLY';
      if (phase === 'staged') expect(await updater.activate()).toBe(true);
      await app.prove(model);
      expect(await app.state()).toMatchObject({
        running: 'committed',
        committed: { release: { version: '1.1.0' } },
      });
      expect(await app.events()).toContain('record-unwritable');
      disk.fault = undefined;
      await app.update();
      await app.client.close();
      const next = startApp(world, { store: disk.store });
      expect((await next.follow()).answered).toEqual(['1.1.0']);
      expect((await next.state()).running).toBe('committed');
      await next.client.close();
    },
  );

  it('does not keep a device from going back', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const disk = fragile();
    const app = startApp(world, { store: disk.store });
    const model = await app.follow();
    await app.prove(model);
    await world.ship('1.1.0', two);
    await app.update();
    disk.fault = 'ERR_INLAY_STORE_FULL';
    model.call(20, {});
    await app.pass(minute);
    expect(model.answered).toEqual(['1.0.0', '1.1.0', '1.0.0']);
    disk.fault = undefined;
    await app.update();
    expect(model.version()).toBe('1.0.0');
    expect((await app.state()).rejected).toMatchObject([{ version: '1.1.0', reason: 'invalid-outputs' }]);
    await world.ship('1.2.0', three);
    await app.update();
    expect(model.version()).toBe('1.2.0');
    await app.client.close();
  });

  it('does not keep what is there from starting', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', one);
    const disk = fragile();
    const app = startApp(world, { store: disk.store });
    await app.follow();
    await app.client.close();
    disk.fault = 'ERR_INLAY_STORE_READ_ONLY';
    const next = startApp(world, { store: disk.store });
    expect((await next.follow()).answered).toEqual(['1.0.0']);
    await next.client.close();
  });
});
