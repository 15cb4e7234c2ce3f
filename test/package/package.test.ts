import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const exec = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));

interface Manifest {
  readonly exports: Readonly<Record<string, unknown>>;
  readonly bin: Readonly<Record<string, string>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly peerDependencies: Readonly<Record<string, string>>;
}

let app: string;
let installed: string;
let files: readonly string[];
let manifest: Manifest;
let subpaths: readonly string[];

/** Runs Node in the app that installed the package. */
const node = (...args: string[]): Promise<{ stdout: string; stderr: string }> =>
  exec(process.execPath, args, { cwd: app, maxBuffer: 2 ** 24 });

/** Runs code in the app while it lacks some packages. @returns the JSON that it prints. */
async function without(packages: readonly string[], code: string): Promise<unknown> {
  const places = packages.map((name) => join(app, 'node_modules', name));
  for (const place of places) await rename(place, `${place}.away`);
  try {
    const script = join(app, 'without.mjs');
    await writeFile(script, code);
    const { stdout } = await node(script, join(root, 'examples/digits/digits-1.1.0.onnx'));
    return JSON.parse(stdout);
  } finally {
    for (const place of places) await rename(`${place}.away`, place);
  }
}

beforeAll(async () => {
  app = await mkdtemp(join(tmpdir(), 'inlay-package-'));
  installed = join(app, 'node_modules', 'inlay');
  await exec(process.execPath, [join(root, 'scripts/setup.mjs'), 'demo']);
  const pack = ['pack', '--ignore-scripts', '--json', '--pack-destination', app];
  const { stdout } = await exec('npm', pack, { cwd: root, shell: process.platform === 'win32' });
  const [tarball] = JSON.parse(stdout) as [{ filename: string; files: { path: string }[] }];
  files = tarball.files.map(({ path }) => path);

  await mkdir(installed, { recursive: true });
  await exec('tar', ['-xzf', join(app, tarball.filename), '-C', installed, '--strip-components=1']);
  await writeFile(join(app, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
  manifest = JSON.parse(await readFile(join(installed, 'package.json'), 'utf8')) as Manifest;
  subpaths = Object.keys(manifest.exports)
    .filter((key) => key !== './package.json')
    .map((key) => `inlay${key.slice(1)}`);

  // The packages it depends on come from this checkout, so that no registry is needed.
  const types = { '@types/node': '', '@types/react': '' };
  const names = Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies, ...types });
  for (const name of names) {
    await mkdir(dirname(join(app, 'node_modules', name)), { recursive: true });
    await symlink(join(root, 'node_modules', name), join(app, 'node_modules', name), 'junction');
  }
}, 300_000);

afterAll(() => rm(app, { recursive: true, force: true }));

