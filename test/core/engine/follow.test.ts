import { describe, expect, it } from 'vitest';
import { toUtf8 } from '../../../src/core/bytes.ts';
import { sha256Hex } from '../../../src/trust/keys.ts';
import { decodeSlots, encodeSlots, slotsRecord } from '../../../src/update/slots-record.ts';
import type { EmbeddedFacts } from '../../../src/engine/reference.ts';
import {
  answerOf,
  callOften,
  codeOf,
  createWorld,
  made,
  startDevice,
  type Device,
  type World,
} from './device.ts';

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

/** Lets a trial see enough calls and enough time. */
async function proveItself(device: Device, model: Awaited<ReturnType<Device['load']>>): Promise<void> {
  await callOften(model);
  await device.pass(2 * minute);
}

/** Who keeps the slots of a device: the channel `stable` of the server of the tests. */
function ownerOf({ platform }: Device): string {
  return `sync-stable-${sha256Hex(platform, toUtf8('https://sync.test')).slice(0, 16)}`;
}

/** What `inlay embed` would write about a first release of these bytes. */
async function embeddedFacts(world: World, bytes: Uint8Array): Promise<EmbeddedFacts> {
  const { model: _, ...release } = await world.repository.release('digits', '0.9.0', bytes);
  return { release, file: { sha256: release.sha256, length: release.length } };
}

describe('a release', () => {
  it('answers at once, and is committed when it has proved itself', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const device = startDevice(world);
    const model = await device.load();
    expect(await answerOf(model)).toEqual(['1.0.0', 2]);
    expect(await device.slots()).toMatchObject({ trial: { release: { version: '1.0.0' }, phase: 'active' } });
    await proveItself(device, model);
    const { trial, committed } = await device.slots();
    expect([trial, committed?.release.version]).toEqual([undefined, '1.0.0']);
    await device.inlay.close();
  });

  it('that follows takes its place between two calls, and the one before is kept', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const device = startDevice(world);
    const model = await device.load();
    await proveItself(device, model);
    await world.ship('1.1.0', made(3));
    await device.update();
    expect(await answerOf(model)).toEqual(['1.1.0', 3]);
    await proveItself(device, model);
    expect(await device.slots()).toMatchObject({
      committed: { release: { version: '1.1.0' } },
      previous: { release: { version: '1.0.0' } },
      running: 'committed',
    });
    expect((await device.events()).filter((type) => type === 'trial-passed')).toHaveLength(2);
    await device.inlay.close();
  });

  it('starts again without any network, on trial or committed', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const first = startDevice(world);
    await first.load();
    await first.inlay.close();
    world.server.intercept = () => Promise.reject(new TypeError('fetch failed'));
    const second = startDevice(world, first);
    const model = await second.load();
    expect(await answerOf(model)).toEqual(['1.0.0', 2]);
    await proveItself(second, model);
    await second.inlay.close();
    const third = startDevice(world, first);
    expect(await answerOf(await third.load())).toEqual(['1.0.0', 2]);
    expect((await third.slots()).committed?.release.version).toBe('1.0.0');
    await third.inlay.close();
  });
});

