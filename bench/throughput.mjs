import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { performance } from 'node:perf_hooks';
import PQueue from 'p-queue';
import * as ort from 'onnxruntime-node';
import { createInlay, Tensor } from 'inlay';
import { median, quantile } from './measure.mjs';
import { cnn, mlp, modelFolder } from './models.mjs';
import { figure } from './report.mjs';

const SECONDS = 0.8;
const ROUNDS = 5;
const CALLERS = [1, 8, 64, 512];
const WINDOW_MS = 5;
const WINDOW_BATCH = 32;
/** Poisson calls that are sent in one turn of the event loop at most. */
const BURST = 64;
/** Load of the Poisson runs, as shares of what the better raw session can take. */
const LOADS = [0.1, 0.8, 1.2];

/** What 64 callers are to get, as a multiple of the better of two raw sessions. */
const TARGETS = { mlp: 4, cnn: 2, ultraface: 1 };

/** Calls per second and latencies of concurrent callers: Inlay beside what one would write by hand. */
export async function run() {
  const write = modelFolder();
  const shapes = [
    { name: 'mlp', path: write('mlp', mlp()), feed: 'image', shape: [1, 784], batched: true },
    { name: 'cnn', path: write('cnn', cnn()), feed: 'image', shape: [1, 1, 28, 28], batched: true },
  ];
  const faces = fileURLToPath(new URL('../../shared/data/ultraface-rfb-320.onnx', import.meta.url));
  if (existsSync(faces)) {
    shapes.push({ name: 'ultraface', path: faces, feed: 'input', shape: [1, 3, 240, 320], batched: false });
  } else console.error('ultraface is left out: its model is not in ../shared/data.');
  const figures = [];
  for (const shape of shapes) figures.push(...(await compare(shape)));
  return figures;
}

async function compare({ name, path, feed, shape, batched }) {
  const size = shape.reduce((all, length) => all * length, 1);
  const data = Float32Array.from({ length: size }, (_, i) => (i % 7) / 7);
  const raw = { [feed]: new ort.Tensor('float32', data, shape) };
  const feeds = { [feed]: new Tensor('float32', shape, data) };
  const open = (threads) =>
    ort.InferenceSession.create(path, { intraOpNumThreads: threads, interOpNumThreads: 1 });
  const [one, two] = [await open(1), await open(2)];
  const inlay = createInlay({ device: 'cpu' });
  const model = await inlay.load(path);
  const queue = new PQueue({ concurrency: 1 });
  const contestants = {
    'raw, 1 thread': () => one.run(raw),
    'raw, 2 threads': () => two.run(raw),
    'p-queue': () => queue.add(() => one.run(raw)),
    ...(batched && { 'batches every 5 ms': createWindow(one, feed, shape, data) }),
    inlay: () => model.run(feeds),
  };
  const others = Object.keys(contestants).filter((key) => key !== 'inlay');
  const figures = [];
  let capacity = 0;
  for (const callers of CALLERS) {
    const of = await inTurns(contestants, (call) => closedLoop(callers, call));
    const better = of('raw, 1 thread', 'perSecond') >= of('raw, 2 threads', 'perSecond') ? 1 : 2;
    const best = better === 1 ? 'raw, 1 thread' : 'raw, 2 threads';
    capacity = Math.max(capacity, of(best, 'perSecond'));
    const add = (metric, key, unit, baseline, parts = {}) =>
      figures.push(
        figure({
          bench: 'throughput',
          case: `${name}, ${callers} ${callers === 1 ? 'caller' : 'callers'}`,
          metric,
          value: of('inlay', key),
          unit,
          baseline: of(baseline, key),
          ...parts,
        }),
      );
    add('calls per second', 'perSecond', '1/s', best, {
      ...(callers === 64 && { target: TARGETS[name], targetIs: 'ratio', better: 'higher' }),
    });
    for (const other of others) {
      const isRival = other === 'batches every 5 ms' || other === 'p-queue';
      add(`calls per second beside ${other}`, 'perSecond', '1/s', other, {
        ...(isRival && callers > 1 && { target: 1, targetIs: 'ratio', better: 'higher' }),
      });
    }
    const isInline = inlay.info().models[0].placement === 'inline';
    add('p50', 'p50', 'ms', best, {
      ...(callers === 1 && isInline && { target: 1.15, targetIs: 'ratio' }),
    });
    add('p99', 'p99', 'ms', best);
    if (batched) {
      add('p50 beside batches every 5 ms', 'p50', 'ms', 'batches every 5 ms', {
        target: 1,
        targetIs: 'ratio',
      });
    }
  }
  for (const load of LOADS) {
    const rate = load * capacity;
    const best = 'raw, 1 thread';
    const of = await inTurns({ [best]: contestants[best], inlay: contestants.inlay }, (call) =>
      poisson(rate, call),
    );
    for (const metric of ['p50', 'p99']) {
      figures.push(
        figure({
          bench: 'throughput',
          case: `${name}, Poisson, ${load} of what raw can take`,
          metric,
          value: of('inlay', metric),
          unit: 'ms',
          baseline: of(best, metric),
        }),
      );
    }
  }
  const { placement, placementReason, queue: plan } = inlay.info().models[0];
  console.error(
    `${name}: ${placement}, ${placementReason ?? ''}; ${plan.slots.join(', ')}; ` +
      (plan.unbatchable ?? `batches of up to ${plan.lanes[0].batchCap}`),
  );
  await Promise.all([inlay.close(), one.release(), two.release()]);
  return figures;
}

