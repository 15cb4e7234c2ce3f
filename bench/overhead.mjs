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

  const small = await interleave(
    {
      raw: () => session.run(raw),
      tensor: () => inlineModel.run(tensor),
      array: () => inlineModel.run(array),
      worker: () => workerModel.run(tensor),
    },
    { rounds: 21, repeats: 2000 },
  );
  const budget = Math.max(2, 0.15 * median(small.raw));
  const overhead = (name, times, target) =>
    figure({
      bench: 'overhead',
      case: name,
      metric: 'added per call',
      value: added(small.raw, times),
      unit: 'µs',
      target,
    });

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
  return [
    figure({
      bench: 'overhead',
      case: 'raw session.run',
      metric: 'per call',
      value: median(small.raw),
      unit: 'µs',
    }),
    figure({
      bench: 'overhead',
      case: 'inline, tensor',
      metric: 'per call',
      value: median(small.tensor),
      baseline: median(small.raw),
      unit: 'µs',
    }),
    overhead('inline, tensor', small.tensor, budget),
    overhead('inline, typed array', small.array, budget),
    overhead('worker, small feeds', small.worker, 35),
    figure({
      bench: 'overhead',
      case: 'worker, 6 MB copied',
      metric: 'per call',
      value: median(moved.copied),
      baseline: median(moved.inline),
      unit: 'µs',
    }),
    figure({
      bench: 'overhead',
      case: 'worker, 6 MB transferred',
      metric: 'per call',
      value: median(moved.transferred),
      baseline: median(moved.copied),
      unit: 'µs',
      target: 1,
      targetIs: 'ratio',
      ok: detached && added(moved.transferred, moved.copied) > 0,
    }),
  ];
}
