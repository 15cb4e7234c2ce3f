// The table of runtimes in the README. `node scripts/runtime-matrix.mjs` runs the tests it is made of and writes it anew;
// with --check it fails when README.md says something else than docs/runtimes.json.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { findChromium, skipsBrowser } from './chromium.mjs';
import { root, runMain, runNode, SetupError } from './run.mjs';

const record = join(root, 'docs', 'runtimes.json');
const readme = join(root, 'README.md');
const markers = ['<!-- runtimes:start -->', '<!-- runtimes:end -->'];

/** What is counted, and by what a case is told. */
const suites = {
  core: ({ file }) => file.startsWith('test/core/'),
  trust: ({ file }) => /^test\/core\/(trust|update)\//.test(file),
  backend: ({ title }) => title.includes("keeps the backend's contract"),
  store: ({ title }) => title.includes("keeps the store's contract"),
  app: ({ file }) => file in apps,
};

/** Tests of apps, by the runtime that they are for. */
const apps = {
  'test/runtimes/bun.test.ts': 'Bun',
  'test/runtimes/deno.test.ts': 'Deno',
  'test/runtimes/edge-worker.test.ts': 'workerd',
  'test/runtimes/hermes.test.ts': 'Hermes',
};

/** Test runs; each gives one row, or one per runtime that its files are named after. */
const runs = [
  {
    name: 'Node',
    project: 'node',
    paths: [
      'test/core',
      'test/node/backend-onnxruntime-node',
      'test/node/backend-onnxruntime-web',
      'test/node/backend-tfjs',
      'test/node/store-fs',
      'test/node/worker-process.test.ts',
    ],
  },
  { name: 'Chromium', project: 'browser', paths: ['test/core', 'test/browser'] },
  { project: 'node', paths: ['test/runtimes'] },
];

await runMain(async () => {
  if (process.argv.includes('--check')) return check();
  const rows = [];
  for (const run of runs.filter(({ project }) => project === 'node' || !skipsBrowser())) {
    rows.push(...rowsOf(run, await play(run)));
  }
  if (rows.length === 0) throw new SetupError('No test ran.');
  writeFileSync(record, `${JSON.stringify(rows, null, 2)}\n`);
  writeFileSync(readme, withTable(readFileSync(readme, 'utf8')));
  console.log(tableOf(rows));
  return rows.some(({ failed }) => failed > 0) ? 1 : 0;
});

function check() {
  const text = readFileSync(readme, 'utf8');
  if (text === withTable(text)) return 0;
  throw new SetupError(
    'The table of runtimes in README.md is not that of docs/runtimes.json: run `node scripts/runtime-matrix.mjs`.',
  );
}

/** Runs some tests with vitest. @returns one entry per case. */
async function play({ project, paths }) {
  const folder = join(root, 'build', 'runtimes');
  mkdirSync(folder, { recursive: true });
  const output = join(folder, 'vitest.json');
  rmSync(output, { force: true });
  await runNode('node_modules/vitest/vitest.mjs', [
    'run',
    '--reporter=json',
    `--outputFile=${output}`,
    `--project=${project}`,
    ...paths,
  ]);
  if (!existsSync(output)) throw new SetupError(`vitest has written no report about ${paths.join(', ')}.`);
  return JSON.parse(readFileSync(output, 'utf8')).testResults.flatMap(({ name, assertionResults }) =>
    assertionResults.map(({ ancestorTitles, title, status }) => ({
      file: relative(root, name).split(sep).join('/'),
      ancestors: ancestorTitles,
      title: [...ancestorTitles, title].join(' > '),
      status,
    })),
  );
}

function rowsOf({ name }, cases) {
  if (name !== undefined) return cases.length === 0 ? [] : [countIn(name, versionOf(name), cases)];
  const groups = new Map();
  for (const { file, ancestors, title, status } of cases) {
    const [, runtime, version] = /^(\S+) (\d\S*)$/.exec(ancestors[0] ?? '') ?? [];
    const key = runtime ?? apps[file];
    if (key === undefined) continue;
    const group = groups.get(key) ?? { version: '', cases: [] };
    groups.set(key, group);
    group.version ||= version ?? '';
    // Cases that another runtime reported stand below its name and version, and the file that they are from.
    group.cases.push({ file: runtime === undefined ? file : (ancestors[1] ?? ''), title, status });
  }
  return [...groups].map(([runtime, { version, cases: own }]) => countIn(runtime, version, own));
}

function countIn(runtime, version, cases) {
  const passed = cases.filter(({ status }) => status === 'passed');
  const backends = passed.filter(suites.backend).map(({ title }) => nameBefore(title, 'backend'));
  const stores = passed.filter(suites.store).map(({ title }) => nameBefore(title, 'store'));
  return {
    runtime,
    version,
    passed: Object.fromEntries(
      Object.entries(suites).map(([suite, isOf]) => [suite, passed.filter(isOf).length]),
    ),
    failed: cases.filter(({ status }) => status === 'failed').length,
    backends: sorted(backends),
    stores: sorted(stores),
  };
}

function sorted(names) {
  return [...new Set(names)].sort((a, b) => a.localeCompare(b, 'en'));
}

/** What keeps a contract, by the title of its suite, wherever it is used and however it is set up. */
function nameBefore(title, what) {
  const suite = title.split(' > ').find((part) => part.endsWith(`keeps the ${what}'s contract`));
  return suite
    .replace(` keeps the ${what}'s contract`, '')
    .replace(/^the /, '')
    .replace(/,.*| (in|with) .*/, '');
}

function versionOf(name) {
  if (name === 'Node') return process.versions.node;
  const said = execFileSync(findChromium(), ['--version'], { encoding: 'utf8' });
  return /\d+(\.\d+)+/.exec(said)?.[0] ?? '';
}

function withTable(text) {
  const [start, end] = markers.map((marker) => text.indexOf(marker));
  if (start < 0 || end < start) throw new SetupError(`README.md lacks ${markers.join(' and ')}.`);
  const table = tableOf(JSON.parse(readFileSync(record, 'utf8')));
  return `${text.slice(0, start + markers[0].length)}\n\n${table}\n\n${text.slice(end)}`;
}

function tableOf(rows) {
  const lines = rows.map(({ runtime, version, passed, failed, backends, stores }) => [
    `${runtime} ${version}`.trim(),
    `${namesOf(backends)}: ${passed.backend}`,
    `${namesOf(stores)}: ${passed.store}`,
    passed.core,
    passed.trust,
    passed.app,
    failed,
  ]);
  const heads = [
    'runtime',
    'contract of backends',
    'contract of stores',
    'core',
    'of it trust and updates',
    'apps',
    'failed',
  ];
  return [heads, heads.map(() => '---'), ...lines]
    .map((cells) => `| ${cells.map((cell) => (/^(0|–: 0)$/.test(cell) ? '–' : cell)).join(' | ')} |`)
    .join('\n');
}

function namesOf(names) {
  return names.length === 0 ? '–' : names.join(', ');
}
