// Compares package.json `exports` with the sources, the documentation and what can be imported.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { root, runMain } from './run.mjs';

const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const faults = [];
const workerData = {
  library: 'onnxruntime-node',
  options: {},
  cell: new Int32Array(new SharedArrayBuffer(4)),
};

await runMain(async () => {
  for (const [subpath, target] of Object.entries(manifest.exports)) {
    if (subpath === './package.json') continue;
    const name = subpath.replace(/^\./, manifest.name);
    for (const file of filesOf(target)) {
      checkDocs(name, file.replace(/^\.\/dist\/(.+)\.js$/, 'src/$1.ts'));
      await checkImport(name, file);
    }
  }
  checkMentions();
  for (const fault of faults) console.error(fault);
  if (faults.length === 0) console.log(`${Object.keys(manifest.exports).length} subpaths hold.`);
  return faults.length === 0 ? 0 : 1;
});

/** The JavaScript files that a subpath leads to, over all conditions. */
function filesOf(target) {
  if (target === null) return [];
  if (typeof target === 'string') return target.endsWith('.js') ? [target] : [];
  return Object.values(target).flatMap(filesOf);
}

function checkDocs(name, source) {
  if (!existsSync(join(root, source))) {
    faults.push(`${name}: ${source} does not exist.`);
    return;
  }
  const text = readFileSync(join(root, source), 'utf8').replace(/^(?:\/\/\/ .*\n)+/, '');
  const opening = /^\s*\/\*\*.*?\*\//s.exec(text)?.[0] ?? '';
  if (!new RegExp(`@module ${name}(?![\\w/-])`).test(opening)) {
    faults.push(`${name}: ${source} does not open with a comment that has \`@module ${name}\`.`);
  }
}

/** Imports in a thread that is told what a worker is told, because the worker entry acts on its thread. */
async function checkImport(name, file) {
  const code = `import(${JSON.stringify(new URL(file, `file://${root}/`).href)}).then((module) => {
    require('node:worker_threads').parentPort.postMessage(Object.keys(module));
  })`;
  const thread = new Worker(code, { eval: true, workerData });
  const fault = await new Promise((resolve) => {
    thread.once('message', () => resolve(undefined));
    thread.once('error', (error) => resolve(error));
    thread.once('exit', (status) => resolve(new Error(`its thread ended with code ${status}`)));
  });
  await thread.terminate();
  if (fault !== undefined) faults.push(`${name}: importing ${file} fails: ${fault.stack ?? fault}`);
}

/** Every subpath that the documentation imports has to exist. */
function checkMentions() {
  const docs = existsSync(join(root, 'docs')) ? readdirSync(join(root, 'docs'), { recursive: true }) : [];
  for (const page of ['README.md', ...docs.map((path) => join('docs', path))]) {
    if (!page.endsWith('.md') || page.includes('node_modules') || !existsSync(join(root, page))) continue;
    const text = readFileSync(join(root, page), 'utf8');
    for (const [, subpath = ''] of text.matchAll(/(?:from|import\(?)\s*['"]inlay(\/[^'"]+)?['"]/g)) {
      if (`.${subpath}` in manifest.exports) continue;
      faults.push(`${page} imports 'inlay${subpath}', which package.json does not export.`);
    }
  }
}
