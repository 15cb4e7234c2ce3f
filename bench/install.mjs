import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer as createProxy } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Tensor } from 'inlay';
import { createGraph } from 'inlay/onnx';
import { createServer } from '../examples/demo/server.mjs';
import { median } from './measure.mjs';
import { modelFolder } from './models.mjs';
import { figure } from './report.mjs';

/** Numbers in a row of the weights: 20 MB in all. */
const WIDTH = 2236;
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 7);
/** Downloads in one process; the first ones compile. */
const REPEATS = 8;
const COLD = 2;
const CHILD = fileURLToPath(new URL('install-child.mjs', import.meta.url));
/** Megabits a second. */
const LINKS = { loopback: Infinity, '100 Mbit/s': 100, '20 Mbit/s': 20 };

/** How long a model of 20 MB takes from a server to its first answer, and what memory, beside the least that anybody has to do. */
export async function run() {
  const folder = await mkdtemp(join(tmpdir(), 'inlay-bench-install-'));
  const server = await createServer(folder);
  try {
    const release = await publish(server);
    return [...(await download(release)), ...(await wholeInstall(release))];
  } finally {
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Coming into the store, verified: again and again in one process, and once in a fresh one for its memory. */
async function download(release) {
  const runs = { plain: [], stored: [] };
  const peaks = { plain: [], stored: [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const how of Object.keys(runs)) {
      runs[how].push(...(await child(how, REPEATS, release)).runs.slice(COLD));
      peaks[how].push((await child(how, 1, release)).peakBytes);
    }
  }
  const common = {
    bench: 'install',
    case: '20 MB over loopback, into the store, beside download + SHA-256 + write',
  };
  const time = (metric, part, target) =>
    figure({
      ...common,
      metric,
      value: median(runs.stored.map((each) => each[part])),
      baseline: median(runs.plain.map((each) => each[part])),
      unit: 'ms',
      ...(target !== undefined && { target, targetIs: 'ratio' }),
    });
  return [
    time('time', 'ms', 1.5),
    time('processor time', 'cpuMs'),
    figure({
      ...common,
      metric: 'memory beyond that',
      value: (median(peaks.stored) - median(peaks.plain)) / 1e6,
      unit: 'MB',
      target: 16,
    }),
  ];
}

/** A new installation with all its parts: metadata, download, a try in isolation, the trial's first answer. */
async function wholeInstall(release) {
  const figures = [];
  for (const [link, megabits] of Object.entries(LINKS)) {
    const line = await openLine(release.url, megabits);
    const ways = { plain: [], bare: [], install: [], unproven: [] };
    for (let round = 0; round < (megabits < 50 ? Math.min(3, ROUNDS) : ROUNDS); round += 1) {
      for (const how of Object.keys(ways)) {
        const { runs, peakBytes } = await child(how, 1, { ...release, url: line.url });
        ways[how].push({ ...runs[0], peakBytes });
      }
    }
    line.close();
    const of = (how, part) => median(ways[how].map((each) => each[part]));
    const row = (metric, how, base, rest = {}) =>
      figure({
        bench: 'install',
        case: `20 MB over ${link}, to the first answer`,
        metric,
        value: of(how, 'ms'),
        baseline: of(base, 'ms'),
        unit: 'ms',
        ...rest,
      });
    figures.push(
      row('time, beside download + SHA-256 + write', 'install', 'plain', { target: 1.5, targetIs: 'ratio' }),
      row('time, beside that + bare session + first run', 'install', 'bare'),
      row('the same without the try in isolation', 'unproven', 'bare'),
      figure({
        bench: 'install',
        case: `20 MB over ${link}, to the first answer`,
        metric: 'memory beyond download + bare session + first run',
        value: (of('install', 'peakBytes') - of('bare', 'peakBytes')) / 1e6,
        unit: 'MB',
      }),
    );
  }
  return figures;
}

async function child(what, rounds, release) {
  const { stdout } = await promisify(execFile)(process.execPath, [
    CHILD,
    what,
    String(rounds),
    JSON.stringify(release),
  ]);
  return JSON.parse(stdout);
}

/** Publishes the model as a user would, and rolls it out to everybody. */
async function publish(server) {
  const path = modelFolder()('big', bigProduct());
  await server.cli('keys', 'init');
  await server.cli('publish', path, '--name', 'big', '--version', '1');
  const response = await fetch(`${server.url}/v1/admin/rollouts/stable/big`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${server.token}` },
    body: JSON.stringify({ version: '1', percent: 100 }),
  });
  if (!response.ok) throw new Error(`The server answered ${response.status}: ${await response.text()}`);
  const { signed } = await metadataOf(server, 'targets');
  const [target, manifest] = Object.entries(signed.targets).flatMap(([name, { length, hashes, custom }]) =>
    custom?.manifest === undefined ? [] : [{ path: name, length, sha256: hashes.sha256 }, custom.manifest],
  );
  const { files } = await readTarget(server, manifest);
  return { url: server.url, root: server.root, target, chunks: files[0].chunks, width: WIDTH };
}

async function metadataOf(server, role) {
  const tip = await (await fetch(`${server.url}/v1/tip?root=1`)).json();
  const { version } = JSON.parse(tip.snapshot).signed.meta[`${role}.json`];
  return (await fetch(`${server.url}/v1/metadata/${version}.${role}.json`)).json();
}

async function readTarget(server, { path, sha256 }) {
  const segments = path.split('/');
  const file = segments.pop();
  return (await fetch([server.url, 'v1', 'targets', ...segments, `${sha256}.${file}`].join('/'))).json();
}

/** `y = x · weights`, float32 [1, width]: large, quick to run, and nothing that compresses. */
function bigProduct() {
  const graph = createGraph({ name: 'big', opset: 17 });
  const bits = new Uint32Array(WIDTH * WIDTH);
  let state = 1;
  for (let i = 0; i < bits.length; i += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    // Below 2, and never infinite.
    bits[i] = (state ^ (state >>> 15)) & 0xbfff_ffff;
  }
  graph.input('x', 'float32', [1, WIDTH]);
  graph.initializer('weights', new Tensor('float32', [WIDTH, WIDTH], new Float32Array(bits.buffer)));
  graph.node('MatMul', ['x', 'weights'], {}, { outputs: ['y'] });
  graph.output('y', 'float32', [1, WIDTH]);
  return graph;
}

/** A line to a server that lets so many megabits a second through on the way back, in slices of some milliseconds. */
async function openLine(url, megabits) {
  if (megabits === Infinity) return { url, close: () => {} };
  const bytesPerMs = (megabits * 1e6) / 8 / 1000;
  const { hostname, port } = new URL(url);
  let free = 0;
  const proxy = createProxy((client) => {
    const upstream = connect(Number(port), hostname);
    client.pipe(upstream);
    upstream.on('data', (piece) => {
      const now = performance.now();
      free = Math.max(free, now) + piece.length / bytesPerMs;
      client.write(piece);
      // All connections share the line.
      if (free - now < 4) return;
      upstream.pause();
      setTimeout(() => upstream.resume(), free - now);
    });
    upstream.on('end', () => client.end());
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ])
      one.on('error', () => other.destroy());
  });
  await new Promise((resolve) => {
    proxy.listen(0, '127.0.0.1', resolve);
  });
  return { url: `http://127.0.0.1:${proxy.address().port}`, close: () => proxy.close() };
}
