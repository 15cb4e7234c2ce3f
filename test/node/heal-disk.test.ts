import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { isInlayError } from '../../src/core/errors.ts';
import { createTinyBackend } from './heal-backend.ts';
import {
  commit,
  factorOf,
  leavePart,
  listFiles,
  realBackend,
  startDevice,
  wrongBlobs,
  scratchFolder,
} from './heal-device.ts';
import { startWorld, type World } from './heal-world.ts';

/** Places in each file at which a bit is flipped, a quarter of them at each stage; the first at each is healed from as well. */
const PLACES = 8;

let world: World & { close(): Promise<void> };
let base: string;
/** Folders of a device at four stages of the update to version 2. */
const stages = [
  'a part is there',
  'version 2 is staged',
  'version 2 is on trial',
  'version 2 is committed',
] as const;
type Stage = (typeof stages)[number];
const folderOf = (stage: Stage): string => join(base, stage.replaceAll(' ', '-'));
const real = realBackend();
const tiny = createTinyBackend();
let copies = 0;

beforeAll(async () => {
  world = await startWorld();
  base = await scratchFolder('heal-disk');
  await world.ship(1);
  const origin = join(base, 'origin');
  const device = startDevice(world, { directory: origin, backend: real });
  await commit(device, await device.load(), 1);
  await device.close();
  await world.ship(2);

  const part = await copyOf(origin, folderOf('a part is there'));
  await leavePart(world, part, real);

  const staged = await copyOf(origin, folderOf('version 2 is staged'));
  const waiting = startDevice(world, {
    directory: staged,
    backend: real,
    sync: { policy: { activate: 'manual' } },
  });
  await waiting.load();
  await waiting.inlay.checkForUpdates();
  await vi.waitFor(async () => expect((await waiting.slots()).trial?.phase).toBe('staged'), 10_000);
  await waiting.close();

  const tried = await copyOf(staged, folderOf('version 2 is on trial'));
  const trying = startDevice(world, {
    directory: tried,
    backend: real,
    sync: { policy: { activate: 'manual' } },
  });
  await trying.load();
  await trying.inlay.updates.activate('digits');
  expect((await trying.slots()).trial?.phase).toBe('active');
  await trying.close();

  const done = await copyOf(tried, folderOf('version 2 is committed'));
  const last = startDevice(world, { directory: done, backend: real });
  await commit(last, await last.load(), 2);
  await last.close();
}, 60_000);
afterAll(async () => {
  await real.close();
  await world.close();
  await rm(base, { recursive: true, force: true });
});

async function copyOf(from: string, to?: string): Promise<string> {
  copies += 1;
  const path = to ?? join(base, `copy-${copies}`);
  await cp(from, path, { recursive: true });
  return path;
}

type Damage = readonly [what: string, change: (bytes: Buffer) => Uint8Array | undefined, isHealed: boolean];

const damages: readonly Damage[] = [
  ...Array.from({ length: PLACES }, (_, place): Damage => [
    `a bit flipped at ${place}/${PLACES}`,
    (bytes) => {
      const at = Math.floor((bytes.length * place) / PLACES);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << (place % 8));
      return bytes;
    },
    place < stages.length,
  ]),
  ['half of it', (bytes) => bytes.subarray(0, bytes.length >> 1), true],
  ['nothing in it', () => new Uint8Array(), true],
  ['no such file', () => undefined, true],
];

/** Starts without network on a damaged folder, and then with it. @returns what is wrong. */
async function start(
  directory: string,
  hasIntact: boolean,
  isHealed = true,
  backend = tiny,
): Promise<string | undefined> {
  const device = startDevice(world, { directory, backend, offline: true });
  try {
    const offline = await device.load().then(
      async (model) => ({ model, factor: await factorOf(model) }),
      (error: unknown) => error,
    );
    if (offline instanceof Error) {
      if (!isInlayError(offline) || offline.code !== 'ERR_INLAY_MODEL_UNAVAILABLE')
        return `offline: ${String(offline)}`;
      if (hasIntact) return `offline: nothing answers, although a model is intact: ${offline.message}`;
    } else {
      const { model, factor } = offline as { model: { version: string | undefined }; factor: number };
      if (factor !== 1 && factor !== 2) return `offline: it multiplies by ${factor}`;
      if (model.version !== String(factor)) return `offline: ${model.version} multiplies by ${factor}`;
    }
    if (!isHealed) return undefined;
    device.connect(true);
    const model = await device.load();
    await device.inlay.checkForUpdates();
    await commit(device, model, 2);
    if ((await factorOf(model)) !== 2) return 'online: it does not answer as version 2';
    const { rejected } = await device.slots();
    if (rejected.length > 0) return `online: ${JSON.stringify(rejected)}`;
    const needed = (await device.slots()).committed?.file.sha256;
    if ((await wrongBlobs(directory)).some((name) => name === needed))
      return 'online: the file of what is committed is damaged';
    return undefined;
  } catch (error) {
    return `online: ${String(error)}`;
  } finally {
    await device.close();
  }
}

describe.each(stages)('a store in which %s', (stage) => {
  it('heals from any damage to any one of its files', async () => {
    const files = await listFiles(folderOf(stage));
    const wrong: string[] = [];
    let tries = 0;
    const meant = damages.filter((_, at) => at >= PLACES || at % stages.length === stages.indexOf(stage));
    const work = files.flatMap((file) => meant.map((damage) => [file, damage] as const));
    const lane = async (): Promise<void> => {
      for (let next = work.shift(); next !== undefined; next = work.shift()) {
        const [file, [what, change, isHealed]] = next;
        const directory = await copyOf(folderOf(stage));
        const path = join(directory, file);
        const bytes = change(await readFile(path));
        if (bytes === undefined) await rm(path);
        else await writeFile(path, bytes);
        tries += 1;
        // Before version 2 is there, version 1 is all there is.
        const hasIntact = stage !== 'a part is there' || !file.startsWith('blobs/');
        const problem = await start(directory, hasIntact, isHealed);
        if (problem !== undefined) wrong.push(`${file}, ${what}: ${problem}`);
        await rm(directory, { recursive: true, force: true });
      }
    };
    await Promise.all([lane(), lane(), lane()]);
    console.log(`${tries} damages to ${files.length} files.`);
    expect(wrong).toEqual([]);
  }, 600_000);
});

describe('a store of which every model file is damaged', () => {
  it('runs none of them, and fetches them again', async () => {
    const directory = await copyOf(folderOf('version 2 is committed'));
    for (const file of await listFiles(directory)) {
      if (!file.startsWith('blobs/')) continue;
      const bytes = await readFile(join(directory, file));
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 4;
      await writeFile(join(directory, file), bytes);
    }
    expect(await start(directory, false, true, real)).toBeUndefined();
  });
});
