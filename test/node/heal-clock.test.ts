import { cp } from 'node:fs/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { commit, factorOf, startDevice } from './heal-device.ts';
import { impatient, patientTrial, prepareOutdated } from './heal-outdated.ts';

const DAY_MS = 86_400_000;
const { backend, start } = prepareOutdated();

describe('a clock', () => {
  it.each([
    ['of 1970', 0],
    ['of 2100', Date.UTC(2100, 0, 1)],
  ])('%s stops no inference, and the update comes when it is right', async (_, nowMs) => {
    const { world, device, model, directory } = await start();
    await device.close();
    let now: () => number = () => nowMs;
    const wrong = startDevice(world, { directory, backend, platform: { ...impatient(), now: () => now() } });
    onTestFinished(() => wrong.close());
    const present = await wrong.load();
    expect(await factorOf(present)).toBe(1);
    await wrong.inlay.checkForUpdates().catch(() => {});
    for (let call = 0; call < 5; call += 1) await present.run({ x: [1, -2] });
    // In 2100, everything has expired: nothing begins. In 1970, nothing has.
    if (nowMs > 0) expect((await wrong.slots()).committed?.release.version).toBe('1');
    now = () => Date.now();
    await wrong.inlay.checkForUpdates();
    await commit(wrong, present, 2);
    expect(await factorOf(present)).toBe(2);
    expect(await factorOf(model).catch(() => 'closed')).toBe('closed');
  });

  it.each([
    ['1970', 0],
    ['2100', Date.UTC(2100, 0, 1)],
  ])('that jumps to %s and back stops nothing that runs', async (_, jumpMs) => {
    let now: () => number = () => Date.now();
    const { world, device, model } = await start({ platform: { now: () => now() } });
    now = () => jumpMs;
    await device.inlay.checkForUpdates().catch(() => {});
    for (let call = 0; call < 5; call += 1) await model.run({ x: [1, -2] });
    now = () => Date.now();
    await device.inlay.checkForUpdates();
    await commit(device, model, 2);
    await world.ship(3, { trial: patientTrial });
    now = () => jumpMs;
    for (let call = 0; call < 5; call += 1) expect(await factorOf(model)).toBe(2);
    now = () => Date.now();
    await device.inlay.checkForUpdates();
    await commit(device, model, 3);
  });

  it('that is set back revives no metadata that is older than what is known', async () => {
    let now: () => number = () => Date.now();
    const { world, device, model } = await start({ platform: { now: () => now() } });
    const { files } = world.repository;
    await device.inlay.checkForUpdates();
    await commit(device, model, 2);
    await world.resign();
    await device.inlay.checkForUpdates();
    // A mirror replays what was signed before; in 1970 it has not expired.
    world.repository.files = files;
    now = () => 0;
    await expect(device.inlay.checkForUpdates()).rejects.toMatchObject({ name: 'TrustError' });
    expect(await factorOf(model)).toBe(2);
  });

  it('that has run on past the expiry begins nothing, with or without a server', async () => {
    let now: () => number = () => Date.now();
    const { world, device, model, directory } = await start({
      platform: { now: () => now() },
      sync: { policy: { activate: 'manual' } },
    });
    await device.inlay.checkForUpdates();
    const staged = async (): Promise<string | undefined> => (await device.slots()).trial?.phase;
    await expect.poll(staged).toBe('staged');
    now = () => Date.now() + 400 * DAY_MS;
    expect(await device.inlay.updates.activate('digits')).toBe(false);
    expect(await factorOf(model)).toBe(1);
    await device.close();
    const copy = `${directory}-copy`;
    await cp(directory, copy, { recursive: true });
    const later = startDevice(world, {
      directory: copy,
      backend,
      offline: true,
      platform: { now: () => now() },
    });
    onTestFinished(() => later.close());
    const present = await later.load();
    expect(await factorOf(present)).toBe(1);
    now = () => Date.now();
    later.connect(true);
    await later.inlay.checkForUpdates();
    await commit(later, present, 2);
  });
});
