import { fork } from 'node:child_process';
import * as nodeFs from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createInlay, type Inlay } from 'inlay';
import type { FileSystem } from 'inlay/stores/fs';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  backends,
  blobsOf,
  codeIn,
  codeOf,
  factorOf,
  platformOf,
  scale,
  startDevice,
  startWorld,
  update,
  type World,
} from './follow-fixture.ts';
import { temporaryDirectory } from './server-fixture.ts';

const unavailable = (code: string): unknown =>
  expect.objectContaining({
    code: 'ERR_INLAY_MODEL_UNAVAILABLE',
    cause: expect.objectContaining({ code }) as unknown,
  });

/** An installation that ran version 2, and is closed. */
async function usedDirectory(world: World): Promise<{ directory: string; blob: string }> {
  await world.ship(1);
  const { inlay, load, directory } = await startDevice(world);
  const model = await load();
  const { sha256 } = await world.ship(2);
  expect(await update(inlay, model)).toBe('swapped to 2');
  await inlay.close();
  world.network.requests();
  return { directory, blob: join(directory, 'blobs', sha256) };
}

describe('a start without network', () => {
  it('takes the version that ran last, and updates once there is a network', async () => {
    const world = await startWorld();
    const { directory } = await usedDirectory(world);
    await world.network.goDown();
    const { inlay, load } = await startDevice(world, { directory });
    const model = await load();
    expect(model.version).toBe('2');
    expect(await factorOf(model)).toBe(2);
    expect(inlay.info().sync?.bytesDownloaded).toBe(0);
    expect(await codeOf(inlay.checkForUpdates())).toBe('ERR_INLAY_NETWORK');
    expect(await factorOf(model)).toBe(2);
    await world.network.comeBack();
    await world.ship(3);
    expect(await update(inlay, model)).toBe('swapped to 3');
  });
});

/** Turns the factor 2 of the model into 3, by one bit. */
async function flipBit(path: string): Promise<void> {
  const bytes = await nodeFs.readFile(path);
  const two = bytes.indexOf(Buffer.from(new Float32Array([2]).buffer));
  expect(two).toBeGreaterThan(0);
  bytes[two + 2] = 0x40;
  await nodeFs.writeFile(path, bytes);
}

describe.each<[string, (path: string) => Promise<void>]>([
  ['was deleted', (path) => nodeFs.unlink(path)],
  ['has a bit flipped', flipBit],
  ['lost its end', async (path) => nodeFs.writeFile(path, (await nodeFs.readFile(path)).subarray(0, -1))],
  ['was emptied', (path) => nodeFs.writeFile(path, '')],
  ['was overwritten', (path) => nodeFs.writeFile(path, 'lost+found')],
])('a model file that %s on the disk', (_, damage) => {
  it('is never run: the version before it answers until it has been fetched again', async () => {
    const world = await startWorld();
    const { directory, blob } = await usedDirectory(world);
    await damage(blob);
    await world.network.goDown();
    const offline = await startDevice(world, { directory });
    expect(await factorOf(await offline.load())).toBe(1);
    await offline.inlay.close();
    await world.network.comeBack();
    const { load } = await startDevice(world, { directory });
    const model = await load();
    expect(await factorOf(model)).toBe(1);
    await vi.waitFor(async () => expect(await factorOf(model)).toBe(2), { timeout: 10_000 });
    expect(world.network.requests().filter((path) => path.startsWith('/v1/targets/'))).toHaveLength(1);
    expect(await blobsOf(directory)).toHaveLength(2);
  });
});

describe('a model file that is damaged while another version runs', () => {
  it('is fetched again when a rollout goes back to it', async () => {
    const world = await startWorld();
    const { directory, blob } = await usedDirectory(world);
    await world.ship(3);
    const { inlay, load } = await startDevice(world, { directory });
    const model = await load();
    expect(await update(inlay, model)).toBe('swapped to 3');
    await flipBit(blob);
    await world.rollOut(2, 100);
    world.network.requests();
    expect(await update(inlay, model)).toBe('swapped to 2');
    expect(await factorOf(model)).toBe(2);
    expect(world.network.requests().filter((path) => path.startsWith('/v1/targets/'))).toHaveLength(1);
  });
});

it('onnxruntime does not notice the flipped bit, so that Inlay has to', async () => {
  const path = join(await temporaryDirectory(), 'model.onnx');
  await nodeFs.writeFile(path, scale(2));
  await flipBit(path);
  const inlay = createInlay({ backends, device: 'cpu' });
  onTestFinished(() => inlay.close());
  expect(await factorOf(await inlay.load(path))).toBe(3);
});