describe('a release that does not work', () => {
  it.each([
    ['refusesToOpen', 'open'],
    ['hangsAtOpen', 'hang'],
    ['givesNaN', 'invalid-outputs'],
    ['fails', 'errors'],
    ['isSlow', 'latency'],
  ] as const)('ends on the last good version: %s', async (deed, reason) => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const device = startDevice(world);
    const model = await device.load();
    await callOften(model, 40);
    await device.pass(2 * minute);
    await callOften(model, 100);
    await world.ship('1.1.0', made(3, deed));
    await device.update();
    for (let round = 0; round < 6; round += 1) {
      await callOften(model, 120);
      await device.pass(12_000);
    }
    expect(await answerOf(model)).toEqual(['1.0.0', 2]);
    const { rejected, committed, trial } = await device.slots();
    expect(rejected).toMatchObject([{ version: '1.1.0', reason }]);
    expect([committed?.release.version, trial]).toEqual(['1.0.0', undefined]);
    expect(await device.events()).toContain(`rejected ${reason}`);
    // Not before its time.
    await device.pass(hour);
    await device.update();
    expect(model.version).toBe('1.0.0');
    await device.inlay.close();
  });

  it('is tried again after a day', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const device = startDevice(world);
    const model = await device.load();
    await proveItself(device, model);
    await world.ship('1.1.0', made(3, 'refusesToOpen'));
    await device.update();
    const opens = async (): Promise<number> =>
      (await device.events()).filter((type) => type === 'load-started').length;
    const before = await opens();
    await world.repository.signAll();
    await device.pass(day + minute);
    await world.repository.signAll();
    await device.update();
    expect(await opens()).toBeGreaterThan(before);
    await device.inlay.close();
  });

  it('leaves nothing behind where there was nothing before, and says why', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2, 'refusesToOpen'));
    const device = startDevice(world);
    expect(await codeOf(device.load())).toBe('ERR_INLAY_MODEL_UNAVAILABLE');
    const next = startDevice(world, { store: device.store });
    await expect(next.load()).rejects.toThrow(
      /version 1\.0\.0 did not work on this device \(open: .*2030-01-02/,
    );
    await next.inlay.close();
    await world.ship('1.0.1', made(5));
    expect(await answerOf(await device.load())).toEqual(['1.0.1', 5]);
    await device.inlay.close();
  });

  it('and kills the process twice is not started with again', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const first = startDevice(world, { run: 'a' });
    const model = await first.load();
    await proveItself(first, model);
    await first.inlay.close();
    await world.ship('1.1.0', made(3, 'hangsAtOpen'));
    // It dies while it opens the release: nothing more of it is heard.
    for (const run of ['b', 'c']) {
      const dying = startDevice(world, { ...first, run });
      await dying.load();
      void dying.inlay.checkForUpdates();
      await dying.pass(10);
    }
    const last = startDevice(world, { ...first, run: 'd' });
    const after = await last.load();
    await last.update();
    expect(after.version).toBe('1.0.0');
    expect((await last.slots()).rejected).toMatchObject([{ version: '1.1.0', reason: 'crash' }]);
    await last.inlay.close();
  });
});

describe('a rollout', () => {
  it('that is taken back takes its release from every device', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const device = startDevice(world);
    const model = await device.load();
    await proveItself(device, model);
    await world.ship('1.1.0', made(3));
    await device.update();
    await proveItself(device, model);
    expect(model.version).toBe('1.1.0');
    await world.change({ state: 'rolledback' });
    await device.update();
    expect(await answerOf(model)).toEqual(['1.0.0', 2]);
    expect(await device.events()).toContain('rolled-back');
    await device.inlay.close();
  });

  it('that is halted takes its release from devices on trial only', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const [onTrial, committed] = [startDevice(world), startDevice(world)];
    const models = [await onTrial.load(), await committed.load()] as const;
    await proveItself(onTrial, models[0]);
    await proveItself(committed, models[1]);
    await world.ship('1.1.0', made(3));
    await onTrial.update();
    await committed.update();
    await proveItself(committed, models[1]);
    await world.change({ state: 'halted' });
    await onTrial.update();
    await committed.update();
    expect(models.map(({ version }) => version)).toEqual(['1.0.0', '1.1.0']);
    await onTrial.inlay.close();
    await committed.inlay.close();
  });

  it('begins nothing on expired metadata, and inference goes on', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const device = startDevice(world);
    const model = await device.load();
    await proveItself(device, model);
    await world.ship('1.1.0', made(3));
    device.platform.setNow(device.platform.now() + 30 * day);
    await device.update().catch(() => {});
    expect(await answerOf(model)).toEqual(['1.0.0', 2]);
    await device.inlay.close();
  });
});

