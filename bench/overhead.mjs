import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import * as ort from 'onnxruntime-node';
import { createInlay, Tensor } from 'inlay';
import { added, interleave, median } from './measure.mjs';
import { mean, modelFolder, trivial } from './models.mjs';
import { figure } from './report.mjs';

const OPTIONS = { intraOpNumThreads: 1, interOpNumThreads: 1 };

/** What a call through Inlay costs over a raw `session.run`. */
export async function run() {
  const write = modelFolder();
  const path = write('trivial', trivial());
  const session = await ort.InferenceSession.create(path, OPTIONS);
  const inline = createInlay({ placement: 'inline', device: 'cpu' });
  const worker = createInlay({ placement: 'worker', device: 'cpu' });
  const inlineModel = await inline.load(path);
  const workerModel = await worker.load(path);
  const data = new Float32Array([1, 2, 3, 4]);
  const raw = { x: new ort.Tensor('float32', data, [1, 4]) };
  const tensor = { x: new Tensor('float32', [1, 4], data) };
  const array = { x: data };

  const echo = await startEcho();
  const small = await interleave(
    {
      raw: () => session.run(raw),
      tensor: () => inlineModel.run(tensor),
      array: () => inlineModel.run(array),
      worker: () => workerModel.run(tensor),
      echo: () => echo.send(array),
    },
    { rounds: 21, repeats: 2000 },
  );
  // 6 MB: what a 1024 × 512 × 3 float image takes.
  const count = (6 * 2 ** 20) / 4;
  const large = await worker.load(write('mean', mean(count)));
  const inPlace = await inline.load(write('mean-inline', mean(count)));
  const pixels = () => ({ x: new Float32Array(count) });
  let detached = true;
  const moved = await interleave(
    {
      inline: () => inPlace.run(pixels()),
      copied: () => large.run(pixels()),
      transferred: async () => {
        const feeds = pixels();
        await large.run(feeds, { transfer: true });
        detached &&= feeds.x.byteLength === 0;
      },
    },
    { rounds: 15, repeats: 20 },
  );
  await Promise.all([inline.close(), worker.close(), session.release(), echo.stop()]);

  const row = (name, value, parts = {}) =>
    figure({ bench: 'overhead', case: name, metric: 'per call', value, unit: 'µs', ...parts });
  const overhead = (name, times, target) =>
    row(name, added(small.raw, times), { metric: 'added per call', target });
  const budget = Math.max(2, 0.15 * median(small.raw));
  return [
    row('raw session.run', median(small.raw)),
    row('inline, tensor', median(small.tensor), { baseline: median(small.raw) }),
    overhead('inline, tensor', small.tensor, budget),
    overhead('inline, typed array', small.array, budget),
    row('bare postMessage to a worker and back', median(small.echo)),
    overhead('worker, small feeds', small.worker, 35),
    row('worker, 6 MB copied', median(moved.copied), { baseline: median(moved.inline) }),
    row('worker, 6 MB transferred', median(moved.transferred), {
      baseline: median(moved.copied),
      target: 1,
      targetIs: 'ratio',
      ok: detached && added(moved.transferred, moved.copied) > 0,
    }),
  ];
}

/** A worker that only sends messages back: what crossing threads costs on this machine, whoever does it. */
async function startEcho() {
  const code = `const { parentPort } = require('node:worker_threads');
    parentPort.on('message', (message) => parentPort.postMessage(message));`;
  const worker = new Worker(code, { eval: true });
  await once(worker, 'online');
  let settle;
  worker.on('message', (message) => settle(message));
  return {
    send: (message) =>
      new Promise((resolve) => {
        settle = resolve;
        worker.postMessage(message);
      }),
    stop: () => worker.terminate(),
  };
}
