import { tensorFrom } from 'inlay';
import { describe, expect, it } from 'vitest';
import {
  blobsOf,
  codeIn,
  codeOf,
  factorOf,
  failsAtRun,
  graphOf,
  nextOf,
  scale,
  startDevice,
  startWorld,
  update,
  type Answer,
  type Spoiler,
} from './follow-fixture.ts';

const day = 86_400_000;
const page = new TextEncoder().encode('<!doctype html><title>Log in</title>');
const html = (): Answer => ({ status: 200, type: 'text/html', bytes: page });

/** Spoils answers at paths that begin so. */
const at = (prefix: string, spoil: (real: Answer) => Answer | 'cut'): Spoiler => {
  return (path, real) => (path.startsWith(prefix) ? spoil(real) : undefined);
};
const atTip = (spoil: (real: Answer) => Answer | 'cut'): Spoiler => at('/v1/tip', spoil);
const atFile = (spoil: (real: Answer) => Answer | 'cut'): Spoiler => at('/v1/targets/', spoil);
const withBytes = (change: (bytes: Uint8Array) => Uint8Array) => (real: Answer) => ({
  ...real,
  bytes: change(real.bytes),
});

describe('while the server is unreachable', () => {
  it('a first load says so, and works once it is back', async () => {
    const world = await startWorld();
    await world.ship(1);
    const { inlay, load } = await startDevice(world);
    await world.network.goDown();
    await expect(load()).rejects.toMatchObject({
      code: 'ERR_INLAY_MODEL_UNAVAILABLE',
      cause: { code: 'ERR_INLAY_NETWORK' },
    });
    expect(codeIn(inlay.info().sync?.lastError)).toBe('ERR_INLAY_NETWORK');
    await world.network.comeBack();
    expect(await factorOf(await load())).toBe(1);
  });

  it('the model goes on answering, and updates once it is back', async () => {
    const world = await startWorld();
    await world.ship(1);
    const { inlay, load } = await startDevice(world);
    const model = await load();
    await world.network.goDown();
    await world.ship(2);
    expect(await codeOf(inlay.checkForUpdates())).toBe('ERR_INLAY_NETWORK');
    expect(codeIn(inlay.info().sync?.lastError)).toBe('ERR_INLAY_NETWORK');
    expect(await factorOf(model)).toBe(1);
    await world.network.comeBack();
    expect(await update(inlay, model)).toBe('swapped to 2');
    expect(await factorOf(model)).toBe(2);
    expect(inlay.info().sync?.lastError).toBeUndefined();
  });
});

