/** Values of the flags of `inlay publish`. */

import { InvalidArgumentError } from 'commander';
import type { GoldenTolerance } from '../update/manifest.ts';
import { isDataPath } from './data/open-file.ts';

/** A variant and its file, as `--variant` names them. */
export interface VariantFlag {
  readonly variant: string;
  readonly file: string;
}

/** Parses one of several variants. */
export function parseVariant(text: string, before: readonly VariantFlag[]): readonly VariantFlag[] {
  const [, variant, file] = /^([a-z0-9][a-z0-9._-]{0,31})=(.+)$/.exec(text) ?? [];
  if (variant !== undefined && file !== undefined) return [...before, { variant, file }];
  throw new InvalidArgumentError('It is written like int8=digits-int8.onnx.');
}

/** Parses how far answers may lie from the expected ones. */
export function parseTolerance(text: string): GoldenTolerance {
  const [absolute, relative, ...rest] = text
    .split(',')
    .map((part) => (/^\d+(\.\d+)?(e-?\d+)?$/i.test(part) ? Number(part) : Number.NaN));
  if (rest.length === 0 && isTolerance(absolute) && isTolerance(relative))
    return { absoluteE6: Math.round(1e6 * absolute), relativeE6: Math.round(1e6 * relative) };
  throw new InvalidArgumentError('It is two numbers of at least 0, such as 0.0001,0.001.');
}

function isTolerance(value: number | undefined): value is number {
  return value !== undefined && value >= 0 && value <= 1e6;
}

/** Parses a path of examples. */
export function parseReference(text: string): string {
  if (isDataPath(text)) return text;
  throw new InvalidArgumentError('Its extension is .npz, .npy, .jsonl, .ndjson or .csv.');
}

/** Parses a time. */
export function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && seconds > 0 && seconds <= 86_400) return seconds;
  throw new InvalidArgumentError('It is a number above 0 and up to 86400.');
}

/** Parses a version of Inlay. */
export function parseSdk(text: string): string {
  if (/^\d{1,9}\.\d{1,9}\.\d{1,9}$/.test(text)) return text;
  throw new InvalidArgumentError('It is three numbers, such as 0.2.0.');
}

/** Parses an SPDX expression. */
export function parseLicence(text: string): string {
  if (/^[A-Za-z0-9.+()-][A-Za-z0-9.+() :-]{0,199}$/.test(text)) return text;
  throw new InvalidArgumentError('It is an SPDX expression, such as Apache-2.0.');
}

/** Parses what is told of a release. */
export function parseNotes(text: string): string {
  if (text.length <= 10_000 && !/[\ud800-\udfff]/u.test(text)) return text;
  throw new InvalidArgumentError('It is well-formed text of at most 10,000 characters.');
}