describe('a damaged record', () => {
  it.each(['', 'garbage'])('counts as none: %j', async (content) => {
    const world = await startWorld();
    const { directory } = await usedDirectory(world);
    for (const name of await nodeFs.readdir(join(directory, 'records'))) {
      await nodeFs.writeFile(join(directory, 'records', name), content);
    }
    const { load } = await startDevice(world, { directory });
    expect(await factorOf(await load())).toBe(2);
    expect(world.network.requests().filter((path) => path.startsWith('/v1/targets/'))).toEqual([]);
  });
});

type Step = 'mkdir' | 'open' | 'write' | 'rename' | 'unlink';
interface FaultyDisk extends FileSystem {
  /** The errno that a step fails with, and on what. */
  fault: ((step: Step, path: string) => string | undefined) | undefined;
}

/** The disk of this machine, until it is told to fail. */
function faultyDisk(): FaultyDisk {
  const check = (step: Step, path: string): void => {
    const code = disk.fault?.(step, path);
    if (code !== undefined) throw Object.assign(new Error(`${code}: ${step}`), { code });
  };
  const disk: FaultyDisk = {
    ...nodeFs,
    fault: undefined,
    mkdir: async (path) => {
      check('mkdir', path);
      await nodeFs.mkdir(path);
    },
    open: async (path, flags) => {
      if (flags === 'wx') check('open', path);
      const file = await nodeFs.open(path, flags);
      return {
        writeFile: async (bytes) => {
          check('write', path);
          await file.writeFile(bytes);
        },
        write: async (...args) => {
          check('write', path);
          return file.write(...args);
        },
        read: (...args) => file.read(...args),
        truncate: (sizeBytes) => file.truncate(sizeBytes),
        sync: () => file.sync(),
        close: () => file.close(),
      };
    },
    rename: async (from, to) => {
      check('rename', to);
      await nodeFs.rename(from, to);
    },
    unlink: async (path) => {
      check('unlink', path);
      await nodeFs.unlink(path);
    },
  };
  return disk;
}

const full = (step: Step): string | undefined => (step === 'write' ? 'ENOSPC' : undefined);
const readOnly = (): string => 'EROFS';

describe.each<[string, (step: Step) => string | undefined, string]>([
  ['is full', full, 'ERR_INLAY_STORE_FULL'],
  ['is read-only', readOnly, 'ERR_INLAY_STORE_READ_ONLY'],
])('a disk that %s', (_, fault, code) => {
  it('stops a first load and updates, not the model that runs', async () => {
    const world = await startWorld();
    await world.ship(1);
    const fs = faultyDisk();
    fs.fault = fault;
    const { inlay, load, directory } = await startDevice(world, { fs });
    await expect(load()).rejects.toEqual(unavailable(code));
    fs.fault = undefined;
    const model = await load();
    await world.ship(2);
    fs.fault = fault;
    // What was verified counts; it is the file that finds no room.
    expect(await update(inlay, model)).toBe(code);
    expect(inlay.info().sync?.lastError).toBeUndefined();
    expect(await factorOf(model)).toBe(1);
    fs.fault = undefined;
    expect(await update(inlay, model)).toBe('swapped to 2');
    expect(await blobsOf(directory)).toHaveLength(2);
  });

  it('stops no start from what it has', async () => {
    const world = await startWorld();
    const { directory } = await usedDirectory(world);
    const fs = faultyDisk();
    fs.fault = fault;
    const { load } = await startDevice(world, { directory, fs });
    expect(await factorOf(await load())).toBe(2);
  });

  it('stops the update while it has no room for the model file', async () => {
    const world = await startWorld();
    await world.ship(1);
    const fs = faultyDisk();
    const { inlay, load, directory } = await startDevice(world, { fs });
    const model = await load();
    const { sha256 } = await world.ship(2);
    fs.fault = (step, path) => (path.includes(sha256) ? fault(step) : undefined);
    expect(await update(inlay, model)).toBe(code);
    expect(await factorOf(model)).toBe(1);
    fs.fault = undefined;
    expect(await blobsOf(directory)).toHaveLength(1);
    expect(await update(inlay, model)).toBe('swapped to 2');
  });

  it('stops no update that is there already, which is remembered later', async () => {
    const world = await startWorld();
    await world.ship(1);
    const fs = faultyDisk();
    const { inlay, load, directory } = await startDevice(world, { fs });
    const model = await load();
    const { sha256 } = await world.ship(2);
    let isStored = false;
    fs.fault = (step, path) => {
      const errno = isStored ? fault(step) : undefined;
      isStored ||= step === 'rename' && path.endsWith(sha256);
      return errno;
    };
    const failures: string[] = [];
    model.on('update-failed', ({ error }) => failures.push(codeIn(error)));
    expect(await update(inlay, model)).toBe('swapped to 2');
    expect(await factorOf(model)).toBe(2);
    expect((await inlay.updates.history()).map(({ type }) => type)).toContain('record-unwritable');

    fs.fault = undefined;
    world.network.requests();
    await inlay.checkForUpdates();
    await vi.waitFor(async () => {
      await world.network.goDown();
      const offline = await startDevice(world, { directory });
      expect((await offline.load()).version).toBe('2');
    });
    expect(world.network.requests()).toEqual(['/v1/tip?root=1']);
    expect(failures).toEqual([]);
  });

  it('stops no first load of which only the last record is missing', async () => {
    const world = await startWorld();
    const { sha256 } = await world.ship(1);
    const fs = faultyDisk();
    let isStored = false;
    fs.fault = (step, path) => {
      const errno = isStored ? fault(step) : undefined;
      isStored ||= step === 'rename' && path.endsWith(sha256);
      return errno;
    };
    const { inlay, load } = await startDevice(world, { fs });
    const model = await load();
    expect(isStored).toBe(true);
    expect(await factorOf(model)).toBe(1);
    expect(inlay.info().models).toHaveLength(1);
  });
});

