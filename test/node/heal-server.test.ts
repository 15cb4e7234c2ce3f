import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { isInlayError } from '../../src/core/errors.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import type { Model } from '../../src/node.ts';
import {
  commit,
  factorOf,
  listFiles,
  realBackend,
  startDevice,
  wrongBlobs,
  type Device,
  type DeviceOptions,
} from './heal-device.ts';
import { startWorld, type Exchange, type Spoiler, type World } from './heal-world.ts';

const DAY_MS = 86_400_000;
const backend = realBackend();
let base: string;
let folders = 0;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'inlay-heal-server-'));
});
afterAll(async () => {
  await backend.close();
  await rm(base, { recursive: true, force: true });
});

/** Silence is noticed soon; everything else takes its time. */
function impatient(): DeviceOptions['platform'] {
  const { setTimer } = nodePlatform();
  return {
    setTimer: (task, delayMs, keepAlive) => setTimer(task, delayMs === 20_000 ? 250 : delayMs, keepAlive),
  };
}

const trial = { minInferences: 2, soakS: 0, loadTimeoutS: 60 };

/** A device that runs version 1, and version 2 is out. */
async function startWithOne(
  more: Partial<DeviceOptions> = {},
): Promise<{ world: World; device: Device; model: Model; directory: string }> {
  const world = await startWorld();
  onTestFinished(() => world.close());
  await world.ship(1, { trial });
  folders += 1;
  const directory = join(base, String(folders));
  const device = startDevice(world, {
    directory,
    backend,
    ...more,
    platform: { ...impatient(), ...more.platform },
  });
  onTestFinished(() => device.close());
  const model = await device.load();
  await commit(device, model, 1);
  await world.ship(2, { trial });
  world.requests();
  return { world, device, model, directory };
}

/** Waits until an update has failed or arrived: no download is under way, and nothing is decided any more. */
async function rest(device: Device): Promise<void> {
  const deadline = Date.now() + 20_000;
  const failures = async (): Promise<number> =>
    (await device.inlay.updates.history()).filter(
      ({ type, reason }) =>
        type === 'error' || type === 'staged' || (type === 'checked' && reason !== undefined),
    ).length;
  const before = await failures();
  await device.inlay.checkForUpdates().catch((error: unknown) => {
    if (!isInlayError(error)) throw error;
  });
  while ((await failures()) === before) {
    if (Date.now() > deadline) throw new Error('The update neither fails nor arrives.');
    await new Promise((resolve) => {
      setTimeout(resolve, 5);
    });
  }
}

const isModel = (path: string): boolean => path.endsWith('.model.onnx');

/** Answers with other bytes of the same length. */
const garbled = ({ response, status, headers, body }: Exchange): true => {
  response.writeHead(status, headers);
  response.end(body.map((byte, at) => (at === body.length >> 1 ? byte ^ 1 : byte)));
  return true;
};

/** Answers with something else altogether. */
const instead =
  (status: number, headers: Record<string, string>, body: string | Uint8Array = '') =>
  ({ response }: Exchange): true => {
    response.writeHead(status, headers);
    response.end(body);
    return true;
  };

const html = instead(200, { 'content-type': 'text/html; charset=utf-8' }, '<!doctype html><h1>Log in</h1>');