describe('the policy of activation', () => {
  it('`manual` waits for the app', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const device = startDevice(world, { sync: { policy: { activate: 'manual' } } });
    const model = await device.load();
    await proveItself(device, model);
    await world.ship('1.1.0', made(3));
    await device.update();
    await device.pass(hour);
    expect(model.version).toBe('1.0.0');
    expect((await device.slots()).trial).toMatchObject({ phase: 'staged' });
    expect(await device.inlay.updates.activate('digits')).toBe(true);
    expect(await answerOf(model)).toEqual(['1.1.0', 3]);
    await device.inlay.close();
  });

  it('`next-start` waits for it', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const sync = { policy: { activate: 'next-start' } } as const;
    const device = startDevice(world, { sync });
    const model = await device.load();
    await proveItself(device, model);
    await world.ship('1.1.0', made(3));
    await device.update();
    await device.pass(hour);
    expect(model.version).toBe('1.0.0');
    await device.inlay.close();
    const next = startDevice(world, { ...device, sync });
    const after = await next.load();
    await next.pass(1);
    expect(await answerOf(after)).toEqual(['1.1.0', 3]);
    await next.inlay.close();
  });

  it('`idle` waits for two quiet seconds', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const device = startDevice(world, { sync: { policy: { activate: 'idle' } } });
    const model = await device.load();
    await proveItself(device, model);
    await world.ship('1.1.0', made(3));
    await callOften(model, 1);
    await device.update();
    for (let round = 0; round < 5; round += 1) {
      await device.pass(1000);
      await callOften(model, 1);
    }
    expect(model.version).toBe('1.0.0');
    await device.pass(1900);
    await device.pass(400);
    expect(model.version).toBe('1.1.0');
    await device.inlay.close();
  });
});

describe('a version that came with the app', () => {
  it('answers until a release has come in, and is there when that is taken back', async () => {
    const world = await createWorld();
    const device = startDevice(world);
    const model = await device.load(made(9));
    expect(await answerOf(model)).toEqual([undefined, 9]);
    // The first check is over before there is a release; the next would join it.
    await device.update();
    await world.ship('1.0.0', made(2));
    await device.update();
    expect(await answerOf(model)).toEqual(['1.0.0', 2]);
    await proveItself(device, model);
    await world.change({ state: 'rolledback' });
    await device.update();
    expect(await answerOf(model)).toEqual([undefined, 9]);
    await device.inlay.close();
  });

  it('is not downloaded again when it is what a rollout asks for', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(9));
    const device = startDevice(world);
    const model = await device.load(made(9));
    await device.update();
    expect(model.version).toBe('1.0.0');
    expect(world.server.requests.filter(({ path }) => path.includes('/targets/'))).toEqual([]);
    await device.inlay.close();
  });
});

describe('a release that is left in the middle', () => {
  it('has answered nothing when the last handle closes while it opens, and updates go on with the next', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const device = startDevice(world);
    const model = await device.load();
    await proveItself(device, model);
    await world.ship('1.1.0', made(3, 'hangsAtOpen'));
    await device.update();
    await model.close();
    await device.pass(30_000);
    const again = await device.load();
    expect(await answerOf(again)).toEqual(['1.0.0', 2]);
    expect((await device.slots()).trial?.phase).not.toBe('active');
    for (let round = 0; round < 3; round += 1) await device.pass(25_000);
    await world.ship('1.2.0', made(4));
    await device.update();
    expect(await answerOf(again)).toEqual(['1.2.0', 4]);
    await device.inlay.close();
  });

  it('serves on where there is nothing to go back to, and is judged once', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2, 'givesNaN'));
    const device = startDevice(world);
    const model = await device.load();
    let failures = 0;
    model.on('update-failed', () => (failures += 1));
    for (let round = 0; round < 20; round += 1) {
      await callOften(model, 5);
      await device.pass(1000);
    }
    expect((await device.slots()).rejected).toMatchObject([{ reason: 'invalid-outputs', count: 1 }]);
    expect(failures).toBe(1);
    await device.inlay.close();
  });

  it('does not go back to what is withdrawn', async () => {
    const world = await createWorld();
    const device = startDevice(world);
    const embedded = { file: made(9), release: await embeddedFacts(world, made(9)) };
    const model = await device.load(embedded);
    expect(await answerOf(model)).toEqual(['0.9.0', 9]);
    const { targetsBody } = world.repository;
    world.repository.targetsBody = { ...targetsBody, custom: { models: { digits: { floorSeq: 2 } } } };
    await world.ship('1.0.0', made(2, 'givesNaN'));
    await device.update();
    for (let round = 0; round < 5; round += 1) {
      await callOften(model, 5);
      await device.pass(1000);
    }
    expect(model.version).toBe('1.0.0');
    await device.inlay.close();
  });
});

