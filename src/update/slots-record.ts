/** How the slots of one model are written down. What is damaged is found out as a whole and never half believed. */

import { fromUtf8, toUtf8 } from '../core/bytes.ts';
import type { Platform } from '../core/platform.ts';
import { sha256Hex } from '../trust/keys.ts';
import { isFields, isSize, type Fields } from '../trust/parse.ts';
import { rejectReasons, slotNames, type SlotsState } from './slot.ts';

/** The state of a model that nothing is known of. */
export const noSlots: SlotsState = { rejected: [], markers: [], strikes: {} };

/**
 * Names the record of one model: apps of several servers may share a store and use the same names of models.
 * @param owner - who keeps the slots: channel and server.
 */
export function slotsRecord(platform: Pick<Platform, 'createSha256'>, owner: string, model: string): string {
  return `slots-${model}-${sha256Hex(platform, toUtf8(owner)).slice(0, 16)}`;
}

/** Writes a state as the bytes of its record. */
export function encodeSlots(state: SlotsState): Uint8Array<ArrayBuffer> {
  return toUtf8(JSON.stringify({ v: 1, ...state }));
}

/** Reads a record; `undefined` unless it is whole and of a known form. */
export function decodeSlots(bytes: Uint8Array): SlotsState | undefined {
  try {
    const value: unknown = JSON.parse(fromUtf8(bytes));
    if (!isFields(value) || value['v'] !== 1) return undefined;
    const { v: _, ...state } = value;
    return isSlots(state) ? state : undefined;
  } catch {
    return undefined;
  }
}

type Check = (value: unknown) => boolean;

const text: Check = (value) => typeof value === 'string';
const flag: Check = (value) => typeof value === 'boolean';
const hash: Check = (value) => typeof value === 'string' && /^[0-9a-f]{64}$/.test(value);
const oneOf =
  (words: readonly string[]): Check =>
  (value) =>
    words.some((word) => word === value);
const maybe =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);
const list =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.every(check);
const table =
  (key: Check, check: Check): Check =>
  (value) =>
    isFields(value) && Object.entries(value).every(([name, item]) => key(name) && check(item));
const fields =
  (checks: Readonly<Record<string, Check>>): Check =>
  (value) =>
    isFields(value) && Object.entries(checks).every(([name, check]) => check(own(value, name)));

function own(value: Fields, name: string): unknown {
  return Object.hasOwn(value, name) ? value[name] : undefined;
}

const release = { path: text, sha256: hash, length: isSize, seq: isSize, version: text };
const slot = {
  release: fields(release),
  file: fields({ sha256: hash, length: isSize }),
  variant: maybe(text),
  proof: maybe(hash),
  golden: maybe(
    fields({
      path: text,
      sha256: hash,
      length: isSize,
      tolerance: fields({ absoluteE6: isSize, relativeE6: isSize }),
    }),
  ),
  profile: maybe(fields({ path: text, sha256: hash, length: isSize })),
  anchor: maybe(fields({ sha256: hash, length: isSize })),
};
const rules = fields({
  minInferences: isSize,
  soakS: isSize,
  strikes: isSize,
  loadTimeoutS: isSize,
  maxErrorBp: isSize,
  maxP95Percent: isSize,
  maxMemoryMiB: isSize,
  graceS: isSize,
});

const checkState: Check = fields({
  embedded: maybe(fields(slot)),
  committed: maybe(fields(slot)),
  previous: maybe(fields(slot)),
  trial: maybe(
    fields({
      ...slot,
      plan: text,
      rules,
      retryNonce: isSize,
      phase: oneOf(['staged', 'active']),
      since: maybe(isSize),
      inferences: isSize,
      errors: isSize,
    }),
  ),
  rejected: list(
    fields({
      sha256: hash,
      version: text,
      seq: isSize,
      reason: oneOf(rejectReasons),
      detail: text,
      at: isSize,
      count: isSize,
      until: (value) => value === null || isSize(value),
      retryNonce: isSize,
      sdk: text,
      app: maybe(text),
    }),
  ),
  markers: list(
    fields({
      id: text,
      run: text,
      sha256: hash,
      slot: oneOf(slotNames),
      phase: oneOf(['loading', 'running']),
      at: isSize,
      isSettled: maybe(flag),
    }),
  ),
  strikes: table(hash, isSize),
  plan: maybe(
    fields({
      id: text,
      bp: isSize,
      salt: text,
      cand: hash,
      isIn: flag,
      arm: maybe(fields({ name: text, sha256: hash })),
      retryNonce: maybe(isSize),
      verifiedAt: isSize,
    }),
  ),
  policy: maybe(fields({ floorSeq: maybe(isSize), revoked: maybe(list(isSize)) })),
});

function isSlots(value: unknown): value is SlotsState {
  return checkState(value);
}