/** An Inlay with the store that it takes by itself. */
function startByDefault(world: World, cacheDirectory: string): Inlay {
  vi.stubEnv('INLAY_CACHE_DIR', cacheDirectory);
  const { network, root } = world;
  const inlay = createInlay({
    backends,
    device: 'cpu',
    platform: platformOf(),
    sync: { url: network.url, root },
  });
  vi.unstubAllEnvs();
  onTestFinished(() => inlay.close());
  return inlay;
}

describe('the default store', () => {
  it('is the cache directory', async () => {
    const world = await startWorld();
    await world.ship(1);
    const location = await temporaryDirectory();
    const inlay = startByDefault(world, location);
    expect(await factorOf(await inlay.load({ name: 'digits' }))).toBe(1);
    expect(inlay.info().store).toEqual({ kind: 'fs', location });
    expect(await blobsOf(location)).toHaveLength(1);
  });

  it('is memory where that cannot be used, and says why', async () => {
    const world = await startWorld();
    await world.ship(1);
    const file = join(await temporaryDirectory(), 'file');
    await nodeFs.writeFile(file, '');
    const inlay = startByDefault(world, join(file, 'cache'));
    const model = await inlay.load({ name: 'digits' });
    expect(await factorOf(model)).toBe(1);
    expect(inlay.info().store).toEqual({
      kind: 'memory',
      degraded: expect.stringMatching(/memory only.*ENOTDIR.*INLAY_CACHE_DIR/) as string,
    });
    await world.ship(2);
    expect(await update(inlay, model)).toBe('swapped to 2');
    await world.network.goDown();
    expect(await factorOf(await inlay.load({ name: 'digits' }))).toBe(2);
  });

  it('keeps apps of different servers apart', async () => {
    const [mine, other] = [await startWorld(), await startWorld()];
    await mine.ship(1);
    await other.ship(2);
    const location = await temporaryDirectory();
    for (const world of [mine, other, mine, other]) {
      const inlay = startByDefault(world, location);
      expect(await factorOf(await inlay.load({ name: 'digits' }))).toBe(world === mine ? 1 : 2);
      await inlay.close();
    }
  });

  it('serves two processes that follow one server', async () => {
    const world = await startWorld();
    await world.ship(1);
    const location = await temporaryDirectory();
    const { network, root } = world;
    const script = fileURLToPath(new URL('fixtures/following-process.mjs', import.meta.url));
    const processes = ['a', 'b'].map(() => {
      const said: string[] = [];
      const child = fork(script, [JSON.stringify({ url: network.url, root })], {
        env: { ...process.env, INLAY_CACHE_DIR: location },
        execArgv: [],
      });
      child.on('message', (line) => said.push(line as string));
      const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
      onTestFinished(() => void child.kill());
      return { said, child, ended };
    });
    const reach = (version: number): Promise<void> =>
      vi.waitFor(
        () => {
          for (const { said } of processes) expect(said).toContain(`runs ${version}`);
        },
        { timeout: 20_000 },
      );
    await reach(1);
    for (const version of [2, 3, 4, 5]) {
      await world.ship(version);
      if (version !== 3) await reach(version);
    }
    for (const { child, ended, said } of processes) {
      child.send('end');
      expect(await ended).toBe(0);
      expect(said.filter((line) => !line.startsWith('runs '))).toEqual([]);
      expect(said.at(-1)).toBe('runs 5');
    }
    expect((await blobsOf(location)).length).toBeGreaterThanOrEqual(4);
    await network.goDown();
    expect(await factorOf(await startByDefault(world, location).load({ name: 'digits' }))).toBe(5);
  });
});