/** What the server does with the files that match, and the word of the log. */
const faults: readonly (readonly [
  name: string,
  on: (path: string) => boolean,
  spoil: Spoiler,
  reason: string,
])[] = [
  [
    'stalls in the middle of the file',
    isModel,
    ({ response, status, headers, body }) => {
      response.writeHead(status, headers);
      response.write(body.subarray(0, 100));
      return true;
    },
    'network',
  ],
  ['never answers', isModel, () => true, 'network'],
  [
    'hangs up in the middle of the file',
    isModel,
    ({ response, status, headers, body }) => {
      response.writeHead(status, headers);
      response.write(body.subarray(0, 100), () => response.destroy());
      return true;
    },
    'network',
  ],
  [
    'ends the file early without saying so',
    isModel,
    ({ response, body }) => {
      response.writeHead(200, { 'content-type': 'application/octet-stream' });
      response.end(body.subarray(0, 100));
      return true;
    },
    'hash',
  ],
  [
    'says another length',
    isModel,
    ({ response, body }) => {
      const other = new Uint8Array(body.length + 100);
      response.writeHead(200, { 'content-length': String(other.length) });
      response.end(other);
      return true;
    },
    'hash',
  ],
  [
    'says a length below the real one',
    isModel,
    ({ response, body }) => {
      response.writeHead(200, { 'content-length': String(body.length - 100) });
      response.end(body.subarray(0, -100));
      return true;
    },
    'hash',
  ],
  [
    'sends without end',
    (path) => path.endsWith('.release.json'),
    ({ response }) => {
      response.writeHead(200, { 'content-type': 'application/octet-stream' });
      const pour = (): void => {
        while (!response.destroyed && response.write(new Uint8Array(65_536)));
        if (!response.destroyed) response.once('drain', pour);
      };
      pour();
      return true;
    },
    'hash',
  ],
  [
    'answers with other ranges than it was asked for',
    isModel,
    ({ response, body }) => {
      response.writeHead(206, {
        'content-range': `bytes 8192-${8192 + body.length - 1}/${body.length + 8192}`,
        'content-length': String(body.length),
      });
      response.end(body);
      return true;
    },
    'network',
  ],
  ['has a wrong bit in the model', isModel, garbled, 'hash'],
  ['has a wrong bit in the manifest', (path) => path.endsWith('.release.json'), garbled, 'hash'],
  ['has a wrong bit in the golden inputs', (path) => path.endsWith('.golden.json'), garbled, 'hash'],
  ['answers with a web page instead of the model', isModel, html, 'network'],
  ['answers with a web page instead of metadata', (path) => path.startsWith('/v1/tip'), html, 'network'],
  ['has a wrong bit in the targets', (path) => path.endsWith('.targets.json'), garbled, 'hash'],
  ['has a wrong bit in the tip', (path) => path.startsWith('/v1/tip'), garbled, ''],
  [
    'answers with JSON that is no metadata',
    (path) => path.startsWith('/v1/tip'),
    instead(200, { 'content-type': 'application/json' }, '{"roots":[],"timestamp":"{}","snapshot":"{}"}'),
    'trust',
  ],
  ['does not have the model', isModel, instead(404, {}, 'Not found'), 'network'],
  ['does not have the metadata', (path) => path.startsWith('/v1/tip'), instead(404, {}), 'network'],
  ['is overloaded', isModel, instead(503, { 'retry-after': '86400' }), 'network'],
  [
    'redirects in circles',
    isModel,
    ({ response, path }) => {
      response.writeHead(302, { location: path });
      response.end();
      return true;
    },
    'network',
  ],
  [
    'redirects the poll in circles',
    (path) => path.startsWith('/v1/tip'),
    ({ response, path }) => {
      response.writeHead(307, { location: path });
      response.end();
      return true;
    },
    'network',
  ],
  [
    'says that the model is compressed, which it is not',
    isModel,
    ({ response, body }) => {
      response.writeHead(200, { 'content-encoding': 'gzip' });
      response.end(body);
      return true;
    },
    'network',
  ],
  ['answers with nothing', isModel, instead(200, { 'content-length': '0' }), 'hash'],
];

describe.each(faults)('a server that %s', (_, on, spoil, reason) => {
  it('stops the update and nothing else, and the log says why', async () => {
    const { world, device, model, directory } = await startWithOne();
    world.spoil = (exchange) => on(exchange.path) && spoil(exchange);
    await rest(device);
    expect(await factorOf(model)).toBe(1);
    const last = (await device.inlay.updates.history()).at(-1);
    expect(['error', 'checked']).toContain(last?.type);
    expect(last?.detail).not.toBe('');
    if (reason !== '') expect(last?.reason).toBe(reason);
    const { committed, trial: tried, rejected } = await device.slots();
    expect([committed?.release.version, tried, rejected]).toEqual(['1', undefined, []]);
    world.spoil = undefined;
    await device.inlay.checkForUpdates();
    await commit(device, model, 2);
    expect(await factorOf(model)).toBe(2);
    expect(await wrongBlobs(directory)).toEqual([]);
    expect((await listFiles(directory)).filter((file) => /\.part$/.test(file))).toEqual([]);
  });
});

