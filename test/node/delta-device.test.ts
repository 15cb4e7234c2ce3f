import { gunzipSync } from 'node:zlib';
import { createInlay, type Inlay } from 'inlay';
import { createMemoryStore } from 'inlay/stores/memory';
import { expect, it, onTestFinished } from 'vitest';
import { createAdminClient } from '../../src/cli/admin-client.ts';
import { openKeyDirectory } from '../../src/cli/key-directory.ts';
import { createDeltaEncoder } from '../../src/publish/delta/encoder.ts';
import type { PatchEncoder } from '../../src/publish/patches.ts';
import { publishRelease } from '../../src/publish/publisher.ts';
import { createRandom } from '../../src/stats/random.ts';
import { startUser } from './cli-user.ts';
import { backends, factorOf, platformOf, update } from './follow-fixture.ts';
import { scale } from './publish-fixture.ts';
import { expectOk, tipOf } from './server-fixture.ts';

const weights = Float32Array.from({ length: 5000 }, createRandom(1));

/** `x · factor` with weights that each version moves a little, as training on does. */
function trained(factor: number, seed: number = factor): Uint8Array<ArrayBuffer> {
  const random = createRandom(seed);
  return scale(
    factor,
    weights.map((weight) => weight + 1e-5 * random()),
  );
}

/** A patch as somebody makes it who gets it wrong. */
type Fault = (real: PatchEncoder) => PatchEncoder;

const none: Fault = ({ codec, encode }) => ({ codec, encode });
const alone: Fault = (real) => real;
const damagedAlone: Fault = ({ encodeAlone, ...real }) => ({
  ...real,
  encodeAlone: async (next) => {
    const patch = (await encodeAlone?.(next)) ?? next;
    patch[patch.length - 1] = 1 ^ (patch.at(-1) ?? 0);
    return patch;
  },
});
const damaged: Fault = ({ codec, encode }) => ({
  codec,
  encode: async (base, next) => {
    const patch = await encode(base, next);
    patch[patch.length - 1] = 1 ^ (patch.at(-1) ?? 0);
    return patch;
  },
});
const ofAnotherBase: Fault = ({ codec, encode }) => ({
  codec,
  encode: (base, next) => encode(base.slice().reverse(), next),
});
const ofAnotherTarget: Fault = ({ codec, encode }) => ({
  codec,
  encode: (base, next) => {
    const other = next.slice();
    other[other.length - 1] = 1 ^ (other.at(-1) ?? 0);
    return encode(base, other);
  },
});
const ofUnknownFormat: Fault = ({ encode }) => ({ codec: 'other', encode });

it('brings new versions as patches, and whole where that fails, with the reason in the history and for the server', async () => {
  const { server, path } = await startUser();
  const { platform, url, token } = server;
  const keys = openKeyDirectory(path('inlay-keys'), platform);
  const admin = createAdminClient({ server: url, token, platform });
  const ship = async (version: number, fault: Fault = none, seed: number = version): Promise<void> => {
    const patchFrom = version === 1 ? {} : { patchFrom: [String(version - 1)] };
    await publishRelease(
      { server: admin, keys, platform, encoders: [fault(createDeltaEncoder({ platform }))] },
      trained(version, seed),
      { model: 'digits', version: String(version), file: 'digits.onnx', ...patchFrom },
    );
    const rollout = { version: String(version), percent: 100, trial: { maxP95Percent: 1_000_000 } };
    await expectOk(server.put('rollouts/stable/digits', JSON.stringify(rollout)));
  };
  const [root = ''] = (await tipOf(server)).roots;
  const { start, take } = createDevices(url, root);

  await ship(1);
  const inlay = start();
  const model = await inlay.load({ name: 'digits' });
  expect(take()).toEqual(['digits.onnx']);
  const faults = [none, damaged, ofAnotherBase, ofAnotherTarget, ofUnknownFormat];
  for (const [i, fault] of faults.entries()) {
    const version = i + 2;
    await ship(version, fault);
    expect(await update(inlay, model)).toBe(`swapped to ${version}`);
    expect(await factorOf(model)).toBe(version);
  }
  expect(take()).toEqual([
    'digits.onnx.from-1.idp',
    ...[2, 3, 4].flatMap((from) => [`digits.onnx.from-${from}.idp`, 'digits.onnx']),
    'digits.onnx',
  ]);
  expect(await waysOf(inlay)).toEqual([
    'full',
    'patch',
    ...['patch-failed', 'full'],
    ...['patch-failed', 'full'],
    ...['patch-output-hash', 'full'],
    ...['codec-unknown', 'full'],
  ]);
  await inlay.telemetry.flush();
  expect(take('fall')).toEqual({ patch_failed: 2, patch_output_hash: 1, codec_unknown: 1 });

  await ship(7);
  const fresh = start();
  const late = await fresh.load({ name: 'digits' });
  expect(await factorOf(late)).toBe(7);
  // A first install says nothing of bases that it cannot have.
  expect(await waysOf(fresh)).toEqual(['full']);
  take();

  // Little has changed: two patches cost less than the file.
  for (const version of [8, 9]) await ship(version, none, 7);
  expect(await update(fresh, late)).toBe('swapped to 9');
  expect(await factorOf(late)).toBe(9);
  expect(take()).toEqual(['digits.onnx.from-7.idp', 'digits.onnx.from-8.idp']);
  expect(await waysOf(fresh)).toEqual(['full', 'patch']);
});

