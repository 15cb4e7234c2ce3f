/** Counts calls into the bins of a reference profile. */

import type { TensorMap } from '../core/backend.ts';
import { readFeature, readFirst, type FeatureValue } from './feature-reading.ts';
import { slotsOf, type Slots } from './feature-slots.ts';
import type { Feature, Profile } from './profile.ts';
import { respond } from './response.ts';

/** Vectors by name of the feature. */
export type FeatureCounts = Readonly<Record<string, readonly number[]>>;

/** What was counted of the features of some calls. */
export interface ProfileCounts {
  /** Counts a call: its outputs exactly, its inputs through the noise, if there is any. */
  count(feeds: TensorMap, outputs: TensorMap, noise?: Noise): void;
  /** Copies of the vectors; a kind without features is absent. */
  snapshot(): { readonly p?: FeatureCounts; readonly x?: FeatureCounts };
}

/** Randomised response; see `response.ts`. */
export interface Noise {
  readonly epsilon: number;
  readonly random: () => number;
}

/** What a call's answer says, for labels that come later. */
export interface Prediction {
  /** The predicted class, and its slot. */
  readonly value: FeatureValue;
  readonly slot: number;
  readonly confidence: number | undefined;
}

/** Counts by one profile. */
export interface Counter {
  /** Begins to count from zero. */
  open(): ProfileCounts;
  /** The class that the outputs say, of the first row; `undefined` where the profile does not name one. */
  predictionOf(outputs: TensorMap): Prediction | undefined;
  /** Slot of a label: a class index or a value of the profile; `undefined` where the profile does not name classes. */
  slotOfLabel(label: FeatureValue): number | undefined;
}

/** Creates a counter. A call costs some microseconds, and less than 50 µs however large its tensors are. */
export function createCounter(profile: Profile): Counter {
  const inputs = countedOf(profile.inputs);
  const outputs = countedOf(profile.outputs);
  const named = (name: string | undefined): Counted | undefined =>
    outputs.find((counted) => counted.name === name);
  const prediction = named(profile.prediction);
  const confidence = named(profile.confidence);

  return {
    open: () => {
      const x = inputs.map(tallyOf);
      const p = outputs.map(tallyOf);
      return {
        count: (feeds, answers, noise) => {
          for (const tally of x) {
            if (noise === undefined) tally.count(feeds);
            else tally.countOne(feeds, noise);
          }
          for (const tally of p) tally.count(answers);
        },
        snapshot: () => ({
          ...(p.length > 0 && { p: vectorsOf(p) }),
          ...(x.length > 0 && { x: vectorsOf(x) }),
        }),
      };
    },
    predictionOf: (answers) => {
      if (prediction === undefined) return undefined;
      const value = firstOf(prediction, answers);
      const sure = confidence && firstOf(confidence, answers);
      return {
        value,
        slot: prediction.slots.slotOf(value),
        confidence: typeof sure === 'number' && !Number.isNaN(sure) ? sure : undefined,
      };
    },
    slotOfLabel: (label) => prediction?.slots.slotOf(label),
  };
}

interface Counted {
  readonly name: string;
  readonly feature: Feature;
  readonly slots: Slots;
}

function countedOf(features: Readonly<Record<string, Feature>>): readonly Counted[] {
  return Object.entries(features).map(([name, feature]) => ({ name, feature, slots: slotsOf(feature) }));
}

interface Tally {
  readonly name: string;
  readonly counts: readonly number[];
  count(tensors: TensorMap): void;
  /** Counts one value of the call, chosen at random, through the noise. */
  countOne(tensors: TensorMap, noise: Noise): void;
}

function tallyOf({ name, feature: { tensor, reading }, slots }: Counted): Tally {
  const counts = Array.from({ length: slots.length }, () => 0);
  const add = (slot: number): void => {
    counts[slot] = (counts[slot] as number) + 1;
  };
  const visit = (value: FeatureValue): void => {
    add(slots.slotOf(value));
  };
  return {
    name,
    counts,
    count: (tensors) => {
      readFeature(reading, tensors[tensor], visit);
    },
    countOne: (tensors, { epsilon, random }) => {
      let chosen: FeatureValue = Number.NaN;
      let seen = 0;
      readFeature(reading, tensors[tensor], (value) => {
        seen += 1;
        if (seen === 1 || random() * seen < 1) chosen = value;
      });
      add(respond(slots.slotOf(chosen), slots.length, epsilon, random));
    },
  };
}

function vectorsOf(tallies: readonly Tally[]): FeatureCounts {
  return Object.fromEntries(tallies.map(({ name, counts }) => [name, counts.slice()]));
}

function firstOf({ feature: { tensor, reading } }: Counted, tensors: TensorMap): FeatureValue {
  return readFirst(reading, tensors[tensor]);
}
