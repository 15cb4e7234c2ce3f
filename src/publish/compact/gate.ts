/** What decides whether a rounded model is good enough to be published. */

import type { TensorMap } from '../../core/backend.ts';
import { fromFloat16Array } from '../../core/float.ts';
import type { Tensor } from '../../core/tensor.ts';
import { createComparer, type OutputComparison } from '../../optimize/compare.ts';
import type { OptimizeRuntime, RuntimeSession } from '../../optimize/runtime.ts';
import { leastClassSqnrDb, leastContent, leastSameLabels } from './limits.ts';

/** A figure, for people and for the record. */
export interface Figure {
  readonly name: string;
  readonly value: number;
  /** What it must reach, or must not exceed; absent: it is only told. */
  readonly limit?: { readonly atLeast: number } | { readonly atMost: number };
}

/** What a gate says of a model. */
export interface Verdict {
  readonly isGood: boolean;
  readonly figures: readonly Figure[];
}

/** Judges model files. */
export interface Gate {
  judge(model: Uint8Array<ArrayBuffer>): Promise<Verdict>;
}

/** Judges by figures alone. */
export function verdictOf(figures: readonly Figure[]): Verdict {
  return { isGood: figures.every(isReached), figures };
}

/** Tells whether a figure is within its limit; what is no number is not. */
export function isReached({ value, limit }: Figure): boolean {
  if (limit === undefined) return true;
  return 'atLeast' in limit ? value >= limit.atLeast : value <= limit.atMost;
}

/** What {@link createMetricGate} works with. */
export interface MetricGateOptions {
  /** Absent: the score is held against that of `next` alone. */
  readonly base?: Uint8Array<ArrayBuffer> | undefined;
  readonly next: Uint8Array<ArrayBuffer>;
  /** The publisher's own score of a model file. */
  readonly metric: (model: Uint8Array<ArrayBuffer>) => Promise<number>;
  /** Largest share of what `next` gains over `base` that may be lost; without a base, by which its score may change. */
  readonly maxLoss: number;
}

/**
 * Judges by how much of the gain of `next` over `base` is lost. Whether high or low is good is seen from the two: `next`
 * is taken to be the better one. Where they score the same, a model must score that too. Without a base, a model may
 * score no better than `next` either, since nobody knows what is better.
 * @throws `RangeError` if a score is no finite number.
 */
export async function createMetricGate({ base, next, metric, maxLoss }: MetricGateOptions): Promise<Gate> {
  const score = async (model: Uint8Array<ArrayBuffer>): Promise<number> => {
    const value = await metric(model);
    if (Number.isFinite(value)) return value;
    throw new RangeError(`The metric of a model is ${value}; it has to be a finite number.`);
  };
  const before = base && (await score(base));
  const after = await score(next);
  const gain = after - (before ?? 0);
  return {
    judge: async (model) => {
      const value = await score(model);
      const share = gain === 0 ? Math.abs(value - after) && Number.POSITIVE_INFINITY : (after - value) / gain;
      const lost =
        before === undefined
          ? { name: 'share by which it changes', value: Math.abs(share) }
          : { name: 'share of the gain that is lost', value: share };
      return verdictOf([
        ...(before === undefined ? [] : [{ name: 'metric of the base', value: before }]),
        { name: 'metric of the new model', value: after },
        { name: 'metric', value },
        { ...lost, limit: { atMost: maxLoss } },
      ]);
    },
  };
}

/** How far answers may be from those of the model that was trained. */
export interface AnswerLimits {
  /**
   * Least share of rows whose largest element is in the same place. Absent: it is only told, unless a model gives nothing
   * but labels, of which 99 % have to be the same.
   */
  readonly minAgreement?: number;
  /** Largest mean Kullback-Leibler divergence of rows, nats. */
  readonly maxDivergence: number;
  /** Least signal-to-noise ratio, dB, of outputs whose divergence says little: see {@link openAnswerGate}. */
  readonly minSqnrDb: number;
}

/** What {@link openAnswerGate} works with. */
export interface AnswerGateOptions {
  readonly runtime: OptimizeRuntime;
  readonly next: Uint8Array<ArrayBuffer>;
  /** Inputs, held in memory. */
  readonly samples: readonly TensorMap[];
  readonly limits: AnswerLimits;
}

/**
 * Judges by how the answers differ from those of the model that was trained, on a calibration set: each output of
 * float32 or float16 by its divergence, if its rows are classes, whose signal-to-noise ratio counts as well. Others are
 * judged by that ratio alone: those of a single column, of other floats, and those whose rows are nearly even as
 * distributions, as vectors of unit length are, so that any two of them diverge little.
 * @throws {@link ModelError} or {@link BackendError} if the model does not load or run; `RangeError` without samples.
 */
