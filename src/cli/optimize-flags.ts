/** Values of flags that the commands around models have in common. */

import { extname } from 'node:path';
import { InvalidArgumentError } from 'commander';

/**
 * Reads a name of a node, or a pattern between slashes.
 * @throws `RangeError` for a pattern that is none.
 */
export function toPattern(name: string): string | RegExp {
  const [, source] = /^\/(.+)\/$/.exec(name) ?? [];
  if (source === undefined) return name;
  try {
    return new RegExp(source);
  } catch {
    throw new RangeError(`--exclude takes names or /patterns/; ${name} is no pattern.`);
  }
}

/** Parses a number. */
export function parseNumber(text: string): number {
  if (/^-?\d+(\.\d+)?$/.test(text)) return Number(text);
  throw new InvalidArgumentError('It is a number.');
}

/** Parses a number in [0, 1]. */
export function parseRatio(text: string): number {
  const ratio = Number(text);
  if (/^(\d+(\.\d+)?|\.\d+)$/.test(text) && ratio <= 1) return ratio;
  throw new InvalidArgumentError('It is a number from 0 to 1.');
}

/** Parses a number of rows, threads or runs. */
export function parseCount(text: string): number {
  const count = Number(text);
  if (/^\d+$/.test(text) && count >= 1 && count <= 100_000) return count;
  throw new InvalidArgumentError('It is a whole number from 1 to 100000.');
}

/** Parses the path of a JSON file. */
export function parseJsonPath(text: string): string {
  if (extname(text).toLowerCase() === '.json') return text;
  throw new InvalidArgumentError('Its extension is .json.');
}

/** Batches where none are given. */
export const defaultBatches: readonly number[] = [1];

/** Parses one of several numbers; the first that is given takes the place of {@link defaultBatches}. */
export function parseCounts(text: string, before: readonly number[]): readonly number[] {
  return [...(before === defaultBatches ? [] : before), parseCount(text)];
}
