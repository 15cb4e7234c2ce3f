import { performance } from 'node:perf_hooks';
import * as ort from 'onnxruntime-node';
import { createInlay, Tensor } from 'inlay';
import { quantile } from './measure.mjs';
import { cnn, modelFolder } from './models.mjs';
import { figure } from './report.mjs';

const CALLERS = 64;
const SECONDS = 3;

/** How late timers of the host fire while 64 callers keep a CNN busy without pause. */
export async function run() {
  const path = modelFolder()('cnn', cnn());
  const session = await ort.InferenceSession.create(path, { intraOpNumThreads: 1, interOpNumThreads: 1 });
  const inlay = createInlay({ device: 'cpu' });
  const model = await inlay.load(path);
  const pixels = new Float32Array(784).fill(0.5);
  const raw = { image: new ort.Tensor('float32', pixels, [1, 1, 28, 28]) };
  const feeds = { image: new Tensor('float32', [1, 1, 28, 28], pixels) };

  const rounds = { raw: [], inlay: [] };
  for (let round = 0; round < 3; round += 1) {
    rounds.raw.push(await saturate(() => session.run(raw)));
    rounds.inlay.push(await saturate(() => model.run(feeds)));
  }
  const median = (name, metric) =>
    quantile(
      rounds[name].map((result) => result[metric]),
      0.5,
    );
  return [
    ...['p50', 'p99', 'max'].map((metric) =>
      figure({
        bench: 'loop-delay',
        case: `${CALLERS} callers`,
        metric: `loop delay ${metric}`,
        value: median('inlay', metric),
        baseline: median('raw', metric),
        unit: 'ms',
        ...(metric === 'p99' && { target: 5 }),
      }),
    ),
    figure({
      bench: 'loop-delay',
      case: `${CALLERS} callers`,
      metric: 'time per call',
      value: median('inlay', 'msPerCall'),
      baseline: median('raw', 'msPerCall'),
      unit: 'ms',
    }),
  ];
}

async function saturate(call) {
  const late = [];
  let going = true;
  let calls = 0;
  const caller = async () => {
    while (going) {
      await call();
      calls += 1;
    }
  };
  const callers = Array.from({ length: CALLERS }, caller);
  const started = performance.now();
  while (performance.now() - started < SECONDS * 1000) {
    const asked = performance.now();
    await new Promise((resolve) => setTimeout(resolve, 1));
    late.push(Math.max(0, performance.now() - asked - 1));
  }
  const elapsed = performance.now() - started;
  going = false;
  await Promise.all(callers);
  return {
    p50: quantile(late, 0.5),
    p99: quantile(late, 0.99),
    max: Math.max(...late),
    msPerCall: elapsed / calls,
  };
}
