// Bundles the browser's `inlay` as an app would, and refuses what must not be in it and what makes it too large.
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { root, runMain } from './run.mjs';

/** What a page loads for `import 'inlay'`, minified and gzipped, without what is imported later on demand. */
const LIMIT_BYTES = 12_000;
/** The inference libraries, Node and storage belong to adapters, which the app names itself. */
const FORBIDDEN = ['node:', 'onnxruntime', 'indexedDB', 'process.env'];

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
  for (const { text } of outputFiles) {
    for (const word of FORBIDDEN) {
      const at = text.indexOf(word);
      if (at >= 0) faults.push(`The bundle holds '${word}': …${text.slice(Math.max(0, at - 60), at + 60)}…`);
    }
  }
  for (const path of Object.keys(metafile.inputs)) {
    if (path.includes('node_modules')) faults.push(`The bundle holds ${path}.`);
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
