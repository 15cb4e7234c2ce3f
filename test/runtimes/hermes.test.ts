import { execFile } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { toUtf8 } from '../../src/core/bytes.ts';
import { targetUrl } from '../../src/update/download.ts';
import { nameOf } from '../conformance/store.ts';
import { testPlatform } from '../core/platform.ts';
import { createRepository, serve, type Repository } from '../core/publish/repository.ts';

const execute = promisify(execFile);
const here = fileURLToPath(new URL('.', import.meta.url));
const root = fileURLToPath(new URL('../..', import.meta.url));
const packages = join(here, 'node_modules');
const system = { linux: 'linux64-bin', darwin: 'osx-bin', win32: 'win64-bin' }[process.platform as string];
const hermes = join(
  packages,
  'hermes-engine-cli',
  system ?? '-',
  `hermes${process.platform === 'win32' ? '.exe' : ''}`,
);
const missing = [hermes, join(packages, 'metro'), join(packages, '@react-native/babel-preset')].find(
  (path) => !existsSync(path),
);
const skips = ['1', 'true'].includes(process.env['INLAY_SKIP_RUNTIMES'] ?? '');
const reason = skips ? 'INLAY_SKIP_RUNTIMES is set' : missing && `${missing} is not installed`;
if (reason !== undefined) console.log(`The tests in Hermes are skipped: ${reason}.`);

const image = Array.from({ length: 16 }, (_, i) => Math.fround(i / 16));

/** A dense layer, as the stand-in for the native library reads it. */
function layer(seed: number): { readonly model: Uint8Array; readonly logits: readonly number[] } {
  const weights = image.map((_, i) =>
    Array.from({ length: 3 }, (__, out) => ((i * 7 + out * seed) % 11) / 8 - 0.5),
  );
  const bias = [0.25, -0.5, seed];
  const logits = bias.map((start, out) =>
    Math.fround(weights.reduce((sum, line, i) => sum + (line[out] ?? 0) * (image[i] ?? 0), start)),
  );
  return { model: toUtf8(JSON.stringify({ weights, bias })), logits };
}

interface Answer {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: readonly number[];
}

/** Everything that a device may ask the server for now. */
async function answersOf(repository: Repository): Promise<Record<string, Answer>> {
  const { fetch } = serve(() => repository);
  const paths = [
    ...repository.roots.map((_, i) => `/v1/tip?root=${i + 1}`),
    `/v1/metadata/${repository.targetsBody.version}.targets.json`,
    ...Object.entries(repository.targetsBody.targets).map(([path, target]) =>
      targetUrl('', { path, sha256: target.hashes.sha256 ?? '' }),
    ),
  ];
  const answers: Record<string, Answer> = {};
  for (const path of paths) {
    const response = await fetch(`https://sync.test${path}`);
    if (!response.ok) throw new Error(`The test server has no ${path}.`);
    const headers = Object.fromEntries(response.headers);
    answers[`https://sync.test${path}`] = {
      headers,
      body: [...new Uint8Array(await response.arrayBuffer())],
    };
  }
  return answers;
}

/** Changes one letter of what was signed online. */
function tamper(answers: Record<string, Answer>): Record<string, Answer> {
  return Object.fromEntries(
    Object.entries(answers).map(([url, { body }]) => {
      const text = Buffer.from(body).toString();
      const changed = text.replace(
        /\\"sig\\":\\"(\w)/g,
        (whole, letter) => whole.slice(0, -1) + (letter === '0' ? '1' : '0'),
      );
      return [url, { headers: { 'content-type': 'application/json' }, body: [...Buffer.from(changed)] }];
    }),
  );
}

/** Bundles an app, runs it, and gives what it printed last. */
async function play(app: string, native?: string): Promise<Record<string, unknown>> {
  const bundle = `${app}.bundle.js`;
  const extras = native === undefined ? [] : [`onnxruntime-react-native=${native}`];
  await execute(process.execPath, [join(here, 'metro-bundle.mjs'), app, bundle, ...extras]);
  const { stdout } = await execute(hermes, [bundle], { timeout: 240_000, maxBuffer: 1 << 26 });
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '{}') as Record<string, unknown>;
}

const newDirectory = (): string => mkdtempSync(join(tmpdir(), 'inlay-hermes-'));

