import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { build } from 'esbuild';
import { root } from './run.mjs';

const source = join(root, 'src', 'dashboard');

/**
 * Bundles the dashboard: a page, one script and one style sheet, named by their content, and the licences of what is in them.
 * @returns files as `{ path, content }`, with paths below `dashboard/`.
 */
export async function buildDashboard() {
  const { outputFiles } = await build({
    entryPoints: [join(source, 'main.tsx')],
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    target: ['es2022'],
    jsx: 'automatic',
    jsxImportSource: 'preact',
    legalComments: 'external',
    outdir: 'dashboard',
    logLevel: 'silent',
  });
  const files = [];
  let page = readFileSync(join(source, 'index.html'), 'utf8');
  for (const { path, contents } of outputFiles) {
    const extension = extname(path);
    if (path.endsWith('.LEGAL.txt')) {
      files.push({ path: `dashboard/licences${extension}`, content: contents });
      continue;
    }
    const name = `app-${createHash('sha256').update(contents).digest('hex').slice(0, 10)}${extension}`;
    page = page.replace(`{{main${extension}}}`, name);
    files.push({ path: `dashboard/${name}`, content: contents });
  }
  return [...files, { path: 'dashboard/index.html', content: page }];
}
