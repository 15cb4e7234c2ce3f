/** Makes the reference profile of a version from calls on reference data. */

import type { TensorMap } from '../core/backend.ts';
import { DTYPES } from '../core/dtype.ts';
import type { Tensor } from '../core/tensor.ts';
import { calibrate, openCalibration } from './calibration.ts';
import { readFeature, readFirst, type FeatureValue } from './feature-reading.ts';
import { slotsOf } from './feature-slots.ts';
import {
  MAX_BINS,
  MAX_FEATURES,
  type CategoryFeature,
  type Feature,
  type FeatureReading,
  type NumericFeature,
  type Profile,
} from './profile.ts';

/** What is to be counted: where it is read, and whether it is a number or a category. */
export interface FeatureChoice {
  readonly type: Feature['type'];
  readonly tensor: string;
  readonly reading: FeatureReading;
  readonly title?: string;
}

/** What a profile is to hold. */
export interface ProfileChoice {
  readonly inputs: Readonly<Record<string, FeatureChoice>>;
  readonly outputs: Readonly<Record<string, FeatureChoice>>;
  /** Outputs above that say the class and how sure the model is. */
  readonly prediction?: string;
  readonly confidence?: string;
}

/** Builds a profile. */
export interface ProfileBuilder {
  /** Takes in a call of one example. @param label - its right class, where that is known. */
  add(feeds: TensorMap, outputs: TensorMap, label?: FeatureValue): void;
  /**
   * The profile of all calls so far. The same calls in the same order give the same profile.
   * @throws `RangeError` before the first call.
   */
  build(): Profile;
}

/**
 * Chooses features by the tensors of one call: mean and spread of numbers, the values of small tensors and of flags, and for
 * scores in the last axis of an output the best class and its score.
 */
export function chooseFeatures(feeds: TensorMap, outputs: TensorMap): ProfileChoice {
  const inputs = chosenOf(feeds, (name, tensor) => plainChoices(name, tensor));
  const answers = chosenOf(outputs, (name, tensor) =>
    isScores(tensor)
      ? [
          [`${name}.class`, { type: 'category', tensor: name, reading: 'argmax' }],
          [`${name}.confidence`, { type: 'number', tensor: name, reading: 'max' }],
        ]
      : plainChoices(name, tensor),
  );
  const prediction = Object.keys(answers).find((name) => answers[name]?.reading === 'argmax');
  const scores = prediction === undefined ? undefined : answers[prediction]?.tensor;
  const confidence = Object.keys(answers).find(
    (name) => answers[name]?.tensor === scores && answers[name]?.reading === 'max',
  );
  return {
    inputs,
    outputs: answers,
    ...(prediction !== undefined && { prediction }),
    ...(confidence !== undefined && { confidence }),
  };
}

type Choices = readonly (readonly [name: string, choice: FeatureChoice])[];

function chosenOf(
  tensors: TensorMap,
  choose: (name: string, tensor: Tensor) => Choices,
): Readonly<Record<string, FeatureChoice>> {
  const all = Object.entries(tensors).flatMap(([tensor, value]) => choose(tensor, value));
  // Tensors have any names; features have those that reports may hold.
  const named = all.map(([name, choice]) => [name.replace(/[^\w.-]/g, '_').slice(-64), choice] as const);
  return Object.fromEntries(named.filter(([name]) => !(name in Object.prototype)).slice(0, MAX_FEATURES));
}

/** Elements up to which each of them counts. */
const FEW = 8;

function plainChoices(tensor: string, { dtype, size }: Tensor): Choices {
  const { kind } = DTYPES[dtype];
  // The most frequent texts would be published; whoever wants that has to say so.
  if (kind === 'string' || kind === 'complex') return [];
  if (kind === 'bool') return [[tensor, { type: 'category', tensor, reading: 'elements' }]];
  if (size <= FEW) return [[tensor, { type: 'number', tensor, reading: 'elements' }]];
  return [
    [`${tensor}.mean`, { type: 'number', tensor, reading: 'mean' }],
    [`${tensor}.std`, { type: 'number', tensor, reading: 'std' }],
  ];
}

function isScores({ dtype, shape }: Tensor): boolean {
  const width = shape.at(-1) ?? 1;
  return DTYPES[dtype].kind === 'float' && shape.length > 0 && width > 1 && width <= 1000;
}

/**
 * Creates a builder for what was chosen.
 * @param outputBins - outputs of another version: those of the same name, type and reading are counted in the bins of theirs, so
 * that the two can be compared.
 */
