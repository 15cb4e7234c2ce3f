/** Reads reference profiles that come with releases. */

import { fromUtf8, toHex } from '../core/bytes.ts';
import { ModelError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import {
  amount,
  formOf,
  integer,
  list,
  oneOf,
  problemOf,
  record,
  text,
  tuple,
  type Check,
  type Form,
} from './form.ts';
import {
  CALIBRATION_BINS,
  FEATURE_NAME,
  MAX_BINS,
  MAX_FEATURES,
  MAX_PROFILE_BYTES,
  type Feature,
  type Profile,
} from './profile.ts';

/**
 * Reads a reference profile.
 * @param bytes - JSON in UTF-8, {@link MAX_PROFILE_BYTES} at most.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` for anything else than a profile, unknown keys included.
 */
export function readProfile(bytes: Uint8Array): Profile {
  if (bytes.length > MAX_PROFILE_BYTES) throw invalid(`it has ${bytes.length} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(fromUtf8(bytes));
  } catch (cause) {
    throw invalid('it is no JSON', cause);
  }
  const problem = problemOf(value, profileForm, 'profile') ?? linkProblem(value as Profile);
  if (problem !== undefined) throw invalid(problem);
  return value as Profile;
}

/** Names a profile in reports: the first 8 bytes of the SHA-256 of its file, hex. */
export function profileHash(bytes: Uint8Array, platform: Pick<Platform, 'createSha256'>): string {
  const hash = platform.createSha256();
  hash.update(bytes);
  return toHex(hash.digest().subarray(0, 8));
}

function invalid(problem: string, cause?: unknown): ModelError {
  return new ModelError(
    'ERR_INLAY_MODEL_INVALID',
    `The reference profile is not valid: ${problem}; publish the release with one that Inlay has made.`,
    cause === undefined ? {} : { cause },
  );
}

/** Prediction and confidence name outputs that can be such. */
function linkProblem({ outputs, prediction, confidence }: Profile): string | undefined {
  const typeOf = (name: string): string | undefined =>
    Object.hasOwn(outputs, name) ? outputs[name]?.type : undefined;
  if (prediction !== undefined && typeOf(prediction) !== 'category') return 'profile.prediction';
  if (confidence !== undefined && typeOf(confidence) !== 'number') return 'profile.confidence';
  return undefined;
}

const name = text(/^[^]{1,256}$/);
const count = integer(0, Number.MAX_SAFE_INTEGER);
const real = amount(-Number.MAX_VALUE, Number.MAX_VALUE);
const counts = list(3, MAX_BINS + 2, count);
const reading = oneOf('elements', 'mean', 'std', 'size', 'argmax', 'max');

const numericForm: Form = /* @__PURE__ */ formOf(
  {
    type: oneOf('number'),
    tensor: name,
    reading,
    edges: (value) => list(2, MAX_BINS + 1, real)(value) && ascends(value as readonly number[]),
    counts,
  },
  { mean: real, std: amount(0, Number.MAX_VALUE), title: name },
);
const categoryForm: Form = /* @__PURE__ */ formOf(
  {
    type: oneOf('category'),
    tensor: name,
    reading,
    values: (value) =>
      list(1, MAX_BINS, text(/^[^]{0,256}$/))(value) &&
      new Set(value as readonly string[]).size === (value as readonly string[]).length,
    counts,
  },
  { title: name },
);

const feature: Check = (value) => {
  const isNumeric = problemOf(value, numericForm, '') === undefined;
  if (!isNumeric && problemOf(value, categoryForm, '') !== undefined) return false;
  const read = value as Feature;
  const bins = read.type === 'number' ? read.edges.length - 1 : read.values.length;
  return read.counts.length === bins + 2;
};

function ascends(edges: readonly number[]): boolean {
  return edges.every((edge, i) => i === 0 || (edges[i - 1] as number) < edge);
}

const features: Check = record(MAX_FEATURES, FEATURE_NAME, feature);
const profileForm: Form = /* @__PURE__ */ formOf(
  { v: oneOf(1), inputs: features, outputs: features },
  {
    prediction: text(FEATURE_NAME),
    confidence: text(FEATURE_NAME),
    calibration: list(CALIBRATION_BINS, CALIBRATION_BINS, tuple(count, count, amount(0, Number.MAX_VALUE))),
    accuracy: amount(0, 1),
  },
);
