/**
 * The reference profile of a version: how its inputs and outputs were distributed when it was made, in fixed bins. Devices
 * count into the same bins, so that fleets, cohorts and versions are sums. It travels with the release as `profile.json`.
 */

/** Bins of one number: `edges[i] < x ≤ edges[i + 1]`; below the first and above the last count as out of range. */
export interface NumericFeature {
  readonly type: 'number';
  /** Ascending; two at least, 65 at most. Deciles of the reference, say. */
  readonly edges: readonly number[];
  /** Reference counts: one per bin, then null (NaN), then out of range. */
  readonly counts: readonly number[];
  readonly mean?: number;
  readonly std?: number;
}

/** Bins of a category: one for each of the most frequent ones; the others count as out of range. */
export interface CategoryFeature {
  readonly type: 'category';
  /** Names, or class indexes as text; 64 at most. */
  readonly values: readonly string[];
  /** Reference counts: one per value, then null, then others. */
  readonly counts: readonly number[];
}

/** How a feature is read off a tensor. */
export type FeatureReading =
  /** Every element, or at most `most` of them, counts. */
  | 'elements'
  /** One number per call. */
  | 'mean'
  | 'std'
  | 'size'
  /** Index of the largest element of the last axis, for class scores. */
  | 'argmax'
  /** Largest element of the last axis: the confidence. */
  | 'max';

/** Something that is counted at every call. */
export type Feature = (NumericFeature | CategoryFeature) & {
  /** Name of the tensor; inputs and outputs have names of their own. */
  readonly tensor: string;
  readonly reading: FeatureReading;
  /** Title for people. */
  readonly title?: string;
};

/** What a version was made with. */
export interface Profile {
  readonly v: 1;
  /** Inputs, by a name of 1 to 64 characters of `A-Z a-z 0-9 _ . -`; 64 at most. */
  readonly inputs: Readonly<Record<string, Feature>>;
  /** Outputs, named so as well. */
  readonly outputs: Readonly<Record<string, Feature>>;
  /** Names of the two outputs above that say the class and how sure the model is, for labels that come later. */
  readonly prediction?: string;
  readonly confidence?: string;
  /** Calibration on the reference: 20 bins of confidence, `[n, correct, Σ confidence]`. */
  readonly calibration?: readonly (readonly [number, number, number])[];
  /** Share of correct answers on the reference, in [0, 1]. */
  readonly accuracy?: number;
}

/** Longest profile, bytes. */
export const MAX_PROFILE_BYTES: number = 2 ** 19;
/** Most features of a kind, most bins of one without the two for null and out of range, and bins of the calibration. */
export const MAX_FEATURES = 64;
export const MAX_BINS = 64;
export const CALIBRATION_BINS = 20;
/** Form of the names of features. */
export const FEATURE_NAME: RegExp = /^[\w.-]{1,64}$/;