export async function openAnswerGate({ runtime, next, samples, limits }: AnswerGateOptions): Promise<Gate> {
  if (samples.length === 0)
    throw new RangeError('There are no samples to compare answers on; give at least one.');
  const answers = async (
    model: Uint8Array<ArrayBuffer>,
    take: (outputs: TensorMap) => void,
  ): Promise<void> => {
    const session: RuntimeSession = await runtime.open(model);
    try {
      for (const sample of samples) take(await session.run(sample));
    } finally {
      await session.release();
    }
  };
  const expected: TensorMap[] = [];
  await answers(next, (outputs) => expected.push(outputs));
  return {
    judge: async (model) => {
      const comparer = createComparer();
      const divergences = new Map<string, Divergence>();
      let at = 0;
      await answers(model, (outputs) => {
        const right = expected[at++] ?? {};
        comparer.add(right, outputs);
        for (const [name, tensor] of Object.entries(right)) {
          const divergence = divergences.get(name) ?? createDivergence();
          divergences.set(name, divergence);
          divergence.add(tensor, outputs[name]);
        }
      });
      const { agreement, outputs, findings } = comparer.result();
      const { minAgreement, maxDivergence, minSqnrDb } = limits;
      const means = [...divergences.values()].flatMap(({ mean }) => mean ?? []);
      const hasClasses = ({ name }: OutputComparison): boolean =>
        (divergences.get(name)?.content ?? 0) >= leastContent * maxDivergence;
      const floats = outputs.filter((output) => output.sqnrDb !== undefined);
      const leastAgreement = minAgreement ?? (floats.length === 0 ? leastSameLabels : undefined);
      const { isGood, figures } = verdictOf([
        ...(agreement === undefined
          ? []
          : [
              {
                name: 'decisions that are the same',
                value: agreement,
                ...(leastAgreement !== undefined && { limit: { atLeast: leastAgreement } }),
              },
            ]),
        ...(means.length === 0
          ? []
          : [{ name: 'divergence (KL), nats', value: Math.max(...means), limit: { atMost: maxDivergence } }]),
        ...noiseOf(floats.filter(hasClasses), Math.min(leastClassSqnrDb, minSqnrDb)),
        ...noiseOf(
          floats.filter((output) => !hasClasses(output)),
          minSqnrDb,
        ),
      ]);
      return { isGood: isGood && findings.length === 0, figures };
    },
  };
}

/** The noisiest of some outputs. */
function noiseOf(outputs: readonly OutputComparison[], atLeast: number): readonly Figure[] {
  if (outputs.length === 0) return [];
  const value = Math.min(...outputs.map(({ sqnrDb = Number.NEGATIVE_INFINITY }) => sqnrDb));
  return [{ name: 'signal to noise, dB', value, limit: { atLeast } }];
}

/** A sum of {@link createDivergence}. `undefined`: there were no rows of float32 or float16 of two columns or more. */
export interface Divergence {
  add(expected: Tensor, actual: Tensor | undefined): void;
  readonly mean: number | undefined;
  /** Mean divergence of the expected rows from rows that are even, nats: what they tell at most. */
  readonly content: number | undefined;
}

/**
 * Mean Kullback-Leibler divergence of rows along the last axis, D(expected ‖ actual) in nats (Kullback and Leibler 1951).
 * Rows that are distributions already are taken as they are, others as logits.
 */
export function createDivergence(): Divergence {
  let rows = 0;
  let sum = 0;
  let content = 0;
  return {
    add: (expected, actual) => {
      const width = expected.shape.at(-1) ?? 1;
      const [right, given] = [floatsOf(expected), actual && floatsOf(actual)];
      if (right === undefined || width < 2) return;
      if (given?.length !== right.length) {
        rows += 1;
        sum = Number.POSITIVE_INFINITY;
        return;
      }
      for (let at = 0; at < right.length; at += width) {
        rows += 1;
        const row = right.subarray(at, at + width);
        sum += divergenceOf(row, given.subarray(at, at + width));
        content += divergenceOf(row, new Float32Array(width).fill(1 / width));
      }
    },
    get mean() {
      return rows === 0 ? undefined : sum / rows;
    },
    get content() {
      return rows === 0 ? undefined : content / rows;
    },
  };
}

/** @returns `undefined` for what is neither float32 nor float16. */
function floatsOf({ dtype, data }: Tensor): Float32Array | undefined {
  if (dtype === 'float16') return fromFloat16Array(data as Uint16Array);
  return data instanceof Float32Array && dtype === 'float32' ? data : undefined;
}

function divergenceOf(right: Float32Array, given: Float32Array): number {
  const isSure = isDistribution(right);
  const [p, q] = [logsOf(right, isSure), logsOf(given, isSure)];
  let sum = 0;
  for (let i = 0; i < p.length; i += 1) {
    const [a, b] = [p[i] as number, q[i] as number];
    if (a > Number.NEGATIVE_INFINITY || Number.isNaN(a)) sum += Math.exp(a) * (a - b);
  }
  return Math.max(0, sum);
}

function isDistribution(row: Float32Array): boolean {
  let sum = 0;
  for (const value of row) {
    if (!(value >= 0)) return false;
    sum += value;
  }
  return Math.abs(sum - 1) < 1e-3;
}

/** Logarithms of probabilities; a tiny one stands for those that a float32 has no number for. */
function logsOf(row: Float32Array, isSure: boolean): Float64Array {
  if (isSure) return Float64Array.from(row, (value) => Math.log(Math.max(value, 1e-30)));
  let largest = Number.NEGATIVE_INFINITY;
  for (const value of row) if (value > largest) largest = value;
  let sum = 0;
  for (const value of row) sum += Math.exp(value - largest);
  return Float64Array.from(row, (value) => value - largest - Math.log(sum));
}