describe('a server that changes what it should not', () => {
  it('and ignores ranges still gives the whole file', async () => {
    const { world, device, model } = await startWithOne();
    let cuts = 0;
    world.spoil = ({ path, response, headers, body, request }) => {
      if (!isModel(path)) return false;
      const whole = world.repository.blobs.get(/([0-9a-f]{64})/.exec(path)?.[1] ?? '') ?? body;
      const { 'content-range': _, ...others } = headers;
      response.writeHead(200, { ...others, 'content-length': String(whole.length) });
      if (cuts === 0) {
        cuts += 1;
        response.write(whole.subarray(0, 20_000), () => response.destroy());
      } else {
        expect(request.headers.range).toBeDefined();
        response.end(whole);
      }
      return true;
    };
    await device.inlay.checkForUpdates();
    await commit(device, model, 2);
    expect(cuts).toBe(1);
  });

  it.each([
    ['says so', true],
    ['does not say so', false],
  ])('and has another file behind the second range, and %s, is found out', async (_, isHonest) => {
    const { world, device, model } = await startWithOne();
    let requests = 0;
    world.spoil = ({ path, request, response, status, headers, body }) => {
      if (!isModel(path)) return false;
      requests += 1;
      if (requests === 1) {
        response.writeHead(status, headers);
        response.write(body.subarray(0, 20_000), () => response.destroy());
        return true;
      }
      const first = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
      const rest = body.length - (status === 206 ? 0 : first);
      response.writeHead(206, {
        ...headers,
        ...(isHonest && { etag: '"another"' }),
        'content-range': `bytes ${first}-${first + rest - 1}/${first + rest}`,
        'content-length': String(rest),
      });
      response.end(new Uint8Array(rest).fill(7));
      return true;
    };
    await rest(device);
    expect(requests).toBeGreaterThan(1);
    expect(await factorOf(model)).toBe(1);
    expect(await device.events()).toContain('error hash');
    world.spoil = undefined;
    await device.inlay.checkForUpdates();
    await commit(device, model, 2);
  });

  it('and goes back to older metadata brings no older version back', async () => {
    const { world, device, model } = await startWithOne();
    const { files } = world.repository;
    await device.inlay.checkForUpdates();
    await commit(device, model, 2);
    const kept = world.repository.files;
    await world.ship(3, { trial });
    await device.inlay.checkForUpdates();
    await commit(device, model, 3);
    for (const older of [files, kept]) {
      world.repository.files = older;
      await expect(device.inlay.checkForUpdates()).rejects.toMatchObject({ name: 'TrustError' });
      expect(await factorOf(model)).toBe(3);
    }
    expect(await device.events()).toContain('checked trust');
  });

  it('and compresses what it should not sends the right bytes all the same', async () => {
    const { world, device, model } = await startWithOne();
    world.spoil = ({ path, response, body, status }) => {
      if (!isModel(path) || status !== 200) return false;
      response.writeHead(200, { 'content-encoding': 'gzip' });
      response.end(gzipSync(body));
      return true;
    };
    await device.inlay.checkForUpdates();
    await commit(device, model, 2);
  });
});

describe('a clock', () => {
  it.each([
    ['of 1970', 0],
    ['of 2100', Date.UTC(2100, 0, 1)],
  ])('%s stops no inference, and the update comes when it is right', async (_, nowMs) => {
    const { world, device, model, directory } = await startWithOne();
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
    const { world, device, model } = await startWithOne({ platform: { now: () => now() } });
    now = () => jumpMs;
    await device.inlay.checkForUpdates().catch(() => {});
    for (let call = 0; call < 5; call += 1) await model.run({ x: [1, -2] });
    now = () => Date.now();
    await device.inlay.checkForUpdates();
    await commit(device, model, 2);
    await world.ship(3, { trial });
    now = () => jumpMs;
    for (let call = 0; call < 5; call += 1) expect(await factorOf(model)).toBe(2);
    now = () => Date.now();
    await device.inlay.checkForUpdates();
    await commit(device, model, 3);
  });

  it('that is set back revives no metadata that is older than what is known', async () => {
    let now: () => number = () => Date.now();
    const { world, device, model } = await startWithOne({ platform: { now: () => now() } });
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
    const { world, device, model, directory } = await startWithOne({
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
