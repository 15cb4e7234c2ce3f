/** Starts of an app in the process of the tests, with real inference. */
import { createHash } from 'node:crypto';
import * as nodeFs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, vi } from 'vitest';
import { onnxruntimeNode } from '../../src/backends/onnxruntime-node.ts';
import type { Backend } from '../../src/core/backend.ts';
import type { Platform } from '../../src/core/platform.ts';
import {
  createInlay,
  type Inlay,
  type Model,
  type NamedReference,
  type SyncOptions,
} from '../../src/node.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { openFsStore, type FileSystem } from '../../src/stores/fs.ts';
import type { SlotsState } from '../../src/update/slot.ts';
import type { World } from './heal-world.ts';

/** onnxruntime-node on the calling thread, and nowhere else: whether a place apart works, other tests say. */
export function realBackend(): Backend {
  return onnxruntimeNode({ ort: () => import('onnxruntime-node') });
}

export interface DeviceOptions {
  readonly directory: string;
  readonly backend: Backend;
  readonly fs?: FileSystem;
  readonly platform?: Partial<Platform>;
  readonly sync?: Partial<SyncOptions>;
  readonly offline?: boolean;
  readonly embedded?: NamedReference['embedded'];
}

/** One start of an app. */
export interface Device {
  readonly inlay: Inlay;
  readonly load: () => Promise<Model>;
  /** Cuts the network, or brings it back. */
  readonly connect: (isOn: boolean) => void;
  readonly slots: () => Promise<SlotsState>;
  /** Types of the events of all starts, with reasons. */
  readonly events: () => Promise<readonly string[]>;
  /** Closes Inlay and store. */
  readonly close: () => Promise<void>;
}

/** Time passes quickly: a look at the clock takes 60 ms. */
function hurriedPlatform(): Platform {
  const platform = nodePlatform();
  let hurried = 0;
  return {
    ...platform,
    random: () => 0.01,
    monotonicMs: () => {
      hurried += 60;
      return platform.monotonicMs() + hurried;
    },
  };
}

export function startDevice(world: Pick<World, 'url' | 'root'>, options: DeviceOptions): Device {
  const { directory, backend, fs, embedded } = options;
  const platform = { ...hurriedPlatform(), ...options.platform };
  let isOn = options.offline !== true;
  const store = openFsStore({ directory, ...(fs && { fs }) });
  const inlay = createInlay({
    backends: [backend],
    placement: 'inline',
    device: 'cpu',
    tracing: false,
    store,
    platform: {
      ...platform,
      fetch: (url, init) =>
        isOn ? platform.fetch(url, init) : Promise.reject(new TypeError('fetch failed')),
    },
    sync: { url: world.url, root: world.root, pollMs: 2 ** 31 - 1, ...options.sync },
  });
  return {
    inlay,
    load: () => inlay.load({ name: 'digits', ...(embedded !== undefined && { embedded }) }),
    connect: (on) => {
      isOn = on;
    },
    slots: async () => {
      const state = (await inlay.updates.state())?.models['digits'];
      if (state === undefined) throw new Error('The model was not loaded.');
      return state;
    },
    events: async () =>
      (await inlay.updates.history()).map(({ type, reason }) =>
        reason === undefined ? type : `${type} ${reason}`,
      ),
    close: async () => {
      await inlay.close();
      await store.close();
    },
  };
}

/** By what the version that answers multiplies. */
export async function factorOf(model: Model): Promise<number> {
  const { y } = await model.run({ x: [1, -2] });
  const [one, two] = y?.data ?? [];
  if (Number(two) !== -2 * Number(one)) throw new Error(`No version gives ${String(one)}, ${String(two)}.`);
  return Number(one);
}

/** Calls until a version has proved itself, and answers. */
export async function commit(device: Device, model: Model, version: number): Promise<void> {
  for (const deadline = Date.now() + 60_000; Date.now() < deadline;) {
    const { committed, trial } = await device.slots();
    const isCommitted = committed?.release.version === String(version) && trial === undefined;
    // What is committed may have to be fetched again.
    if (isCommitted && model.version === String(version)) return;
    await model.run({ x: [1, -2] });
    await model.run({ x: [1, -2] });
    // Each look reads files: looking all the time would take most of the time.
    await new Promise((resolve) => {
      setTimeout(resolve, 10);
    });
  }
  const { committed, trial, decision, lastError } = (await device.slots()) as SlotsState &
    Record<string, unknown>;
  throw new Error(`Version ${version} is not committed: ${JSON.stringify({ committed, trial, decision })}`, {
    cause: lastError,
  });
}

/** Starts an update that ends with a part of the file on the disk. */
export async function leavePart(world: World, directory: string, backend: Backend): Promise<void> {
  world.spoil = ({ path, response, headers, status, body }) => {
    if (!path.endsWith('.model.onnx')) return false;
    response.writeHead(status, headers);
    response.write(body.subarray(0, 20_000));
    return true;
  };
  const device = startDevice(world, { directory, backend });
  await device.load();
  await device.inlay.checkForUpdates();
  const loaded = async (): Promise<number> => {
    const { transfers = [] } = (await device.inlay.updates.state()) ?? {};
    return Math.max(0, ...transfers.map(({ loadedBytes }) => loadedBytes));
  };
  await vi.waitFor(async () => expect(await loaded()).toBeGreaterThan(16_383), { timeout: 30_000 });
  await device.close();
  world.spoil = undefined;
}

/**
 * Makes a folder for the tests of a file, in memory where the system has such a place: a process that is killed loses
 * nothing that it has written, so whether a flush reaches a disk makes no difference here but to the time it takes.
 */
export async function scratchFolder(name: string): Promise<string> {
  const memory = '/dev/shm';
  const inMemory = await nodeFs.access(memory, nodeFs.constants.W_OK).then(
    () => true,
    () => false,
  );
  return nodeFs.mkdtemp(join(inMemory ? memory : tmpdir(), `inlay-${name}-`));
}

/** Files in a folder and those below it, as paths from there. */
export async function listFiles(directory: string): Promise<readonly string[]> {
  const entries = await nodeFs.readdir(directory, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1))
    .sort();
}

/** Blobs of which the content is not what their name says. */
export async function wrongBlobs(directory: string): Promise<readonly string[]> {
  const names = await nodeFs.readdir(join(directory, 'blobs')).catch(() => []);
  const checked = names.map(async (name) => {
    const bytes = await nodeFs.readFile(join(directory, 'blobs', name));
    return createHash('sha256').update(bytes).digest('hex') === name ? [] : [name];
  });
  return (await Promise.all(checked)).flat();
}
