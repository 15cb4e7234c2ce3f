/** A device with real inference that runs version 1 while version 2 is out: where most tests begin. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, onTestFinished } from 'vitest';
import type { Backend } from '../../src/core/backend.ts';
import type { Model } from '../../src/node.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import {
  commit,
  realBackend,
  startDevice,
  type Device,
  type DeviceOptions,
  scratchFolder,
} from './heal-device.ts';
import { startWorld, type World } from './heal-world.ts';

/** Two good calls, and a release is committed, however slow the machine is. */
export const patientTrial = { minInferences: 2, soakS: 0, loadTimeoutS: 60 };

/** Silence is noticed soon; everything else takes its time. */
export function impatient(): NonNullable<DeviceOptions['platform']> {
  const { setTimer } = nodePlatform();
  return {
    setTimer: (task, delayMs, keepAlive) => setTimer(task, delayMs === 20_000 ? 250 : delayMs, keepAlive),
  };
}

/** What {@link prepareOutdated} gives. */
export interface Outdated {
  readonly backend: Backend;
  /** Starts a device, which ends with the test. */
  start(more?: Partial<DeviceOptions>): Promise<{
    readonly world: World;
    readonly device: Device;
    readonly model: Model;
    readonly directory: string;
  }>;
}

/** Prepares them for the tests of a file. */
export function prepareOutdated(): Outdated {
  const backend = realBackend();
  let base: string;
  let folders = 0;
  beforeAll(async () => {
    base = await scratchFolder('outdated');
  });
  afterAll(async () => {
    await backend.close();
    await rm(base, { recursive: true, force: true });
  });
  return {
    backend,
    start: async (more = {}) => {
      const world = await startWorld();
      onTestFinished(() => world.close());
      await world.ship(1, { trial: patientTrial });
      folders += 1;
      const directory = join(base, String(folders));
      const platform = { ...impatient(), ...more.platform };
      const device = startDevice(world, { directory, backend, ...more, platform });
      onTestFinished(() => device.close());
      const model = await device.load();
      await commit(device, model, 1);
      await world.ship(2, { trial: patientTrial });
      world.requests();
      return { world, device, model, directory };
    },
  };
}
