import { gzipSync } from 'node:zlib';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { figure } from './report.mjs';

/** What an app imports, with the kilobytes that it may grow by, where there is a budget. */
const ENTRIES = {
  inlay: 12,
  'inlay/onnx': undefined,
  'inlay/backends/onnxruntime-web': undefined,
  'inlay/stores/memory': undefined,
  'inlay/update': undefined,
  'inlay/publish': undefined,
};

/** Bytes that an app's bundle grows by, minified and gzipped, without any inference library. */
export async function run() {
  const figures = [];
  for (const [name, target] of Object.entries(ENTRIES)) {
    const code = await bundle(`export * from '${name}'`);
    figures.push(
      figure({ bench: 'size', case: name, metric: 'min+gzip', value: code / 1000, unit: 'kB', target }),
    );
  }
  // A script that is not imported but run.
  const worker = await bundle(`import 'inlay/worker'`);
  figures.push(
    figure({
      bench: 'size',
      case: 'inlay/worker',
      metric: 'min+gzip',
      value: worker / 1000,
      unit: 'kB',
      target: 20,
    }),
  );
  return figures;
}

/** Gzipped entry with everything that it loads at once; what is imported later is in chunks of its own. */
async function bundle(contents) {
  const { outputFiles, metafile } = await build({
    stdin: { contents, resolveDir: fileURLToPath(new URL('..', import.meta.url)) },
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    splitting: true,
    metafile: true,
    outdir: 'out',
    write: false,
    logLevel: 'error',
    // An app bundles its inference library apart; none may be pulled in by the core.
    external: ['onnxruntime-*'],
  });
  const chunks = new Set();
  const queue = [
    Object.keys(metafile.outputs).find((path) => metafile.outputs[path].entryPoint === '<stdin>'),
  ];
  for (const path of queue) {
    if (chunks.has(path)) continue;
    chunks.add(path);
    queue.push(
      ...metafile.outputs[path].imports
        .filter(({ kind }) => kind === 'import-statement')
        .map((each) => each.path),
    );
  }
  const loaded = outputFiles.filter(({ path }) => [...chunks].some((chunk) => path.endsWith(chunk)));
  return loaded.reduce((bytes, { contents: code }) => bytes + gzipSync(code, { level: 9 }).length, 0);
}
