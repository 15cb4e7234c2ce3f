import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { build } from 'esbuild';
import { root } from './run.mjs';

const source = join(root, 'src', 'dashboard');

/**
 * Bundles the dashboard: a page, one script and one style sheet, named by their content, and the licences of what is in them.
 * @returns files as `{ path, content }`, with paths below `dashboard/`.
 */
export async function buildDashboard() {
  const { outputFiles, metafile } = await build({
    entryPoints: [join(source, 'main.tsx')],
    absWorkingDir: root,
    bundle: true,
    minify: true,
    write: false,
    metafile: true,
    format: 'esm',
    target: ['es2022'],
    jsx: 'automatic',
    jsxImportSource: 'preact',
    legalComments: 'none',
    outdir: 'dashboard',
    logLevel: 'silent',
  });
  const files = [{ path: 'dashboard/licences.txt', content: licencesOf(Object.keys(metafile.inputs)) }];
  let page = readFileSync(join(source, 'index.html'), 'utf8');
  for (const { path, contents } of outputFiles) {
    const extension = extname(path);
    const name = `app-${createHash('sha256').update(contents).digest('hex').slice(0, 10)}${extension}`;
    page = page.replace(`{{main${extension}}}`, name);
    files.push({ path: `dashboard/${name}`, content: contents });
  }
  return [...files, { path: 'dashboard/index.html', content: page }];
}

/** The licence of every package that is in the bundle, as it has to be handed on. */
function licencesOf(inputs) {
  const packages = new Set(
    inputs.flatMap((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? []),
  );
  return [...packages]
    .sort((a, b) => a.localeCompare(b))
    .map((name) => {
      const folder = join(root, 'node_modules', name);
      const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
      if (file === undefined) throw new Error(`The package ${name} has no licence that could be handed on.`);
      const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
      return `${name} ${version}\n\n${readFileSync(join(folder, file), 'utf8').trim()}\n`;
    })
    .join(`\n${'-'.repeat(80)}\n\n`);
}
