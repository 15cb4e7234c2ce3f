/** One variant of the memory bench, in a process of its own so that its memory is its own. Prints one JSON line. */
import { performance } from 'node:perf_hooks';
import * as ort from 'onnxruntime-node';
import { createInlay, Tensor } from 'inlay';
import { createMemoryStore } from 'inlay/stores/memory';

const [variant, path, amount] = process.argv.slice(2);
const shape = [1, 784];
const data = new Float32Array(784).fill(0.5);
const began = performance.now();
const samples = await (variant === 'soak' ? soak(Number(amount) * 1000) : cycle(Number(amount)));
console.log(JSON.stringify({ samples, seconds: (performance.now() - began) / 1000 }));

/** Loads and closes a model again and again. @returns resident bytes after each twentieth of the cycles. */
async function cycle(cycles) {
  const { once, close } = variant === 'raw' ? raw() : throughInlay();
  const resident = [];
  for (let i = 1; i <= cycles; i += 1) {
    await once();
    if (i % (cycles / 20) === 0) resident.push(await settledBytes());
  }
  await close();
  return resident;
}

function raw() {
  return {
    async once() {
      const session = await ort.InferenceSession.create(path, { intraOpNumThreads: 1, interOpNumThreads: 1 });
      await session.run({ image: new ort.Tensor('float32', data, shape) });
      await session.release();
    },
    close: async () => {},
  };
}

function throughInlay() {
  // What a store on disk costs in time has nothing to do with memory.
  const inlay = createInlay({ placement: variant, device: 'cpu', store: createMemoryStore() });
  return {
    async once() {
      const model = await inlay.load(path);
      await model.run({ image: new Tensor('float32', shape, data) });
      await model.close();
    },
    close: () => inlay.close(),
  };
}

/**
 * An hour's worth of what can happen to a busy model: batches of all sizes, calls that are aborted, calls that are too
 * late, calls that do not fit, single outputs, results that are kept for a while.
 * @returns resident bytes after each twentieth of the time.
 */
async function soak(lengthMs) {
  const inlay = createInlay({ device: 'cpu', store: createMemoryStore() });
  const model = await inlay.load(path, { maxWaiting: 500 });
  const random = createRandom(3);
  const kept = [];
  const outcomes = {};
  let isOver = false;
  const call = async () => {
    const rows = random() < 0.8 ? 1 : Math.ceil(random() * 200);
    const fits = random() > 0.02;
    const image = new Tensor(
      'float32',
      [rows, fits ? 784 : 783],
      new Float32Array(rows * (fits ? 784 : 783)),
    );
    const controller = new AbortController();
    const answer = model.run(
      { image },
      {
        ...(random() < 0.2 && { deadlineMs: 0.2 + random() * 20 }),
        ...(random() < 0.1 && { priority: Math.round(random() * 10) }),
        ...(random() < 0.1 && { outputs: ['logits'] }),
        ...(random() < 0.1 && { transfer: true }),
        signal: controller.signal,
      },
    );
    const roll = random();
    if (roll < 0.05) controller.abort();
    else if (roll < 0.1) setTimeout(() => controller.abort(), random() * 5);
    const outcome = await answer.then(
      ({ logits }) => {
        kept[Math.floor(random() * 200)] = logits;
        return 'answered';
      },
      (error) => (error.name === 'AbortError' ? 'aborted' : (error.code ?? error.name)),
    );
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  };
  const caller = async () => {
    while (!isOver) await call();
  };
  const callers = Array.from({ length: 64 }, caller);
  const resident = [];
  for (let part = 0; part < 20; part += 1) {
    await new Promise((resolve) => {
      setTimeout(resolve, lengthMs / 20);
    });
    resident.push(await settledBytes());
  }
  isOver = true;
  await Promise.all(callers);
  await inlay.close();
  console.error(
    Object.entries(outcomes)
      .map(([outcome, count]) => `${count} ${outcome}`)
      .join(', '),
  );
  return resident;
}

/** Resident bytes, when everything that is garbage was collected, finalizers included. */
async function settledBytes() {
  for (let i = 0; i < 3; i += 1) {
    globalThis.gc();
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }
  return process.memoryUsage.rss();
}

function createRandom(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