it('brings the first version coded by itself, and whole where that fails', async () => {
  const { server, path } = await startUser();
  const { platform, url, token } = server;
  const keys = openKeyDirectory(path('inlay-keys'), platform);
  const admin = createAdminClient({ server: url, token, platform });
  const [root = ''] = (await tipOf(server)).roots;
  const { start, take } = createDevices(url, root);
  for (const [i, fault] of [alone, damagedAlone].entries()) {
    const version = String(i + 1);
    const bytes = trained(i + 1);
    const { ways } = await publishRelease(
      { server: admin, keys, platform, encoders: [fault(createDeltaEncoder({ platform }))] },
      bytes,
      { model: 'digits', version, file: 'digits.onnx' },
    );
    expect(ways).toMatchObject([{ kind: 'compressed', codec: 'idp' }]);
    expect(ways[0]?.sizeBytes).toBeLessThan(0.9 * bytes.length);
    const rollout = JSON.stringify({ version, percent: 100 });
    await expectOk(server.put('rollouts/stable/digits', rollout));
    const inlay = start();
    expect(await factorOf(await inlay.load({ name: 'digits' }))).toBe(i + 1);
    expect(await waysOf(inlay)).toEqual(i === 0 ? ['compressed'] : ['decode-failed', 'full']);
  }
  expect(take()).toEqual(['digits.onnx.idp', 'digits.onnx.idp', 'digits.onnx']);
});

/** Starts devices; tells which files they have asked for, and what they report. */
function createDevices(url: string, root: string) {
  const files: string[] = [];
  const reports: string[] = [];
  const real = platformOf();
  const fetch: typeof real.fetch = async (address, init) => {
    const [, file] = /\/[0-9a-f]{64}\.(digits\.[^/]*)$/.exec(address) ?? [];
    if (file !== undefined) files.push(file);
    if (address.endsWith('/reports'))
      reports.push(textOf(new Uint8Array(await new Response(init?.body).arrayBuffer())));
    return real.fetch(address, init);
  };
  function take(): string[];
  function take(field: 'fall'): Record<string, number>;
  function take(field?: 'fall'): unknown {
    if (field === undefined) return files.splice(0);
    const sums: Record<string, number> = {};
    for (const [, json = '{}'] of reports.join().matchAll(/"fall":(\{[^}]*\})/g))
      for (const [reason, count] of Object.entries(JSON.parse(json) as Record<string, number>))
        sums[reason] = (sums[reason] ?? 0) + count;
    return sums;
  }
  return {
    take,
    start: (): Inlay => {
      const inlay = createInlay({
        backends,
        device: 'cpu',
        store: createMemoryStore(),
        platform: { ...real, fetch },
        sync: { url, root },
        telemetry: { consent: 'necessary' },
      });
      onTestFinished(() => inlay.close());
      return inlay;
    },
  };
}

function textOf(body: Uint8Array): string {
  return Buffer.from(body[0] === 0x1f ? gunzipSync(body) : body).toString();
}

/** How releases came, and why not in another way. */
async function waysOf(inlay: Inlay): Promise<(string | undefined)[]> {
  const history = await inlay.updates.history();
  return history.filter(({ type }) => ['way-failed', 'verified'].includes(type)).map(({ reason }) => reason);
}
