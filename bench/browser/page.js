/** What is measured in the page. Everything is called from `../browser.mjs`; times are in milliseconds. */
import { createInlay, Tensor } from 'inlay';
import { openRaw } from './raw.js';

const FEEDS = { mlp: [1, 784], cnn: [1, 1, 28, 28] };

const longTasks = [];
new PerformanceObserver((list) => longTasks.push(...list.getEntries())).observe({
  type: 'longtask',
  buffered: true,
});

globalThis.api = {
  /** Loads a model and runs it again and again. @returns lengths of the tasks of this thread above 50 ms. */
  async longTasks(name, runs) {
    const inlay = createInlay();
    const model = await inlay.load(`/${name}.onnx`);
    const image = imageOf(name);
    for (let run = 0; run < runs; run += 1) await model.run({ image });
    await inlay.close();
    return tasksSoFar();
  },

  /** The same with the library alone, on this thread. */
  async longTasksOfLibrary(name, runs) {
    const ort = await import('onnxruntime-web/wasm');
    ort.env.wasm.numThreads = 1;
    const session = await ort.InferenceSession.create(`/${name}.onnx`);
    const { shape, data } = imageOf(name);
    for (let run = 0; run < runs; run += 1) {
      await session.run({ image: new ort.Tensor('float32', data, shape) });
    }
    await session.release();
    return tasksSoFar();
  },

  /** One caller. @returns for each round, how long each of its calls took. */
  latency: (name, rounds, repeats) =>
    compare(name, rounds, async (call) => {
      const times = [];
      for (let i = 0; i < repeats; i += 1) {
        const asked = performance.now();
        await call();
        times.push(performance.now() - asked);
      }
      return times;
    }),

  /** Callers that call again as soon as they are answered. @returns for each round, answers per second. */
  throughput: (name, rounds, callers, lengthMs) =>
    compare(name, rounds, async (call) => {
      const began = performance.now();
      let answers = 0;
      const caller = async () => {
        while (performance.now() - began < lengthMs) {
          await call();
          answers += 1;
        }
      };
      await Promise.all(Array.from({ length: callers }, caller));
      return (1000 * answers) / (performance.now() - began);
    }),
};

/** Measures Inlay and a hand-written worker in turn. */
async function compare(name, rounds, measure) {
  const bytes = new Uint8Array(await (await fetch(`/${name}.onnx`)).arrayBuffer());
  const raw = await openRaw(bytes);
  const inlay = createInlay({ device: 'cpu' });
  const model = await inlay.load(bytes.slice());
  const image = imageOf(name);
  const feeds = { image };
  const results = { inlay: [], raw: [] };
  const contestants = [
    ['raw', () => raw.run({ image: { shape: image.shape, data: image.data } })],
    ['inlay', () => model.run(feeds)],
  ];
  // The first round warms compilers and caches up; afterwards they take turns at going first.
  for (let round = -1; round < rounds; round += 1) {
    for (const [key, call] of round % 2 === 0 ? contestants : contestants.toReversed()) {
      const result = await measure(call);
      if (round >= 0) results[key].push(result);
    }
  }
  const [{ provider, placement, queue }] = inlay.info().models;
  raw.close();
  await inlay.close();
  return { ...results, provider, placement, batchCap: queue.lanes[0]?.batchCap };
}

function imageOf(name) {
  const shape = FEEDS[name];
  return new Tensor(
    'float32',
    shape,
    Float32Array.from({ length: 784 }, (_, i) => (i % 7) / 7),
  );
}

/** Tasks are told of in a task of their own. */
async function tasksSoFar() {
  await new Promise((resolve) => {
    setTimeout(resolve, 200);
  });
  return longTasks.map(({ duration }) => duration);
}
