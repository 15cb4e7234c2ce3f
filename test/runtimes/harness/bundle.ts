/** Bundles test files for a runtime that has no vitest. */
import { readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build, type BuildOptions, type Plugin } from 'esbuild';

/** Root of the repository. */
export const root: string = join(dirname(fileURLToPath(import.meta.url)), '../../..');

const shim = fileURLToPath(new URL('vitest.ts', import.meta.url));
const properties = fileURLToPath(new URL('../../properties.setup.ts', import.meta.url));

/** Bundled modules keep the address of their source, from which they find files. */
const ownAddresses: Plugin = {
  name: 'own-addresses',
  setup({ onLoad }) {
    onLoad({ filter: /\/(src|test)\/.*\.ts$/ }, ({ path }) => ({
      loader: 'ts',
      contents: readFileSync(path, 'utf8').replaceAll(
        'import.meta.url',
        JSON.stringify(pathToFileURL(path).href),
      ),
    }));
  },
};

/**
 * Writes one module that runs all cases of `files`.
 * @param files - absolute paths.
 * @param start - source that calls `play(files, report)`.
 * @param options - for esbuild: conditions, what is external.
 */
export async function bundleTests(
  files: readonly string[],
  start: string,
  outfile: string,
  options: BuildOptions,
): Promise<void> {
  const entries = files.map(
    (file) => `[${JSON.stringify(relative(root, file))}, () => import(${JSON.stringify(file)})]`,
  );
  await build({
    bundle: true,
    format: 'esm',
    target: 'es2022',
    outfile,
    logLevel: 'error',
    ...options,
    stdin: {
      contents: `import ${JSON.stringify(properties)};\nimport { play } from 'vitest';\nconst files = [${entries.join(', ')}];\n${start}`,
      resolveDir: root,
    },
    alias: { vitest: shim, ...options.alias },
    plugins: [ownAddresses, ...(options.plugins ?? [])],
  });
}