export function createProfileBuilder(
  choice: ProfileChoice,
  outputBins: Profile['outputs'] = {},
): ProfileBuilder {
  const inputs = Object.entries(choice.inputs).map(([name, chosen]) => samplerOf(name, chosen));
  const outputs = Object.entries(choice.outputs).map(([name, chosen]) =>
    samplerOf(name, chosen, Object.hasOwn(outputBins, name) ? outputBins[name] : undefined),
  );
  const prediction = outputs.find(({ name }) => name === choice.prediction);
  const confidence = outputs.find(({ name }) => name === choice.confidence);
  const calibration = openCalibration();
  const labelled = { n: 0, right: 0 };
  let calls = 0;

  return {
    add: (feeds, answers, label) => {
      calls += 1;
      for (const sampler of inputs) sampler.add(feeds);
      for (const sampler of outputs) sampler.add(answers);
      if (label === undefined || prediction === undefined) return;
      const isRight = String(prediction.firstOf(answers)) === String(label);
      labelled.n += 1;
      labelled.right += isRight ? 1 : 0;
      const sure = confidence?.firstOf(answers);
      if (typeof sure !== 'number' || Number.isNaN(sure)) return;
      calibrate(calibration, sure, isRight);
    },
    build: () => {
      if (calls === 0) throw new RangeError('A profile needs reference data; add one call at least.');
      return {
        v: 1,
        inputs: Object.fromEntries(inputs.map(({ name, build }) => [name, build()])),
        outputs: Object.fromEntries(outputs.map(({ name, build }) => [name, build()])),
        ...(choice.prediction !== undefined && { prediction: choice.prediction }),
        ...(choice.confidence !== undefined && { confidence: choice.confidence }),
        ...(labelled.n > 0 && { accuracy: labelled.right / labelled.n }),
        ...(calibration.some(([n]) => n > 0) && { calibration }),
      };
    },
  };
}

interface Sampler {
  readonly name: string;
  add(tensors: TensorMap): void;
  firstOf(tensors: TensorMap): FeatureValue;
  build(): Feature;
}

/** Values that are kept of one feature; beyond, every second, fourth … one is. */
const MOST_KEPT = 2 ** 17;

function samplerOf(name: string, choice: FeatureChoice, given?: Feature): Sampler {
  const { tensor, reading, type, title } = choice;
  let kept: FeatureValue[] = [];
  let every = 1;
  let seen = 0;
  const keep = (value: FeatureValue): void => {
    if (seen % every === 0) kept.push(value);
    seen += 1;
    if (kept.length < MOST_KEPT) return;
    kept = kept.filter((_, i) => i % 2 === 0);
    every *= 2;
  };
  return {
    name,
    add: (tensors) => {
      readFeature(reading, tensors[tensor], keep);
    },
    firstOf: (tensors) => readFirst(reading, tensors[tensor]),
    build: () => {
      const own = type === 'number' ? numericOf(kept) : categoryOf(kept);
      const bins = given?.reading === reading ? inBinsOf(given, own) : own;
      const slots = slotsOf({ ...bins, counts: [] });
      const counts = Array.from({ length: slots.length }, () => 0);
      for (const value of kept) {
        const slot = slots.slotOf(value);
        counts[slot] = (counts[slot] as number) + 1;
      }
      return { ...bins, counts, tensor, reading, ...(title !== undefined && { title }) };
    },
  };
}

type Bins = Omit<NumericFeature, 'counts'> | Omit<CategoryFeature, 'counts'>;

/** Takes over bins, if they are of the same type; mean and spread are still those of the values. */
function inBinsOf(given: Bins, own: Bins): Bins {
  if (given.type === 'number' && own.type === 'number') return { ...own, edges: given.edges };
  return given.type === 'category' && own.type === 'category' ? { ...own, values: given.values } : own;
}

/**
 * Bins of equal mass: deciles as edges, each once. The outer ones reach further by their own width, so that out of range is
 * what is far from all references, and not just beyond the last of them.
 */
function numericOf(kept: readonly FeatureValue[]): Omit<NumericFeature, 'counts'> {
  const values = kept.filter((value) => Number.isFinite(value)) as number[];
  values.sort((a, b) => a - b);
  const n = values.length;
  if (n === 0) return { type: 'number', edges: [0, 1] };
  const [lowest = 0, highest = 0] = [values[0], values[n - 1]];
  const spare = Math.max((highest - lowest) / 10, Math.abs(highest) / 1000, 1e-9);
  const deciles = Array.from({ length: 9 }, (_, i) => values[Math.ceil(((i + 1) * n) / 10) - 1] as number);
  const inner = [...new Set(deciles)];
  const [first = lowest, last = highest] = [inner[0], inner.at(-1)];
  const edges = [lowest - (first > lowest ? first - lowest : spare), ...inner];
  if (highest > last) edges.push(highest + (highest - last));
  const mean = values.reduce((sum, value) => sum + value / n, 0);
  const std = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2 / n, 0));
  return { type: 'number', edges, mean, std };
}

/** The most frequent values, and of equally frequent ones the first in the order of text. */
function categoryOf(kept: readonly FeatureValue[]): Omit<CategoryFeature, 'counts'> {
  const counts = new Map<string, number>();
  for (const value of kept) {
    if (!Number.isNaN(value)) counts.set(String(value), (counts.get(String(value)) ?? 0) + 1);
  }
  const frequent = [...counts].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1)).slice(0, MAX_BINS);
  const values = frequent.map(([value]) => value.slice(0, 256));
  const areIndexes = values.every((value) => /^\d+$/.test(value));
  if (areIndexes) values.sort((a, b) => Number(a) - Number(b));
  return { type: 'category', values: values.length > 0 ? [...new Set(values)] : ['0'] };
}
