import { readFile } from 'node:fs/promises';
import { afterAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { Backend } from '../../src/core/backend.ts';
import { Tensor, tensorFrom } from '../../src/core/tensor.ts';
import { createBackends, createInlay, type Model } from '../../src/node.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { openFsStore } from '../../src/stores/fs.ts';
import type { Decision } from '../../src/optimize/decision.ts';
import { optimizeVariants } from '../../src/cli/publish-optimize.ts';
import { createGraph, encodeModel } from '../../src/onnx/index.ts';
import { targetUrl } from '../../src/update/download-file.ts';
import type { ModelTarget } from '../../src/trust/metadata.ts';
import { readManifest, type ReleaseManifest } from '../../src/update/manifest.ts';
import { startUser, type User } from './cli-user.ts';
import { openTarget } from './optimize-fixture.ts';
import { temporaryDirectory, verify } from './server-fixture.ts';

vi.mock('../../src/cli/publish-backend.ts', () => import('./publish-fixture.ts'));
vi.mock('../../src/optimize-node/target.ts', () => import('./optimize-fixture.ts'));

const backends = createBackends({ placement: 'inline' });
afterAll(async () => {
  await Promise.all(backends.map((backend) => backend.close()));
});

const width = 64;

/** Numbers that look random and are the same each time. */
function wave(length: number, step: number, scale: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length }, (_, i) => scale * Math.sin(step * i * i + i));
}

/** `x` float32 [batch, 64] → `y`. */
function product(): Uint8Array<ArrayBuffer> {
  const graph = createGraph({ name: 'test', opset: 17 });
  graph.input('x', 'float32', ['batch', width]);
  const w = graph.initializer('w', new Tensor('float32', [width, width], wave(width * width, 0.37, 0.2)));
  graph.node('MatMul', ['x', w], {}, { name: 'fc', outputs: 'y' });
  graph.output('y', 'float32', ['batch', width]);
  return encodeModel(graph.toModel());
}

const examples = Array.from({ length: 40 }, (_, i) =>
  JSON.stringify({ x: [...wave(width, 0.7 + i, 1)] }),
).join('\n');

async function publish(user: User): Promise<{
  optimized: readonly { decision: Decision }[];
  notices: readonly string[];
  manifest: ReleaseManifest;
}> {
  await user.write('m.onnx', product());
  await user.write('examples.jsonl', `${examples}\n`);
  const flags = [
    '--optimize',
    'auto',
    '--optimize-for',
    'node-cpu',
    '--reference',
    'examples.jsonl',
  ] as const;
  const published = await user.json<{
    path: string;
    optimized: readonly { decision: Decision }[];
    notices: string[];
  }>(...['publish', 'm.onnx', '--name', 'digits', '--version', '1'], ...flags);
  const { targets } = await verify(user.server);
  const about = targets.targets[published.path]?.custom as unknown as ModelTarget;
  if (!about.manifest) throw new Error('The release has no manifest.');
  const response = await user.server.get(targetUrl('', about.manifest));
  const manifest = readManifest(new Uint8Array(await response.arrayBuffer()));
  await user.ok('rollout', 'set', 'digits', '1', '--percent', '100');
  return { ...published, manifest };
}

/** What runs on a device that starts anew. */
async function startDevice(user: User, own: readonly Backend[] = backends): Promise<Model> {
  const inlay = createInlay({
    backends: own,
    device: 'cpu',
    store: openFsStore({ directory: await temporaryDirectory() }),
    platform: { ...nodePlatform(), random: () => 0.01 },
    sync: { url: user.server.url, root: await readFile(user.path('inlay-keys/root.json'), 'utf8') },
  });
  onTestFinished(() => inlay.close());
  return inlay.load({ name: 'digits' });
}

/** Backends that get some models wrong, as kernels of a device may. */
function withWrong(broken: (bytes: Uint8Array) => boolean): readonly Backend[] {
  const wrap = (backend: Backend): Backend => {
    const { isolated: _, elsewhere: __, ...rest } = backend;
    return {
      ...rest,
      createSession: async (source, options) => {
        const session = await backend.createSession(source, options);
        const bytes = source.path === undefined ? source.bytes : new Uint8Array(await readFile(source.path));
        if (!broken(bytes)) return session;
        return {
          ...session,
          run: async (feeds, runOptions) => {
            const { y } = await session.run(feeds, runOptions);
            return { y: new Tensor('float32', y?.shape ?? [], new Float32Array(y?.size ?? 0)) };
          },
        };
      },
    };
  };
  return backends.map(wrap);
}

describe('inlay publish --optimize auto', () => {
  it('publishes the variant that won with what it needs and its own tolerance, and devices run it if it is right there', async () => {
    const user = await startUser();
    const { manifest, optimized, notices } = await publish(user);
    const [reference, int8, ...others] = manifest.files;
    expect([reference.variant, int8?.variant, others.length]).toEqual(['fp32', 'int8', 0]);
    expect(int8?.requires).toEqual({ providers: ['cpu'], features: ['native'] });
    expect(int8?.length).toBeLessThan(0.5 * reference.length);
    expect(reference.tolerance).toEqual({ absoluteE6: 100, relativeE6: 1000 });
    expect(int8?.tolerance).toEqual(manifest.golden?.tolerance);
    expect(int8?.tolerance?.absoluteE6).toBeGreaterThan(100);
    expect(optimized[0]?.decision.samples).toEqual({ count: 20, isMadeUp: false });
    expect(notices.join('\n')).toMatch(/int8 is for node-cpu: int8-\S+, \d/);

    const model = await startDevice(user);
    expect([model.variant, model.version]).toEqual(['int8', '1']);
    const { y } = await model.run({ x: tensorFrom('float32', [[...wave(width, 0.7, 1)]]) });
    expect(y?.shape).toEqual([1, width]);

    // A device that gets the variant wrong goes on with the reference of the same release.
    const other = await startDevice(
      user,
      withWrong((bytes) => bytes.length === int8?.length),
    );
    expect([other.variant, other.version]).toEqual(['fp32', '1']);
  });
});

describe('optimizeVariants', () => {
  it('keeps the reference where nothing is faster, and says so for each target', async () => {
    const { variants, notices } = await optimizeVariants({
      file: { variant: 'fp32', file: 'm.onnx', bytes: product() },
      taken: [],
      targets: ['node-cpu'],
      data: undefined,
      tell: () => {},
      open: async () => {
        const runtime = await openTarget();
        return {
          ...runtime,
          open: async (model, options) => ({
            ...(await runtime.open(model, options)),
            time: async (_, runs) => Array<number>(runs).fill(1),
          }),
        };
      },
    });
    expect(variants).toEqual([]);
    expect(notices).toEqual([
      'For node-cpu the reference is kept: nothing is more than 5 % faster than the original; int8-static was not tried: ranges of activations are not known; give calibration data.',
    ]);
  });

  it('gives variants of two targets names of their own', async () => {
    const { variants } = await optimizeVariants({
      file: { variant: 'fp32', file: 'm.onnx', bytes: product() },
      taken: ['int8'],
      targets: ['node-cpu', 'wasm'],
      data: undefined,
      tell: () => {},
      open: async (target) => ({ ...(await openTarget()), target }),
    });
    expect(variants.map(({ variant, file, requires }) => [variant, file, requires?.providers])).toEqual([
      ['int8-cpu', 'int8-cpu-m.onnx', ['cpu']],
      ['int8-wasm', 'int8-wasm-m.onnx', ['wasm']],
    ]);
  });
});
