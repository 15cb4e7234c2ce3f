import { performance } from 'node:perf_hooks';
import * as ort from 'onnxruntime-node';
import PQueue from 'p-queue';
import { createInlay, Tensor } from 'inlay';
import { median } from './measure.mjs';
import { cnn, modelFolder } from './models.mjs';
import { figure } from './report.mjs';
import { openLoop, openVirtual, poisson, takeAllThatWaits, virtualTime } from './virtual.mjs';

const DEADLINE_MS = 100;
const SECONDS = Number(process.env.BENCH_SECONDS ?? 1.5);
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 7);
/** Samples of one real call: enough that making calls takes little in comparison with answering them. */
const ROWS = 64;
const CALLERS = 64;

/** What is answered within 100 ms when more is asked than can be done, beside first come, first served. */
export async function run() {
  return [...(await virtual()), ...(await real())];
}

/** Batches of b samples take b + 4 ms. */
async function virtual() {
  const costMs = (samples) => samples + 4;
  const capacity = 32 / costMs(32);
  const figures = [];
  for (const load of [1, 1.1, 1.5, 3]) {
    const arrivals = poisson(load * capacity, 40_000, 2);
    const time = virtualTime();
    const call = openVirtual(time, costMs, {}, { linger: 'auto' });
    const results = await openLoop(time, arrivals, () => call({ deadlineMs: DEADLINE_MS }));
    const achievable = Math.min(load, 1) * capacity * arrivals.at(-1);
    const onTime = results.filter(({ isAnswered, afterMs }) => isAnswered && afterMs <= DEADLINE_MS).length;
    const fifo = takeAllThatWaits(arrivals, costMs, 32).filter((afterMs) => afterMs <= DEADLINE_MS).length;
    figures.push(
      ...figuresOf(`virtual time, ${load} × capacity`, {
        onTime: onTime / achievable,
        fifo: fifo / achievable,
        rejectMs: meanRejection(results),
        target: load > 1 ? 0.95 : undefined,
      }),
    );
  }
  return figures;
}

async function real() {
  const path = modelFolder()('cnn', cnn());
  const shape = [ROWS, 1, 28, 28];
  const data = Float32Array.from({ length: ROWS * 784 }, (_, at) => (at % 7) / 7);
  const session = await ort.InferenceSession.create(path, { intraOpNumThreads: 1, interOpNumThreads: 1 });
  const raw = { image: new ort.Tensor('float32', data, shape) };
  const inlay = createInlay({ device: 'cpu' });
  const model = await inlay.load(path);
  const feeds = { image: new Tensor('float32', shape, data) };
  const ours = (deadlineMs) => model.run(feeds, { deadlineMs });
  const figures = [];
  const loads = [1.5, 3];
  const rounds = loads.map(() => []);
  // Further workers open only when there is work for them.
  await capacityOf(() => model.run(feeds));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [at, load] of loads.entries()) {
      const before = await capacityOf(() => model.run(feeds));
      const results = await offer(before * load, round, ours);
      const after = await capacityOf(() => model.run(feeds));
      const capacity = (before + after) / 2;
      const rawCapacity = await capacityOf(() => session.run(raw));
      const queue = new PQueue({ concurrency: 1 });
      const fifo = await offer(rawCapacity * load, round, () => queue.add(() => session.run(raw)));
      queue.clear();
      await queue.onIdle();
      rounds[at].push({
        onTime: onTimePerSecond(results) / capacity,
        fifo: onTimePerSecond(fifo) / rawCapacity,
        rejectMs: meanRejection(results),
        lateMs: median(results.map(({ sentLateMs }) => sentLateMs)),
      });
    }
  }
  for (const [at, load] of loads.entries()) {
    const of = (metric) => median(rounds[at].map((round) => round[metric]));
    const label = `CNN in workers, ${ROWS} samples a call, ${load} × capacity`;
    const parts = { onTime: of('onTime'), fifo: of('fifo'), rejectMs: of('rejectMs'), target: 0.95 };
    figures.push(
      ...figuresOf(label, parts),
      figure({
        bench: 'overload',
        case: label,
        metric: 'delay of the load generator, median',
        value: of('lateMs'),
        unit: 'ms',
      }),
    );
  }
  await Promise.all([inlay.close(), session.release()]);
  return figures;
}

function figuresOf(label, { onTime, fifo, rejectMs, target }) {
  const share = {
    bench: 'overload',
    case: label,
    metric: `answered within ${DEADLINE_MS} ms, of what could be`,
    value: onTime,
    unit: '×',
    baseline: fifo,
  };
  return [
    figure({ ...share, ...(target !== undefined && { ok: onTime >= target }) }),
    figure({
      bench: 'overload',
      case: label,
      metric: 'mean time to reject',
      value: rejectMs,
      unit: 'ms',
      target: 20,
    }),
  ];
}

/** Calls per second of callers that call again as soon as they are answered. */
async function capacityOf(call) {
  let going = true;
  let calls = 0;
  const caller = async () => {
    while (going) {
      await call();
      calls += 1;
    }
  };
  const running = Array.from({ length: CALLERS }, caller);
  // Until all callers wait behind each other.
  await sleep(SECONDS * 200);
  const [started, before] = [performance.now(), calls];
  await sleep(SECONDS * 500);
  const perSecond = ((calls - before) / (performance.now() - started)) * 1000;
  going = false;
  await Promise.all(running);
  return perSecond;
}

/** Calls at random times, whether or not earlier ones were answered. Times count from when a call was due to be made. */
async function offer(perSecond, seed, call) {
  const arrivals = poisson(perSecond / 1000, Math.ceil(perSecond * SECONDS), seed + 1);
  const results = [];
  const started = performance.now();
  for (let next = 0; next < arrivals.length; await sleep(1)) {
    for (
      const now = performance.now() - started;
      next < arrivals.length && arrivals[next] <= now;
      next += 1
    ) {
      const dueMs = arrivals[next];
      const sentLateMs = performance.now() - started - dueMs;
      const note = (isAnswered) => {
        const atMs = performance.now() - started;
        results.push({ isAnswered, sentLateMs, atMs, afterMs: atMs - dueMs });
      };
      call(Math.max(1, DEADLINE_MS - sentLateMs)).then(
        () => note(true),
        () => note(false),
      );
    }
  }
  await sleep(DEADLINE_MS * 2);
  return [...results];
}

/** What is answered when no more calls come is left out: it was done in time that does not count. */
function onTimePerSecond(results) {
  const onTime = results.filter(
    ({ isAnswered, afterMs, atMs }) => isAnswered && afterMs <= DEADLINE_MS && atMs <= SECONDS * 1000,
  );
  return onTime.length / SECONDS;
}

function meanRejection(results) {
  const rejected = results.filter(({ isAnswered }) => !isAnswered);
  return rejected.reduce((sum, { afterMs }) => sum + afterMs, 0) / Math.max(1, rejected.length);
}

function sleep(milliseconds) {
  return new Promise((resolve) => {
    setTimeout(resolve, milliseconds);
  });
}