describe('a store that somebody has written to', () => {
  it('has no file run that the offline key did not sign', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const first = startDevice(world);
    const model = await first.load();
    await proveItself(first, model);
    await first.inlay.close();
    const forged = made(66);
    const sha256 = sha256Hex(first.platform, forged);
    await first.store.putBlob(sha256, forged);
    const record = slotsRecord(first.platform, ownerOf(first), 'digits');
    await first.store.updateRecord(record, (bytes) => {
      const state = decodeSlots(bytes ?? new Uint8Array());
      if (state?.committed === undefined) throw new Error('Nothing is committed.');
      const committed = { ...state.committed, file: { sha256, length: forged.length } };
      return encodeSlots({ ...state, committed });
    });
    world.server.intercept = () => Promise.reject(new TypeError('fetch failed'));
    const offline = startDevice(world, first);
    let served: Awaited<ReturnType<Device['load']>> | undefined;
    void offline.load().then((loaded) => (served = loaded));
    for (let round = 0; round < 30 && served === undefined; round += 1) await offline.pass(10_000);
    // What was signed is still there, and is tried anew.
    expect(served && (await answerOf(served))).toEqual(['1.0.0', 2]);
    expect(await offline.events()).toContain('record-lost unsigned');
    await offline.inlay.close();
  });

  it('still runs what was signed once, when newer targets list it no more', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const first = startDevice(world);
    await proveItself(first, await first.load());
    const { repository } = world;
    const { targets, ...body } = repository.targetsBody;
    await world.ship('1.1.0', made(3), { bp: 1, state: 'ramp' });
    const others = Object.entries(repository.targetsBody.targets).filter(([path]) => !(path in targets));
    repository.targetsBody = {
      ...body,
      version: repository.targetsBody.version + 1,
      targets: Object.fromEntries(others),
    };
    repository.plans = { stable: [] };
    await repository.signAll();
    await first.update();
    await first.inlay.close();
    world.server.intercept = () => Promise.reject(new TypeError('fetch failed'));
    const offline = startDevice(world, first);
    expect(await answerOf(await offline.load())).toEqual(['1.0.0', 2]);
    await offline.inlay.close();
  });
});

describe('several handles of one model', () => {
  it('move together', async () => {
    const world = await createWorld();
    await world.ship('1.0.0', made(2));
    const device = startDevice(world);
    const models = await Promise.all([device.load(), device.load(), device.load()]);
    await Promise.all(models.map((model) => callOften(model)));
    await device.pass(2 * minute);
    await world.ship('1.1.0', made(3));
    await device.update();
    expect(models.map(({ version }) => version)).toEqual(['1.1.0', '1.1.0', '1.1.0']);
    await models[0]?.close();
    await world.ship('1.2.0', made(4));
    await device.update();
    expect(models.slice(1).map(({ version }) => version)).toEqual(['1.2.0', '1.2.0']);
    await device.inlay.close();
  });
});
