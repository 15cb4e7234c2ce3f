/** What the automatic choice takes for each model of the zoo, measured once more beside every candidate. */
import { performance } from 'node:perf_hooks';
import { encodeModel, parseModel } from 'inlay/onnx';
import { checkInvariance, compareOutputs, optimizeModel } from 'inlay/optimize';
import {
  answersOf,
  inRows,
  isQuick,
  openWorkpiece,
  race,
  row,
  speedRow,
  TECHNIQUES,
} from './quantize-race.mjs';
import { convolutions, decodeStep, encoder, mlp, residual, tiny } from './zoo.mjs';

/** Least signal-to-noise ratio, dB: the default of the choice. */
const MIN_SQNR_DB = 25;
const CALIBRATION = 8;
/** Slower than this beside the original is never taken. */
const LEAST_SPEED = 0.97;
/** The best candidate may be this much faster than what is taken. */
const LEAST_OF_BEST = 0.9;

/** Cases by place: models, and the rows of one call. */
const QUICK = {
  native: [[() => mlp({ width: 512 })], [() => convolutions({ size: 28 })], [() => tiny()]],
  WebAssembly: [],
};
const ALL = {
  native: [
    ...[256, 512, 1024].map((width) => [() => mlp({ width })]),
    [() => mlp({ width: 2048, layers: 2 })],
    [() => convolutions({ channels: 64, size: 56, layers: 2 })],
    [() => convolutions({ channels: 128, size: 28, layers: 2 })],
    [() => convolutions({ channels: 256, size: 14, layers: 2 })],
    [() => convolutions({ channels: 256, size: 28, layers: 2, kernel: 1 })],
    [() => convolutions({ channels: 256, size: 28, layers: 2, depthwise: true })],
    [() => residual()],
    [() => encoder({ layers: 2 })],
    [() => encoder({ layers: 1 }), 8],
    [() => decodeStep({ width: 1024, vocabulary: 2048 })],
    [() => tiny()],
    [() => mlp({ width: 512 }), 32],
  ],
  WebAssembly: [
    [() => mlp({ width: 512, layers: 2 })],
    [() => mlp({ width: 512, layers: 2 }), 32],
    [() => convolutions({ size: 28, layers: 2 })],
  ],
};

export async function autos(node, wasm) {
  const rows = [];
  const places = { native: node, WebAssembly: wasm };
  let models = 0;
  const started = performance.now();
  for (const [place, cases] of Object.entries(isQuick ? QUICK : ALL)) {
    for (const [open, batch = 1] of cases) {
      rows.push(...(await choose(place, { node, runtime: places[place], batch, ...open() })));
      models += 1;
    }
  }
  const seconds = (performance.now() - started) / 1000 / models;
  return [
    ...rows,
    row('automatic choice', 'time for each model, measured once more', seconds, { unit: 's' }),
  ];
}

async function choose(place, { node, runtime, batch, name, model, feeds }) {
  const calibration = Array.from({ length: CALIBRATION }, (_, i) => feeds(1, 10 + i));
  const samples = Array.from({ length: 4 }, (_, i) => feeds(1, 1 + i));
  const {
    model: chosen,
    decision,
    isChanged,
  } = await optimizeModel(parseModel(model), {
    runtime,
    batches: [batch],
    samples,
    calibration: { data: calibration },
    goal: { minSqnrDb: MIN_SQNR_DB },
    monotonicMs: () => performance.now(),
  });
  const workpiece = await openWorkpiece(model, node, calibration);
  const models = { float: model, ...(isChanged && { chosen: encodeModel(chosen) }) };
  const expected = await answersOf(runtime, model, samples);
  for (const [candidate, technique] of Object.entries(TECHNIQUES)) {
    const tried = decision.attempts.find((attempt) => attempt.name === candidate);
    // It would be found to be as far from the original once more.
    if (tried?.accuracy?.sqnrDb < MIN_SQNR_DB) continue;
    const made = await workpiece.make(technique);
    const isGood =
      made !== undefined &&
      compareOutputs(expected, await answersOf(runtime, made, samples)).sqnrDb >= MIN_SQNR_DB &&
      // With several rows a row has to get what it gets alone.
      (batch === 1 || (await checkInvariance(made, runtime, samples)).isInvariant);
    if (isGood) models[candidate] = made;
  }
  const found = Object.keys(models).find((one) => one !== 'chosen' && isSame(models[one], models.chosen));
  // The same model twice would only tell how noisy the machine is.
  if (found !== undefined) delete models.chosen;
  const times = await race(runtime, models, feeds(batch, 1));
  const own = times[found ?? (isChanged ? 'chosen' : 'float')];
  const [[best, bestMs]] = Object.entries(times).sort(([, a], [, b]) => a - b);
  const what = `${place}, ${name}, ${inRows(batch)}, automatic: ${decision.chosen ?? 'the original'}`;
  return [
    speedRow(what, own, times.float, LEAST_SPEED),
    speedRow(`${what}, beside the best (${best})`, own, bestMs, LEAST_OF_BEST),
  ];
}

function isSame(a, b) {
  return b !== undefined && Buffer.compare(a, b) === 0;
}
