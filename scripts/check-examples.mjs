// Type-checks every example of the README and of the documentation comments, as the code of somebody who uses the package.
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, runBin, runMain, SetupError } from './run.mjs';

const folder = join(root, 'build/examples');

/** Where the names come from that an example may use without importing them. */
const imports = {
  inlay: ['createInlay', 'Tensor', 'tensorFrom', 'type FeedOf', 'type ModelTypes', 'type TensorOf'],
  'inlay/process': ['imageToTensor', 'type PixelImage'],
  'inlay/onnx': ['createGraph', 'encodeModel'],
  'inlay/backends/onnxruntime-node': ['onnxruntimeNode'],
  'inlay/backends/onnxruntime-web': ['onnxruntimeWeb'],
  'inlay/backends/onnxruntime-web-gpu': ['onnxruntimeWebGpu'],
  'inlay/backends/tfjs': ['tfjs'],
  'node:fs/promises': ['readFile'],
  'inlay/host': ['hostInWorker'],
  '../../index.js': ['inWorker'],
  '../../opentelemetry.js': ['createTracing'],
  '../../workers/pool.js': ['createPool'],
  '../../workers/realm.js': ['createWorkerBackend'],
  '../../workers/node.js': ['spawnNodeWorker'],
};

/** What an example may take as given. */
const given = {
  pixels: 'Float32Array',
  wasmModule: 'WebAssembly.Module',
  bytes: 'ArrayBuffer',
  images: 'Float32Array[]',
  sha256: 'string',
  show: '(phase: string, loadedBytes: number) => void',
  inlay: "import('inlay').Inlay",
  root: 'string',
  model: "import('inlay').Model",
  script: 'URL',
  first: "import('../../workers/realm.js').WorkerBackendOptions",
  second: "import('../../workers/realm.js').WorkerBackendOptions",
  faces: "import('inlay').Model",
  photo: "import('inlay/process').PixelImage",
  data: "import('../../workers/node.js').NodeWorkerData",
};

/** What is written for pages, where `inlay` means another entry. */
const ofPages = /^docs.guides.(browser|tfjs|react)\.md$/;
const runtimes = {
  node: { types: ['node'] },
  page: { types: ['node'], module: 'esnext', moduleResolution: 'bundler', customConditions: ['browser'] },
};

function examplesOf(path) {
  const text = readFileSync(join(root, path), 'utf8');
  if (path.endsWith('.md')) return [...text.matchAll(/```ts\n(.*?)```/gs)].map(([, code]) => code);
  return [...text.matchAll(/^ *\* @example\n((?: *\*(?!\/).*\n)+)/gm)].map(([, block]) =>
    block.replace(/^ *\* ?/gm, '').replace(/^@[^]*$/m, ''),
  );
}

function complete(code) {
  const uses = (name) => new RegExp(`\\b${name}\\b`).test(code);
  const defines = (name) => new RegExp(`(const|import) [^;=]*\\b${name}\\b`).test(code);
  const isFree = (name) => uses(name) && !defines(name);
  const lines = Object.entries(imports).flatMap(([from, names]) => {
    const free = names.filter((name) => isFree(name.replace('type ', '')));
    return free.length > 0 ? [`import { ${free.join(', ')} } from '${from}';`] : [];
  });
  const declared = Object.entries(given).filter(([name]) => isFree(name));
  return [
    ...lines,
    ...declared.map(([name, type]) => `declare const ${name}: ${type};`),
    code,
    'export {};',
    '',
  ].join('\n');
}

await runMain(async () => {
  const sources = readdirSync(join(root, 'src'), { recursive: true }).filter((path) => path.endsWith('.ts'));
  const guides = readdirSync(join(root, 'docs/guides')).map((name) => join('docs/guides', name));
  const files = ['README.md', ...guides, ...sources.map((path) => join('src', path))];
  rmSync(folder, { recursive: true, force: true });
  let count = 0;
  for (const path of files) {
    const runtime = ofPages.test(path) ? 'page' : 'node';
    mkdirSync(join(folder, runtime), { recursive: true });
    for (const code of examplesOf(path)) {
      count += 1;
      const name = `${path.replaceAll(/[^a-z0-9]+/gi, '-')}-${count}.ts`;
      writeFileSync(join(folder, runtime, name), complete(code));
    }
  }
  let failed = 0;
  for (const [runtime, options] of Object.entries(runtimes)) {
    const config = {
      extends: '../../../src/tsconfig.base.json',
      compilerOptions: {
        lib: ['es2022', 'esnext.disposable', 'dom', 'dom.iterable'],
        noEmit: true,
        composite: false,
        isolatedDeclarations: false,
        declaration: false,
        noUncheckedIndexedAccess: false,
        rootDir: '../..',
        ...options,
      },
      include: ['.'],
      // The default excludes `outDir`, which this folder is in.
      exclude: [],
    };
    const file = join(folder, runtime, 'tsconfig.json');
    writeFileSync(file, JSON.stringify(config));
    failed += (await runBin('tsc', ['-p', file])) ?? 0;
  }
  if (failed > 0) throw new SetupError('✗ An example of the documentation does not compile.');
  console.log(`${count} examples compile.`);
});
