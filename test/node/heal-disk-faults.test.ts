import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { isInlayError } from '../../src/core/errors.ts';
import { createTinyBackend } from './heal-backend.ts';
import { commit, factorOf, leavePart, scratchFolder, startDevice, type Device } from './heal-device.ts';
import { steppedFs, type Fate } from './heal-fs.ts';
import { startWorld, type World } from './heal-world.ts';
import { strideOf } from './thorough.ts';

let world: World & { close(): Promise<void> };
let base: string;
/** Folder of a device with version 1 and a part of version 2. */
let template: string;
const tiny = createTinyBackend();
let copies = 0;

beforeAll(async () => {
  world = await startWorld();
  base = await scratchFolder('heal-disk-faults');
  template = join(base, 'template');
  await world.ship(1);
  const device = startDevice(world, { directory: template, backend: tiny });
  await commit(device, await device.load(), 1);
  await device.close();
  await world.ship(2);
  await leavePart(world, template, tiny);
}, 60_000);
afterAll(async () => {
  await world.close();
  await rm(base, { recursive: true, force: true });
});

/** Starts on a copy of the template, with a disk that fails. */
async function withFaultyDisk(fateOf: (step: number) => Fate): Promise<{
  readonly device: Device;
  readonly steps: readonly string[];
  readonly heal: () => void;
  readonly close: () => Promise<void>;
}> {
  copies += 1;
  const directory = join(base, `copy-${copies}`);
  await cp(template, directory, { recursive: true });
  let isWell = false;
  const fs = steppedFs(
    (step) => (isWell ? undefined : fateOf(step)),
    () => {},
  );
  const device = startDevice(world, { directory, backend: tiny, fs });
  return {
    device,
    steps: fs.steps,
    heal: () => {
      isWell = true;
    },
    close: async () => {
      await device.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Loads and updates for a while, whatever comes of it. */
async function tryUpdate(device: Device): Promise<readonly number[]> {
  const model = await device.load();
  const factors = [await factorOf(model)];
  await device.inlay.checkForUpdates().catch((error: unknown) => {
    if (!isInlayError(error)) throw error;
  });
  for (let call = 0; call < 4; call += 1) {
    factors.push(await factorOf(model));
    await new Promise((resolve) => {
      setTimeout(resolve, 2);
    });
  }
  return factors;
}

describe.each([
  ['ENOSPC', ['ENOSPC', 'ENOSPC'], strideOf(2)],
  // Both in turn.
  ['EIO or EROFS', ['EIO', 'EROFS'], strideOf(5)],
] as const)('a disk that says %s', (errno, errnos, stride) => {
  it('at one step stops nothing that runs, and the update completes', async () => {
    const probe = await withFaultyDisk(() => undefined);
    const first = await probe.device.load();
    await probe.device.inlay.checkForUpdates();
    await commit(probe.device, first, 2);
    await probe.close();
    const last = probe.steps.length;
    const wrong: string[] = [];
    let next = 0;
    const lane = async (): Promise<void> => {
      while (next < last) {
        const at = next + 1;
        next += stride;
        const { device, heal, steps, close } = await withFaultyDisk((step) =>
          step === at ? errnos[at % 2] : undefined,
        );
        try {
          for (const factor of await tryUpdate(device)) {
            if (factor !== 1 && factor !== 2) wrong.push(`step ${at}: it multiplies by ${factor}`);
          }
          heal();
          await device.inlay.checkForUpdates();
          await commit(device, await device.load(), 2);
          const { rejected } = await device.slots();
          if (rejected.length > 0) wrong.push(`step ${at}: ${JSON.stringify(rejected)}`);
        } catch (error) {
          wrong.push(`step ${at} (${steps[at - 1]}): ${String(error)}`);
        }
        await close();
      }
    };
    await Promise.all([lane(), lane(), lane()]);
    console.log(`${Math.ceil(last / stride)} steps that fail with ${errno}.`);
    expect(wrong).toEqual([]);
  }, 600_000);

  it('from any moment on, for a while, stops nothing that runs either', async () => {
    const wrong: string[] = [];
    for (let from = 1; from < 200; from += 19) {
      const { device, heal, close } = await withFaultyDisk((step) =>
        step >= from ? errnos[from % 2] : undefined,
      );
      try {
        for (const factor of await tryUpdate(device)) {
          if (factor !== 1 && factor !== 2) wrong.push(`from ${from}: it multiplies by ${factor}`);
        }
        heal();
        await device.inlay.checkForUpdates();
        await commit(device, await device.load(), 2);
        const { rejected } = await device.slots();
        if (rejected.length > 0) wrong.push(`from ${from}: ${JSON.stringify(rejected)}`);
      } catch (error) {
        wrong.push(`from ${from}: ${String(error)}`);
      }
      await close();
    }
    expect(wrong).toEqual([]);
  }, 300_000);
});

it('a disk that is full when the app first starts stops nothing for good', async () => {
  const directory = join(base, 'fresh');
  let isFull = true;
  const fs = steppedFs(
    () => (isFull ? 'ENOSPC' : undefined),
    () => {},
  );
  const device = startDevice(world, { directory, backend: tiny, fs });
  onTestFinished(() => device.close());
  await expect(device.load()).rejects.toMatchObject({ code: 'ERR_INLAY_MODEL_UNAVAILABLE' });
  isFull = false;
  await commit(device, await device.load(), 2);
});