describe.skipIf(reason !== undefined)('in Hermes, bundled by Metro', () => {
  const first = layer(1);
  const second = layer(2);
  let directory = '';
  let said: Record<string, unknown> = {};

  beforeAll(async () => {
    directory = newDirectory();
    const app = join(directory, 'app');
    cpSync(join(here, 'hermes-app'), app, { recursive: true });
    const repository = await createRepository(testPlatform());
    const one = await repository.release('digits', '1.0.0', first.model);
    await repository.rollOut(one, 100);
    const states = { first: await answersOf(repository), tampered: {}, second: {} };
    const two = await repository.release('digits', '1.1.0', second.model);
    await repository.rollOut(two, 100);
    states.second = await answersOf(repository);
    states.tampered = tamper(await answersOf(repository));
    const fixture = {
      hashes: ['', 'abc', 'a'.repeat(119), 'abcdefgh'.repeat(9000)].map((text) => [
        text,
        nameOf(toUtf8(text)),
      ]),
      model: [...first.model],
      image,
      root: Buffer.from(repository.roots[0] ?? []).toString(),
      states,
    };
    writeFileSync(join(app, 'fixture.json'), JSON.stringify(fixture));
    said = await play(app, join(here, 'hermes-app/native'));
  }, 300_000);
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  it('comes to the end', () => {
    expect(said['failed']).toBeUndefined();
  });

  it('keeps blobs by their SHA-256', () => {
    for (const bytes of [0, 3, 119, 72_000]) expect(said[`sha256 of ${bytes} bytes`]).toBe(true);
    expect(said['another wrong hash']).toBe('ERR_INLAY_STORE_MISMATCH');
  });

  it('runs a model from a file of the app', () => {
    expect(said['signature']).toMatchObject({ inputs: [{ name: 'image', shape: ['batch', 16] }] });
    expect(said['logits']).toEqual(first.logits);
    expect(said['logits of a view']).toEqual(first.logits);
    expect(said['all at once']).toBe(true);
  });

  it('takes a signal, and gives up what it aborts', () => {
    expect(said['logits with a signal']).toEqual(first.logits);
    expect(said['given up']).toEqual(Array(4).fill('AbortError: This operation was aborted.'));
  });

  it('says what is wrong', () => {
    expect(said).toMatchObject({
      'missing file': 'ERR_INLAY_MODEL_NOT_FOUND',
      'broken file': 'ERR_INLAY_MODEL_INVALID',
      'wrong feed': 'ERR_INLAY_FEED_SHAPE',
      closed: 'ERR_INLAY_CLOSED',
    });
  });

  it('follows signed releases, and swaps while it runs', () => {
    expect(said).toMatchObject({
      offline: 'ERR_INLAY_MODEL_UNAVAILABLE',
      'first version': '1.0.0',
      'first logits': first.logits,
      'second version': '1.1.0',
      'second logits': second.logits,
    });
  });

  it('refuses what nobody signed', () => {
    expect(said).toMatchObject({ tampered: 'ERR_INLAY_SIGNATURE', 'version after it': '1.0.0' });
  });

  it('rests in the background and asks when the app comes back', () => {
    expect(said).toMatchObject({ polls: true, 'polls in the background': 0, 'polls on the way back': 1 });
  });

  it('starts without network from what it has kept', () => {
    expect(said['version after a restart without network']).toBe('1.1.0');
    expect(said['info']).toMatchObject({
      kept: { kind: 'react-native-fs', location: '/data/app/cache/inlay' },
      backends: ['onnxruntime-react-native'],
      runtime: 'react-native',
    });
  });

  it('tells what it counted, also on the way to the background, and is forgotten when asked', () => {
    expect(said).toMatchObject({
      'calls reported': 3,
      'calls reported in the background': 4,
      'state of telemetry': { queued: 0, lastError: null },
      // The class of apps on phones.
      reporters: ['react-native 11 true'],
      forgotten: true,
    });
  });
});

describe.skipIf(reason !== undefined)('an app without the native library, bundled by Metro', () => {
  const index = `
    import './environment.js';
    import { createInlay } from 'inlay';
    const inlay = createInlay();
    const load = () => inlay.load(Uint8Array.of(1)).catch(({ code, message }) => ({ code, message }));
    load().then(async (first) => print(JSON.stringify({ first, second: await load() })));`;

  it.each([
    ['is not installed', undefined, 'ERR_INLAY_BACKEND_MISSING', /expo install onnxruntime-react-native/],
    [
      'is not linked',
      // As its binding.js in Expo Go, where the native module is null.
      `const module = null; module.install(); exports.InferenceSession = {};`,
      'ERR_INLAY_BACKEND_UNAVAILABLE',
      /No execution provider works.*expo prebuild/,
    ],
  ])(
    'starts when it %s, and says so when a model is loaded',
    async (_, library, code, advice) => {
      const directory = newDirectory();
      try {
        const app = join(directory, 'app');
        const native = join(directory, 'native');
        for (const folder of [app, native]) mkdirSync(folder);
        cpSync(join(here, 'hermes-app/environment.js'), join(app, 'environment.js'));
        writeFileSync(join(app, 'index.js'), index);
        writeFileSync(
          join(native, 'package.json'),
          '{ "name": "onnxruntime-react-native", "main": "index.js" }',
        );
        writeFileSync(join(native, 'index.js'), library ?? '');
        const { first, second } = await play(app, library === undefined ? undefined : native);
        for (const failure of [first, second]) {
          expect(failure).toMatchObject({ message: expect.stringMatching(advice) });
        }
        expect(first).toMatchObject({ code });
        expect(second).toMatchObject({ code });
      } finally {
        rmSync(directory, { recursive: true, force: true });
      }
    },
    300_000,
  );
});

it.skipIf(reason !== undefined)(
  'the example for Expo is bundled by Metro, with its model, and compiles in Hermes',
  async () => {
    const directory = newDirectory();
    try {
      const app = join(directory, 'app');
      cpSync(join(root, 'examples/expo'), app, { recursive: true });
      mkdirSync(join(app, 'assets'), { recursive: true });
      cpSync(join(root, 'examples/digits/digits-1.0.0.onnx'), join(app, 'assets/digits.onnx'));
      // What only apps install: Metro has to find it, whatever is in it.
      const stub = join(directory, 'stub');
      mkdirSync(stub);
      for (const file of ['index.js', 'jsx-runtime.js'])
        writeFileSync(join(stub, file), 'module.exports = {};');
      const names = ['expo', 'expo-asset', 'expo-crypto', 'expo-file-system', 'react', 'react-native'];
      const bundle = join(directory, 'bundle.js');
      const extras = [...names, 'onnxruntime-react-native'].map((name) => `${name}=${stub}`);
      await execute(process.execPath, [join(here, 'metro-bundle.mjs'), app, bundle, ...extras]);
      const text = readFileSync(bundle, 'utf8');
      expect(text).toMatch(/"digits".*"onnx"|type:\s*"onnx"/s);
      const code = join(directory, 'bundle.hbc');
      await execute(hermes, ['-O', '-emit-binary', '-out', code, bundle]);
      expect(statSync(code).size).toBeGreaterThan(100_000);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  },
  300_000,
);
