// Bundles the browser's `inlay` as an app would, and refuses what must not be in it and what makes it too large.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { root, runMain } from './run.mjs';

/** What a page loads for `import 'inlay'`, minified and gzipped, without what is imported later on demand. */
const LIMIT_BYTES = 12_000;
/** Node has no place in a bundle for browsers. */
const FORBIDDEN = [/["'`]node:/, /process\.env/];
/** Storage and what talks to it is loaded when something is to be kept. */
const FORBIDDEN_AT_ONCE = [/indexedDB/, /getDirectory/];

await runMain(async () => {
  // The esbuild that size-limit measures with.
  const require = createRequire(createRequire(import.meta.url).resolve('@size-limit/esbuild/package.json'));
  const esbuild = require('esbuild');
  const { outputFiles, metafile } = await esbuild.build({
    entryPoints: { inlay: join(root, 'dist', 'index.js') },
    absWorkingDir: root,
    outdir: join(root, 'bundle'),
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    minify: true,
    // Libraries that the app installs beside Inlay have their own size, and their own ways to tell Node.
    external: ['onnxruntime-web/*', '@opentelemetry/*'],
    metafile: true,
    write: false,
  });
  const sizeOf = (names) =>
    outputFiles
      .filter(({ path }) => names.some((name) => path.endsWith(name)))
      .reduce((sum, { contents }) => sum + gzipSync(contents).length, 0);

  const chunks = Object.keys(metafile.outputs);
  const first = loadedAtOnce(metafile, 'bundle/inlay.js');
  const size = sizeOf(first);
  const faults = [];
  for (const { path, text } of outputFiles) {
    const isFirst = first.some((name) => path.endsWith(name));
    for (const words of isFirst ? [...FORBIDDEN, ...FORBIDDEN_AT_ONCE] : FORBIDDEN) {
      const at = text.search(words);
      if (at >= 0) faults.push(`The bundle holds ${words}: …${text.slice(Math.max(0, at - 60), at + 60)}…`);
    }
  }
  for (const path of first.flatMap((name) => Object.keys(metafile.outputs[name].inputs))) {
    if (path.includes('node_modules')) faults.push(`What a page loads at once holds ${path}.`);
  }
  if (size > LIMIT_BYTES) {
    const parts = first
      .flatMap((name) => Object.entries(metafile.outputs[name].inputs))
      .sort(([, a], [, b]) => b.bytesInOutput - a.bytesInOutput)
      .slice(0, 12)
      .map(([path, { bytesInOutput }]) => `  ${bytesInOutput} B ${path}`);
    faults.push(
      `${size} B gzipped are over the limit of ${LIMIT_BYTES} B; the largest parts:\n${parts.join('\n')}`,
    );
  }
  for (const fault of faults) console.error(fault);
  console.log(
    `inlay for browsers: ${size} B at once (limit ${LIMIT_BYTES} B), ${sizeOf(chunks) - size} B on demand; minified and gzipped.`,
  );
  return faults.length === 0 ? 0 : 1;
});

/** The chunks that an entry imports statically, itself first. */
function loadedAtOnce({ outputs }, entry) {
  const seen = [entry];
  for (const name of seen) {
    for (const { path, kind } of outputs[name].imports) {
      if (kind === 'import-statement' && !seen.includes(path)) seen.push(path);
    }
  }
  return seen;
}