/** Measures contestants round by round. @returns the median over the rounds of one contestant's metric. */
async function inTurns(contestants, measure) {
  const results = Object.fromEntries(Object.keys(contestants).map((key) => [key, []]));
  // The first round warms compilers, caches and workers up.
  for (let round = -1; round < ROUNDS; round += 1) {
    for (const [key, call] of Object.entries(contestants)) {
      const result = await measure(call);
      if (round >= 0) results[key].push(result);
    }
  }
  return (key, metric) => median(results[key].map((result) => result[metric]));
}

/** Callers that call again as soon as they are answered. */
async function closedLoop(callers, call) {
  const latencies = [];
  let going = true;
  let calls = 0;
  const caller = async () => {
    while (going) {
      const asked = performance.now();
      await call();
      calls += 1;
      if (calls % 8 === 0) latencies.push(performance.now() - asked);
    }
  };
  const started = performance.now();
  const running = Array.from({ length: callers }, caller);
  await new Promise((resolve) => {
    setTimeout(resolve, SECONDS * 1000);
  });
  const perSecond = (calls / (performance.now() - started)) * 1000;
  going = false;
  await Promise.all(running);
  return { perSecond, p50: quantile(latencies, 0.5), p99: quantile(latencies, 0.99) };
}

/** Calls that come whether or not the earlier ones were answered; they wait from the moment in which they were due. */
async function poisson(perSecond, call) {
  const latencies = [];
  const running = [];
  const started = performance.now();
  let due = started;
  const end = started + SECONDS * 1000;
  while (due < end) {
    // Whoever sends without pause leaves nobody time to answer.
    for (let sent = 0; sent < BURST && due <= performance.now() && due < end; sent += 1) {
      const asked = due;
      running.push(
        call().then(() => {
          latencies.push(performance.now() - asked);
        }),
      );
      due += (-Math.log(1 - Math.random()) / perSecond) * 1000;
    }
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }
  await Promise.all(running);
  return { p50: quantile(latencies, 0.5), p99: quantile(latencies, 0.99) };
}

/** The batcher that one writes first: collect for 5 ms, or up to 32, then run. */
function createWindow(session, feed, shape, data) {
  const width = data.length;
  let waiting = [];
  let timer;
  const flush = async () => {
    clearTimeout(timer);
    timer = undefined;
    const batch = waiting;
    waiting = [];
    const joined = new Float32Array(batch.length * width);
    batch.forEach((_, row) => joined.set(data, row * width));
    const outputs = await session.run({
      [feed]: new ort.Tensor('float32', joined, [batch.length, ...shape.slice(1)]),
    });
    const [name] = session.outputNames;
    const { data: rows, dims } = outputs[name];
    const size = rows.length / dims[0];
    batch.forEach((resolve, row) => {
      resolve({
        [name]: new ort.Tensor('float32', rows.slice(row * size, (row + 1) * size), [1, ...dims.slice(1)]),
      });
    });
  };
  return () =>
    new Promise((resolve) => {
      waiting.push(resolve);
      if (waiting.length === WINDOW_BATCH) void flush();
      else timer ??= setTimeout(() => void flush(), WINDOW_MS);
    });
}
