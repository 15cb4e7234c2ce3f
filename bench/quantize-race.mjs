import { readFileSync } from 'node:fs';
import { encodeModel, parseModel } from 'inlay/onnx';
import { applyTechnique, calibrate, compareOutputs, inferTypes, prepareModel } from 'inlay/optimize';
import { median, quantile } from './measure.mjs';
import { figure } from './report.mjs';

/** Whether only a part is measured, in less than a minute. */
export const isQuick = process.env.INLAY_BENCH_QUANTIZE === 'quick';
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? (isQuick ? 7 : 15));
/** Time of one turn: quick models run more often. */
const TURN_MS = 25;
const LEAST_RUNS = 4;

/** Data that is not part of the repository. */
export const DATA = new URL('../../shared/data/', import.meta.url);

/** @param {string} name @returns {Uint8Array} */
export function readData(name) {
  return new Uint8Array(readFileSync(new URL(name, DATA)));
}

/** The techniques that figures are given for, by what the candidates of the automatic choice are called. */
export const TECHNIQUES = {
  'int8-row': { kind: 'dynamic', mode: 'row' },
  'int8-dynamic': { kind: 'dynamic', mode: 'tensor' },
  'int8-static': { kind: 'static' },
  'int8-block128': { kind: 'nbits', bits: 8 },
  'int4-block32': { kind: 'nbits', bits: 4 },
  'int4-block128': { kind: 'nbits', bits: 4, blockSize: 128 },
  fp16: { kind: 'float16' },
};

/** As Python's `quantize_dynamic` and `quantize_static` do if they are told nothing, with our options. */
export const PYTHON_DEFAULTS = {
  dynamic: { kind: 'dynamic', mode: 'tensor', perChannel: false },
  static: { kind: 'static', activations: 'int8', perChannel: false },
};

/**
 * A model that techniques can be applied to.
 * @param {Uint8Array} bytes
 * @param {import('inlay/optimize').OptimizeRuntime} runtime
 * @param {readonly import('inlay').TensorMap[]} samples for calibration
 */
export async function openWorkpiece(bytes, runtime, samples) {
  const prepared = await prepareModel(parseModel(bytes), runtime);
  const types = await inferTypes(prepared, runtime);
  const ranges = {};
  return {
    /** @returns {Promise<Uint8Array | undefined>} what a technique makes of it, if there is something that it is for. */
    make: async (technique, { method = 'percentile' } = {}) => {
      if (technique.kind === 'static') {
        ranges[method] ??= (await calibrate(prepared, runtime, samples, { method, types })).ranges;
      }
      const { model, changed } = applyTechnique(prepared, technique, { types, ranges: ranges[method] });
      return changed.length > 0 ? encodeModel(model) : undefined;
    },
  };
}

/**
 * Lets models take turns on the same feeds, in another order in each round.
 * @param {import('inlay/optimize').OptimizeRuntime} runtime
 * @param {Record<string, Uint8Array>} models
 * @returns {Promise<Record<string, number>>} milliseconds: the median over rounds of each round's 10th percentile.
 */
export async function race(runtime, models, feeds) {
  const contestants = [];
  try {
    for (const [name, model] of Object.entries(models)) {
      const session = await runtime.open(model, { threads: 1 });
      contestants.push({ name, session, rounds: [] });
    }
    for (const contestant of contestants) {
      const quickest = Math.min(...(await contestant.session.time(feeds, 3)));
      contestant.runs = Math.max(LEAST_RUNS, Math.min(500, Math.ceil(TURN_MS / quickest)));
    }
    for (let round = 0; round < ROUNDS; round += 1) {
      for (let i = 0; i < contestants.length; i += 1) {
        const { session, runs, rounds } = contestants[(i + round) % contestants.length];
        rounds.push(quantile(await session.time(feeds, runs), 0.1));
      }
    }
    return Object.fromEntries(contestants.map(({ name, rounds }) => [name, median(rounds)]));
  } finally {
    for (const { session } of contestants) await session.release();
  }
}

/** Signal-to-noise ratio of a model's answers, dB. */
export async function sqnrOf(runtime, original, model, samples) {
  const [expected, actual] = [
    await answersOf(runtime, original, samples),
    await answersOf(runtime, model, samples),
  ];
  return compareOutputs(expected, actual).sqnrDb;
}

export async function answersOf(runtime, model, samples) {
  const session = await runtime.open(model);
  try {
    const answers = [];
    for (const sample of samples) answers.push(await session.run(sample));
    return answers;
  } finally {
    await session.release();
  }
}

/** A figure of this bench. */
export function row(name, metric, value, more = {}) {
  return figure({ bench: 'quantize', case: name, metric, value, unit: '', ...more });
}

/** How many runs a second a model makes, beside the float model in the same rounds: the ratio is the speed-up. */
export function speedRow(name, ms, floatMs, target) {
  const more = { baseline: 1000 / floatMs, unit: 'runs/s', targetIs: 'ratio', better: 'higher' };
  return row(name, 'speed', 1000 / ms, { ...more, ...(target !== undefined && { target }) });
}

/** Size of a file beside that of the float model. */
export function sizeRow(name, model, float, target) {
  const more = { baseline: float.length / 1e6, unit: 'MB', targetIs: 'ratio' };
  return row(name, 'size', model.length / 1e6, { ...more, ...(target !== undefined && { target }) });
}

/** @param {number | string} batch */
export function inRows(batch) {
  return `${batch} ${Number(batch) === 1 ? 'row' : 'rows'}`;
}
