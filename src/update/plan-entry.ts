/** A release as plans name it. */

import { isFields, isSize } from '../trust/parse.ts';

/** A release that a plan names. It counts only if path, hash and length equal the entry in `targets`. */
export interface PlanEntry {
  /** Target path, `models/<model>/<seq>/<file>`. */
  readonly path: string;
  /** Lower-case hex. */
  readonly sha256: string;
  /** Bytes. */
  readonly length: number;
  readonly seq: number;
  readonly version: string;
}

/** Reads a release out of a plan, without fields that are not known. @returns `undefined` if it is malformed. */
export function readEntry(value: unknown): PlanEntry | undefined {
  if (!isFields(value)) return undefined;
  const { path, sha256, length, seq, version } = value;
  const isNamed = typeof path === 'string' && typeof version === 'string';
  if (!isNamed || typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256)) return undefined;
  return isSize(length) && isSize(seq) ? { path, sha256, length, seq, version } : undefined;
}
