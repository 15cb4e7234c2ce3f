import { gzipSync } from 'node:zlib';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { figure } from './report.mjs';

/** Bytes that an app's bundle grows by, minified and gzipped, without any inference library. */
export async function run() {
  const core = await bundle(`export * from 'inlay'`, 'browser');
  const figures = [
    figure({
      bench: 'size',
      case: 'inlay (core entry)',
      metric: 'min+gzip',
      value: core.length / 1000,
      unit: 'kB',
      target: 12,
    }),
  ];
  for (const subpath of ['onnx', 'backends/onnxruntime-web', 'stores/memory', 'update', 'publish']) {
    const code = await bundle(`export * from 'inlay/${subpath}'`, 'browser');
    figures.push(
      figure({
        bench: 'size',
        case: `inlay/${subpath}`,
        metric: 'min+gzip',
        value: code.length / 1000,
        unit: 'kB',
      }),
    );
  }
  return figures;
}

async function bundle(contents, platform) {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: fileURLToPath(new URL('..', import.meta.url)) },
    bundle: true,
    minify: true,
    format: 'esm',
    platform,
    write: false,
    // An app bundles its inference library apart; none may be pulled in by the core.
    external: ['onnxruntime-*'],
  });
  return gzipSync(outputFiles[0].contents, { level: 9 });
}
