import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { isInlayError } from '../../src/core/errors.ts';
import { commit, factorOf, listFiles, wrongBlobs, type Device } from './heal-device.ts';
import { patientTrial, prepareOutdated } from './heal-outdated.ts';
import type { Exchange, Spoiler } from './heal-world.ts';

const { start } = prepareOutdated();

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
    const { world, device, model, directory } = await start();
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
    expect((await listFiles(directory)).filter((file) => /^(parts|tmp)\//.test(file))).toEqual([]);
  });
});

describe('a server that changes what it should not', () => {
  it('and ignores ranges still gives the whole file', async () => {
    const { world, device, model } = await start();
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
    const { world, device, model } = await start();
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
      const restBytes = body.length - (status === 206 ? 0 : first);
      response.writeHead(206, {
        ...headers,
        ...(isHonest && { etag: '"another"' }),
        'content-range': `bytes ${first}-${first + restBytes - 1}/${first + restBytes}`,
        'content-length': String(restBytes),
      });
      response.end(new Uint8Array(restBytes).fill(7));
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
    const { world, device, model } = await start();
    const { files } = world.repository;
    await device.inlay.checkForUpdates();
    await commit(device, model, 2);
    const kept = world.repository.files;
    await world.ship(3, { trial: patientTrial });
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
    const { world, device, model } = await start();
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