/** Changes one character inside the first signature. */
const forge = withBytes((bytes) => {
  const text = new TextDecoder().decode(bytes);
  const forged = text.replace(
    /(\\"sig\\":\\")(.)/,
    (_, key: string, first: string) => key + (first === '0' ? '1' : '0'),
  );
  expect(forged).not.toBe(text);
  return new TextEncoder().encode(forged);
});

describe.each<[string, Spoiler, string]>([
  ['a web page', atTip(html), 'ERR_INLAY_HTTP_CONTENT'],
  [
    'a web page that says it is JSON',
    atTip((real) => ({ ...real, status: 200, type: 'application/json', bytes: page })),
    'ERR_INLAY_HTTP_CONTENT',
  ],
  ['status 500', atTip((real) => ({ ...real, status: 500 })), 'ERR_INLAY_HTTP_STATUS'],
  [
    'half of the metadata',
    atTip(withBytes((bytes) => bytes.subarray(0, bytes.length >> 1))),
    'ERR_INLAY_HTTP_CONTENT',
  ],
  ['a connection that breaks', atTip(() => 'cut'), 'ERR_INLAY_NETWORK'],
  ['a wrong signature', atTip(forge), 'ERR_INLAY_SIGNATURE'],
  ['endless metadata', atTip(withBytes(() => new Uint8Array(8_000_001).fill(0x20))), 'ERR_INLAY_LENGTH'],
  [
    'releases with other content',
    at(
      '/v1/metadata/',
      withBytes((bytes) => bytes.map((byte, i) => (i === 99 ? byte ^ 1 : byte))),
    ),
    'ERR_INLAY_HASH',
  ],
])('while the server answers with %s', (_, spoil, code) => {
  it('a first load fails and the next one works; a model goes on answering and updates later', async () => {
    const world = await startWorld();
    await world.ship(1);
    const { inlay, load } = await startDevice(world);
    world.network.spoil = spoil;
    await expect(load()).rejects.toMatchObject({ code: 'ERR_INLAY_MODEL_UNAVAILABLE', cause: { code } });
    world.network.spoil = undefined;
    const model = await load();
    expect(await factorOf(model)).toBe(1);

    await world.ship(2);
    world.network.spoil = spoil;
    expect(await codeOf(inlay.checkForUpdates())).toBe(code);
    expect(codeIn(inlay.info().sync?.lastError)).toBe(code);
    expect(await factorOf(model)).toBe(1);
    world.network.spoil = undefined;
    expect(await update(inlay, model)).toBe('swapped to 2');
    expect(await factorOf(model)).toBe(2);
    expect(inlay.info().sync?.lastError).toBeUndefined();
  });
});

describe('metadata of the past', () => {
  it('is refused when it was replaced since, also by the next process', async () => {
    const world = await startWorld();
    await world.ship(1);
    const old: Record<string, Answer> = {};
    world.network.spoil = (path, real) => void (real.status === 200 && (old[path] = real));
    const { inlay, load, directory } = await startDevice(world);
    const model = await load();
    await world.ship(2);
    world.network.spoil = undefined;
    expect(await update(inlay, model)).toBe('swapped to 2');
    world.network.spoil = (path) => old[path];
    expect(await codeOf(inlay.checkForUpdates())).toBe('ERR_INLAY_ROLLBACK');
    expect(codeIn(inlay.info().sync?.lastError)).toBe('ERR_INLAY_ROLLBACK');
    expect(await factorOf(model)).toBe(2);
    await inlay.close();

    const again = await startDevice(world, { directory });
    const restarted = await again.load();
    expect(await codeOf(again.inlay.checkForUpdates())).toBe('ERR_INLAY_ROLLBACK');
    expect(await factorOf(restarted)).toBe(2);
    world.network.spoil = undefined;
    await world.ship(3);
    expect(await update(again.inlay, restarted)).toBe('swapped to 3');
  });

  it('is refused when it has expired: nothing new starts, and what runs goes on', async () => {
    const world = await startWorld();
    await world.ship(1);
    let aheadMs = 0;
    const { inlay, load, directory } = await startDevice(world, { aheadMs: () => aheadMs });
    const model = await load();
    await world.ship(2);
    aheadMs = 30 * day;
    expect(await codeOf(inlay.checkForUpdates())).toBe('ERR_INLAY_EXPIRED');
    expect(codeIn(inlay.info().sync?.lastError)).toBe('ERR_INLAY_EXPIRED');
    expect(await factorOf(model)).toBe(1);
    await inlay.close();

    const again = await startDevice(world, { directory, aheadMs: () => aheadMs });
    const restarted = await again.load();
    expect(await factorOf(restarted)).toBe(1);
    const newcomer = await startDevice(world, { aheadMs: () => aheadMs });
    await expect(newcomer.load()).rejects.toMatchObject({
      code: 'ERR_INLAY_MODEL_UNAVAILABLE',
      cause: { code: 'ERR_INLAY_EXPIRED' },
    });
    aheadMs = 0;
    expect(await update(again.inlay, restarted)).toBe('swapped to 2');
    expect(await factorOf(restarted)).toBe(2);
  });
});

describe.each<[string, Spoiler, string]>([
  ['its end missing', atFile(withBytes((bytes) => bytes.subarray(0, -1))), 'ERR_INLAY_LENGTH'],
  ['bytes appended', atFile(withBytes((bytes) => Buffer.concat([bytes, bytes]))), 'ERR_INLAY_LENGTH'],
  [
    'a bit flipped',
    atFile(withBytes((bytes) => bytes.map((byte, i) => (i === bytes.length >> 1 ? byte ^ 8 : byte)))),
    'ERR_INLAY_HASH',
  ],
  ['a web page in its place', atFile(html), 'ERR_INLAY_HTTP_CONTENT'],
  ['a web page under its type in its place', atFile(withBytes(() => page)), 'ERR_INLAY_LENGTH'],
  ['status 404', atFile((real) => ({ ...real, status: 404 })), 'ERR_INLAY_HTTP_STATUS'],
  ['status 503', atFile((real) => ({ ...real, status: 503 })), 'ERR_INLAY_HTTP_STATUS'],
  ['a connection that breaks', atFile(() => 'cut'), 'ERR_INLAY_NETWORK'],
])('a model file that arrives with %s', (_, spoil, code) => {
  it('is not kept; the model goes on answering and takes the file when it is right', async () => {
    const world = await startWorld();
    await world.ship(1);
    const { inlay, load, directory } = await startDevice(world);
    world.network.spoil = spoil;
    await expect(load()).rejects.toMatchObject({ code: 'ERR_INLAY_MODEL_UNAVAILABLE', cause: { code } });
    expect(await blobsOf(directory)).toEqual([]);
    world.network.spoil = undefined;
    const model = await load();
    await world.ship(2);
    world.network.spoil = spoil;
    expect(await update(inlay, model)).toBe(code);
    expect(await factorOf(model)).toBe(1);
    expect(await blobsOf(directory)).toHaveLength(1);
    world.network.spoil = undefined;
    expect(await update(inlay, model)).toBe('swapped to 2');
    expect(await factorOf(model)).toBe(2);
  });
});

/** Multiplies what its only input takes by 9. */
function nines(
  input: string,
  shape: readonly (string | number)[],
  outputs: readonly string[],
): Uint8Array<ArrayBuffer> {
  return graphOf((graph) => {
    graph.input(input, 'float32', shape);
    graph.initializer('nine', tensorFrom('float32', [9]));
    for (const output of outputs) {
      graph.node('Mul', [input, 'nine'], {}, { outputs: [output] });
      graph.output(output, 'float32', shape);
    }
  });
}

const unknownOperator = graphOf((graph) => {
  graph.input('x', 'float32', ['batch', 2]);
  graph.node('Transmogrify', ['x'], {}, { outputs: ['y'] });
  graph.output('y', 'float32', ['batch', 2]);
});

describe.each<[string, Uint8Array<ArrayBuffer>, string]>([
  ['is no model', new TextEncoder().encode('These are the release notes.'), 'ERR_INLAY_MODEL_INVALID'],
  ['is empty', new Uint8Array(), 'ERR_INLAY_MODEL_INVALID'],
  ['was cut before it was signed', scale(2).slice(0, -20), 'ERR_INLAY_MODEL_INVALID'],
  ['has an operator that nobody knows', unknownOperator, 'ERR_INLAY_MODEL_UNSUPPORTED'],
  ['fails at its first run', failsAtRun, 'ERR_INLAY_RUN_FAILED'],
])('a signed release that %s', (_, bytes, code) => {
  it('is tried once and left; the next good one is taken', async () => {
    const world = await startWorld();
    await world.ship(1, bytes);
    const newcomer = await startDevice(world);
    await expect(newcomer.load()).rejects.toMatchObject({
      code: 'ERR_INLAY_MODEL_UNAVAILABLE',
      cause: { code },
    });
    await world.ship(2);
    const { inlay, load } = await startDevice(world);
    const model = await load();
    await world.ship(3, bytes);
    expect(await update(inlay, model)).toBe(code);
    const reason = code === 'ERR_INLAY_MODEL_UNSUPPORTED' ? 'incompatible' : 'open';
    const { rejected } = (await inlay.updates.state())?.models['digits'] ?? {};
    expect(rejected).toMatchObject([{ version: '3', reason, count: 1 }]);
    expect(inlay.info().models).toHaveLength(1);
    expect(await factorOf(model)).toBe(2);

    const outcomes: string[] = [];
    void nextOf(model).then((outcome) => outcomes.push(outcome));
    world.network.requests();
    await inlay.checkForUpdates();
    await inlay.checkForUpdates();
    expect(world.network.requests()).toEqual(['/v1/tip?root=1', '/v1/tip?root=1']);
    expect(outcomes).toEqual([]);

    await world.ship(4);
    expect(await update(inlay, model)).toBe('swapped to 4');
    expect(await factorOf(model)).toBe(4);
    expect(await factorOf(await newcomer.load())).toBe(4);
  });
});

describe('a release with another signature', () => {
  it.each([
    ['takes', nines('z', ['batch', 2], ['y'])],
    ['gives', nines('x', ['batch', 2], ['z'])],
  ])('is left if calls would fail by what it %s', async (_, bytes) => {
    const world = await startWorld();
    await world.ship(1);
    const { inlay, load } = await startDevice(world);
    const model = await load();
    await world.ship(2, bytes);
    expect(await update(inlay, model)).toBe('ERR_INLAY_MODEL_UNSUPPORTED');
    expect(await factorOf(model)).toBe(1);
    await world.ship(3);
    expect(await update(inlay, model)).toBe('swapped to 3');
  });

  it('is taken if every call goes on working', async () => {
    const world = await startWorld();
    await world.ship(1, nines('x', [1, 2], ['y']));
    const { inlay, load } = await startDevice(world);
    const model = await load();
    await world.ship(2, nines('x', ['batch', 2], ['y', 'z']));
    expect(await update(inlay, model)).toBe('swapped to 2');
    expect(await factorOf(model)).toBe(9);
  });

  it('is taken by an app that starts with it', async () => {
    const world = await startWorld();
    await world.ship(1, nines('z', ['batch', 2], ['y']));
    const model = await (await startDevice(world)).load();
    expect((await model.run({ z: [1, 2] }))['y']?.data).toEqual(new Float32Array([9, 18]));
  });
});
