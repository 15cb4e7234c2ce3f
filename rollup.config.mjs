import { chmodSync, existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildDashboard } from './scripts/dashboard.mjs';

const root = dirname(fileURLToPath(import.meta.url));
const buildDir = join(root, 'build');
const distDir = join(root, 'dist');
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

/** Every module that package.json names, as a path under `build` without its extension. */
const entryNames = [
  ...new Set(
    JSON.stringify([manifest.exports, manifest.bin])
      .match(/dist\/[^"]+\.js(?=")/g)
      .map((path) => path.slice('dist/'.length, -'.js'.length)),
  ),
];

const packages = Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies });

/** Hands the source maps of `tsc` on, so that the maps in `dist` lead to `src`. */
const tscSourceMaps = {
  name: 'tsc-source-maps',
  load(id) {
    const code = readFileSync(id, 'utf8').replace(/\n\/\/# sourceMappingURL=.*\s*$/, '\n');
    return { code, map: JSON.parse(readFileSync(`${id}.map`, 'utf8')) };
  },
};

/** Adds the scripts that a worker starts from: no import names them, only `new URL(…, import.meta.url)`. */
const workerScripts = {
  name: 'worker-scripts',
  transform(code, id) {
    for (const [, specifier] of code.matchAll(/new URL\(\s*['"](\.[^'"]+\.js)['"],\s*import\.meta\.url/g)) {
      const script = resolve(dirname(id), specifier);
      // It keeps its place beside the module that names it.
      const name = relative(buildDir, script).split(sep).join('/').slice(0, -'.js'.length);
      if (!existsSync(script) || entryNames.includes(name)) continue;
      this.emitFile({ type: 'chunk', id: script, fileName: `${name}.js`, preserveSignature: 'strict' });
    }
  },
};

/** Copies the declarations that the entries reach. `tsc` rewrites `.ts` specifiers in JavaScript only. */
const declarations = {
  name: 'declarations',
  generateBundle() {
    const queue = entryNames.map((name) => join(buildDir, `${name}.d.ts`));
    const seen = new Set(queue);
    for (const file of queue) {
      const source = readFileSync(file, 'utf8')
        .replace(/\n\/\/# sourceMappingURL=.*\s*$/, '\n')
        .replace(/(\bfrom\s*|\bimport\s*\(?\s*)(['"])(\.{1,2}\/[^'"]+)\.ts\2/g, (_, keyword, quote, path) => {
          const target = resolve(dirname(file), `${path}.d.ts`);
          if (!seen.has(target)) {
            seen.add(target);
            queue.push(target);
          }
          return `${keyword}${quote}${path}.js${quote}`;
        });
      this.emitFile({ type: 'asset', fileName: relative(buildDir, file).split(sep).join('/'), source });
    }
  },
};

/** Adds the files of the dashboard, which the server sends as they are. */
const dashboard = {
  name: 'dashboard',
  async generateBundle() {
    for (const { path, content } of await buildDashboard()) {
      this.emitFile({ type: 'asset', fileName: path, source: content });
    }
  },
};

const executables = {
  name: 'executables',
  writeBundle() {
    for (const path of Object.values(manifest.bin)) chmodSync(join(root, path), 0o755);
  },
};

/** Removes what an earlier build left behind, after the new files stand, so that `dist` is never empty. */
const sweep = {
  name: 'sweep',
  writeBundle(_options, bundle) {
    const kept = new Set(Object.keys(bundle).map((name) => join(distDir, name)));
    for (const entry of readdirSync(distDir, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath ?? entry.path, entry.name);
      if (entry.isFile() && !kept.has(path)) rmSync(path);
    }
  },
};

/**
 * Modules that are always needed together share a file: Node has to read and link each file, at every
 * cold start and in every worker again. No file mixes zones, so that nothing of Node reaches a browser's bundle.
 */
function chunkOf(id) {
  const path = relative(buildDir, id).split(sep).join('/');
  // Core modules of one part only: a page need not load them at once.
  // Telemetry needs no more of updates: what it reaches is reached by workers, in the eyes of bundlers that may not split them.
  if (/^(core\/retry|trust\/(canonical-json|parse))\.js$/.test(path)) return 'replies';
  if (/^core\/(compare|signals)/.test(path)) return 'engine';
  if (/^(core\/|engine\/(inlay|progress|reference|reporting|updates))|^stores\/lazy|^exports\.js$/.test(path))
    return 'core';
  // Not for workers, which have no use for it and which bundlers may not split.
  if (/^(platform|page-life|signatures|ed25519)\.js$/.test(path)) return 'platform';
  // Only for models by name.
  if (/^engine\/(follow|self-test|embedded|replaces)/.test(path)) return 'follow';
  if (/^engine\/(pipeline|variants)|^schedule\/metrics-text/.test(path)) return undefined;
  if (/^(engine|schedule)\//.test(path)) return 'engine';
  if (/^stores\/(assemble|fallback|ledger|memory|rules)/.test(path)) return 'stores';
  if (/^(stores\/fs|backends\/onnxruntime-node|workers\/(node|quiesce)|platform-node)/.test(path))
    return 'node';
  if (/^(stores|backends)\/(onnxruntime-)?react-native|^platform-react-native/.test(path))
    return 'react-native';
  if (path === 'node-backends.js') return 'node-backends';
  if (path === 'web-realms.js') return 'web-realms';
  if (/^backends\/onnxruntime-web-(gpu|device)/.test(path)) return undefined;
  if (path === 'backends/tfjs-node.js') return undefined;
  if (/^backends\/tfjs/.test(path)) return 'tfjs';
  if (/^backends\//.test(path)) return 'onnxruntime';
  if (/^workers\//.test(path)) return 'workers';
  if (path.startsWith('telemetry/')) return 'telemetry';
  // Only with the first patch; what writes patches is for publishers.
  if (/^update\/delta\/(write-head|encode-block)/.test(path)) return undefined;
  if (/^update\/delta\/(?!patcher|pieces)/.test(path)) return 'delta';
  if (/^(trust|update)\//.test(path)) return 'update';
  if (['server/signer/spawn.js', 'optimize-node/isolated.js'].includes(path))
    return path.slice(0, -'.js'.length);
  return undefined;
}

export default {
  input: Object.fromEntries(entryNames.map((name) => [name, join(buildDir, `${name}.js`)])),
  external: [/^node:/, ...packages.flatMap((name) => [name, new RegExp(`^${name}/`)])],
  treeshake: { moduleSideEffects: false },
  plugins: [tscSourceMaps, workerScripts, declarations, dashboard, executables, sweep],
  output: {
    dir: distDir,
    format: 'es',
    manualChunks: chunkOf,
    hoistTransitiveImports: false,
    // They name `worker.js`, `worker-web.js` and other scripts by paths relative to their own.
    chunkFileNames: ({ name }) =>
      ['node-backends', 'web-realms', 'server/signer/spawn', 'optimize-node/isolated'].includes(name)
        ? '[name].js'
        : 'chunks/[name].js',
    // Hooks and contexts are for the components of the client; frameworks with server components need to be told.
    banner: ({ name }) => (name === 'react' ? "'use client';" : ''),
    sourcemap: true,
    sourcemapExcludeSources: true,
  },
  onwarn(warning) {
    throw new Error(`The bundle has a fault: ${warning.message}`);
  },
};