describe('the packed package', () => {
  it('holds the build, the sources and the papers, and no tests', () => {
    expect(files).toEqual(
      expect.arrayContaining(['LICENSE', 'README.md', 'package.json', 'dist/node.js', 'src/node.ts']),
    );
    expect(
      files.filter((path) => !/^(?:LICENSE|README\.md|package\.json|(?:dist|src|docs)\/.+)$/.test(path)),
    ).toEqual([]);
    expect(files.filter((path) => /\.test\.|tsbuildinfo|tsconfig/.test(path))).toEqual([]);
  });

  it('names no path of the machine that built it, and its maps lead to its sources', async () => {
    const maps = files.filter((path) => path.endsWith('.map'));
    expect(maps).not.toEqual([]);
    for (const map of maps) {
      const { sources } = JSON.parse(await readFile(join(installed, map), 'utf8')) as { sources: string[] };
      expect(sources.filter(isAbsolute)).toEqual([]);
      for (const source of sources) {
        const path = resolve(installed, dirname(map), source);
        await expect(stat(path), `${map} → ${source}`).resolves.toBeDefined();
      }
    }
    for (const path of files) {
      expect(await readFile(join(installed, path), 'latin1'), path).not.toContain(root);
    }
  });

  it('gives every subpath to import', async () => {
    const script = `
      const names = {};
      for (const subpath of ${JSON.stringify(subpaths.filter((subpath) => subpath !== 'inlay/worker'))}) {
        names[subpath] = Object.keys(await import(subpath));
      }
      console.log(JSON.stringify(names));`;
    const { stdout } = await node('--input-type=module', '--eval', script);
    const names = JSON.parse(stdout) as Record<string, string[]>;
    expect(names['inlay']).toContain('createInlay');
    for (const [subpath, list] of Object.entries(names)) expect(list, subpath).not.toEqual([]);
  });

  it('runs a model in a worker thread that starts from inlay/worker', async () => {
    const script = `
      import { createInlay } from 'inlay';
      import { createMemoryStore } from 'inlay/stores/memory';
      const inlay = createInlay({ store: createMemoryStore() });
      const model = await inlay.load(${JSON.stringify(join(root, 'examples/digits/digits-1.0.0.onnx'))});
      const [input] = model.signature.inputs;
      const shape = input.shape.map((size) => (typeof size === 'number' ? size : 1));
      const size = shape.reduce((product, factor) => product * factor, 1);
      const outputs = await model.run({ [input.name]: new Float32Array(size) });
      console.log(JSON.stringify({
        outputs: Object.keys(outputs),
        worker: import.meta.resolve('inlay/worker').endsWith('/dist/worker.js'),
      }));
      await inlay.close();`;
    await writeFile(join(app, 'run.mjs'), script);
    const { stdout } = await node('run.mjs');
    expect(JSON.parse(stdout)).toEqual({ outputs: [expect.any(String)], worker: true });
  });

  it.each(['worker', 'inline'])(
    'runs on WASM where onnxruntime-node is missing, placed %s',
    async (placement) => {
      const code = `
      import { createInlay } from 'inlay';
      const inlay = createInlay({ placement: '${placement}' });
      const model = await inlay.load(process.argv[2]);
      const { logits } = await model.run({ image: new Float32Array(784) });
      const [{ backend, provider, attempts }] = inlay.info().models;
      console.log(JSON.stringify({ backend, provider, reason: attempts[0].reason, count: logits.size }));
      await inlay.close();`;
      const result = await without(['onnxruntime-node'], code);
      expect(result).toMatchObject({ backend: 'onnxruntime-web', provider: 'wasm', count: 10 });
      expect(result).toMatchObject({
        reason: expect.stringContaining('npm install onnxruntime-node') as string,
      });
    },
  );

  it('names the command that installs a library where there is none', async () => {
    const code = `
      import { createInlay } from 'inlay';
      const { code, message } = await createInlay().load(process.argv[2]).catch((error) => error);
      console.log(JSON.stringify({ code, message }));`;
    expect(await without(['onnxruntime-node', 'onnxruntime-web'], code)).toEqual({
      code: 'ERR_INLAY_BACKEND_MISSING',
      message: expect.stringContaining('npm install onnxruntime-node') as string,
    });
  });

  it('can be required by CommonJS', async () => {
    const { stdout } = await node(
      '--input-type=commonjs',
      '--eval',
      `console.log(typeof require('inlay').createInlay)`,
    );
    expect(stdout.trim()).toBe('function');
  });

  it('refuses what only Node can run under the browser condition', async () => {
    const nodeOnly = Object.entries(manifest.exports)
      .filter(([, target]) => typeof target === 'object' && target !== null && 'browser' in target)
      .map(([key]) => `inlay${key.slice(1)}`);
    expect(nodeOnly).toContain('inlay/stores/fs');
    const script = `
      for (const subpath of ${JSON.stringify(nodeOnly)}) {
        console.log(await import(subpath).then(() => 'loaded', (error) => error.code));
      }`;
    const { stdout } = await node('--conditions=browser', '--input-type=module', '--eval', script);
    expect(stdout.trim().split('\n')).toEqual(nodeOnly.map(() => 'ERR_PACKAGE_PATH_NOT_EXPORTED'));
  });

  it('brings a program that prints its help', async () => {
    const program = join(installed, manifest.bin['inlay'] ?? '');
    expect(await readFile(program, 'utf8')).toMatch(/^#!\/usr\/bin\/env node\n/);
    if (process.platform !== 'win32') expect((await stat(program)).mode & 0o111).toBe(0o111);
    const { stdout } = await node(program, '--help');
    expect(stdout).toContain('Usage: inlay');
  });

  it.each(['nodenext', 'bundler'])(
    'has types that compile under the %s resolution',
    async (moduleResolution) => {
      const imports = subpaths.map((subpath, index) => `import * as entry${index} from '${subpath}';`);
      const uses = subpaths.map((_, index) => `entry${index}`);
      await writeFile(
        join(app, 'main.ts'),
        [
          ...imports,
          `import { createInlay, type Model } from 'inlay';`,
          `export const entries: readonly object[] = [${uses.join(', ')}];`,
          `export const create: typeof createInlay = createInlay;`,
          `export const run = (model: Model): Promise<object> => model.run({ image: new Float32Array(784) });`,
          `// @ts-expect-error a model runs on feeds, not on a number`,
          `export const wrong = (model: Model): Promise<object> => model.run(3);`,
        ].join('\n'),
      );
      const compilerOptions = {
        target: 'es2022',
        lib: ['es2022', 'esnext.disposable', 'dom', 'dom.iterable', 'dom.asynciterable'],
        types: ['node'],
        module: moduleResolution === 'nodenext' ? 'nodenext' : 'esnext',
        moduleResolution,
        strict: true,
        exactOptionalPropertyTypes: true,
        noUncheckedIndexedAccess: true,
        noEmit: true,
        skipLibCheck: false,
      };
      await writeFile(join(app, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['main.ts'] }));
      const tsc = join(root, 'node_modules/typescript/bin/tsc');
      const { stdout } = await node(tsc, '-p', '.').catch((error: { stdout: string }) => error);
      expect(stdout).toBe('');
    },
  );
});
