import { performance } from 'node:perf_hooks';
import * as ort from 'onnxruntime-node';
import { createInlay, Tensor } from 'inlay';
import { median, quantile } from './measure.mjs';
import { cnn, modelFolder, trivial } from './models.mjs';
import { figure } from './report.mjs';

const SECONDS = 2;
const ROUNDS = 3;

/** How late timers of the host fire while callers keep a model busy without pause. */
export async function run() {
  const write = modelFolder();
  const inlay = createInlay({ device: 'cpu' });
  const figures = [];
  for (const { name, path, input, callers } of [
    { name: 'cnn, 64 callers', path: write('cnn', cnn()), input: ['image', [1, 1, 28, 28]], callers: 64 },
    { name: 'trivial, 8 callers', path: write('trivial', trivial()), input: ['x', [1, 4]], callers: 8 },
  ]) {
    const [feed, shape] = input;
    const data = new Float32Array(shape.reduce((size, length) => size * length, 1)).fill(0.5);
    const session = await ort.InferenceSession.create(path, { intraOpNumThreads: 1, interOpNumThreads: 1 });
    const model = await inlay.load(path);
    const raw = { [feed]: new ort.Tensor('float32', data, shape) };
    const feeds = { [feed]: new Tensor('float32', shape, data) };
    const rounds = { raw: [], inlay: [] };
    for (let round = 0; round < ROUNDS; round += 1) {
      rounds.raw.push(await saturate(callers, () => session.run(raw)));
      rounds.inlay.push(await saturate(callers, () => model.run(feeds)));
    }
    const of = (how, metric) => median(rounds[how].map((result) => result[metric]));
    const row = (label, metric, target) =>
      figure({
        bench: 'loop-delay',
        case: name,
        metric: label,
        value: of('inlay', metric),
        baseline: of('raw', metric),
        unit: 'ms',
        ...(target && { target }),
      });
    figures.push(
      row('loop delay p50', 'p50'),
      row('loop delay p99', 'p99', 5),
      row('loop delay max', 'max'),
      row('time per call', 'msPerCall'),
    );
    await Promise.all([model.close(), session.release()]);
  }
  await inlay.close();
  return figures;
}

async function saturate(callers, call) {
  const late = [];
  let going = true;
  let calls = 0;
  const caller = async () => {
    while (going) {
      await call();
      calls += 1;
    }
  };
  const running = Array.from({ length: callers }, caller);
  const started = performance.now();
  while (performance.now() - started < SECONDS * 1000) {
    const asked = performance.now();
    await new Promise((resolve) => setTimeout(resolve, 1));
    late.push(Math.max(0, performance.now() - asked - 1));
  }
  const elapsed = performance.now() - started;
  going = false;
  await Promise.all(running);
  return {
    p50: quantile(late, 0.5),
    p99: quantile(late, 0.99),
    max: Math.max(...late),
    msPerCall: elapsed / calls,
  };
}
