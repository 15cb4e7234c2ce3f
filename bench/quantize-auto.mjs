/** What the automatic choice takes for each model of the zoo, measured once more beside every candidate. */
import { performance } from 'node:perf_hooks';
import { encodeModel, parseModel } from 'inlay/onnx';
import { checkInvariance, optimizeModel } from 'inlay/optimize';
import { inRows, isQuick, openWorkpiece, race, row, speedRow, sqnrOf, TECHNIQUES } from './quantize-race.mjs';
import { convolutions, encoder, mlp, tiny, zoo } from './zoo.mjs';

/** Least signal-to-noise ratio, dB: the default of the choice. */
const MIN_SQNR_DB = 25;
const CALIBRATION = 16;
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
    ...zoo().map((open) => [open]),
    [() => mlp({ width: 512 }), 32],
    [() => encoder({ layers: 2 }), 8],
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
  for (const [candidate, technique] of Object.entries(TECHNIQUES)) {
    const made = await workpiece.make(technique);
    const isGood =
      made !== undefined &&
      (await sqnrOf(runtime, model, made, samples)) >= MIN_SQNR_DB &&
      // With several rows a row has to get what it gets alone.
      (batch === 1 || (await checkInvariance(made, runtime, samples)).isInvariant);
    if (isGood) models[candidate] = made;
  }
  const { float, chosen: own = float, ...others } = await race(runtime, models, feeds(batch, 1));
  const [[best, bestMs]] = Object.entries({ float, ...others }).sort(([, a], [, b]) => a - b);
  const what = `${place}, ${name}, ${inRows(batch)}, automatic: ${decision.chosen ?? 'the original'}`;
  return [
    speedRow(what, own, float, LEAST_SPEED),
    speedRow(`${what}, beside the best (${best})`, own, bestMs, LEAST_OF_BEST),
  ];
}
