/**
 * The further arms of a plan: releases beside the candidate that buckets below the share run. Which bucket is in which
 * arm stands in the plan as ranges, so that every device and every tool gives the same answer.
 */

import { isFields, isSize } from '../trust/parse.ts';
import { readEntry, type PlanEntry } from './plan-entry.ts';
import { buckets } from './unit.ts';

/** Buckets from the first number up to, and without, the second. */
export type BucketRange = readonly [from: number, to: number];

/** A further arm. Buckets below the share that are in no range of any arm run the candidate, the arm {@link CANDIDATE_ARM}. */
export interface PlanArm {
  /** 1 to 32 of `a-z 0-9 -`, beginning with a letter or digit; neither `t` nor `c`. */
  readonly name: string;
  readonly entry: PlanEntry;
  /** Ascending, disjoint within the plan, below its share; 64 at most. */
  readonly ranges: readonly BucketRange[];
}

/** Name of the candidate's arm in telemetry. */
export const CANDIDATE_ARM = 't';
/** Name in telemetry of the devices that are measured on the base. */
export const CONTROL_ARM = 'c';
/** Most further arms of a plan. */
export const MOST_ARMS = 8;
/** Most ranges of one arm: a plan is a part of what every device polls. */
export const MOST_RANGES = 64;

/**
 * Reads the arms of a plan.
 * @param bp - share of the plan, above which there is no arm.
 * @returns `undefined` if one is malformed, two have one name, or a bucket is in two of them.
 */
export function readArms(value: unknown, bp: number): readonly PlanArm[] | undefined {
  if (!Array.isArray(value) || value.length > MOST_ARMS) return undefined;
  const arms: PlanArm[] = [];
  for (const item of value as readonly unknown[]) {
    const arm = readArm(item, bp);
    if (arm === undefined || arms.some(({ name }) => name === arm.name)) return undefined;
    arms.push(arm);
  }
  const ranges = arms.flatMap((arm) => arm.ranges).sort(([a], [b]) => a - b);
  return areAscending(ranges) ? arms : undefined;
}

/** Tells whether a text can name a further arm. */
export function isArmName(name: string): boolean {
  return /^[a-z0-9][a-z0-9-]{0,31}$/.test(name) && name !== CANDIDATE_ARM && name !== CONTROL_ARM;
}

/** Finds the further arm of a bucket below the share; `undefined` for the candidate's. */
export function armAt(arms: readonly PlanArm[], bucket: number): PlanArm | undefined {
  return arms.find(({ ranges }) => ranges.some(([from, to]) => bucket >= from && bucket < to));
}

/** Gives the release of an arm. @param name - `undefined`, or one that there is not: that of the candidate. */
export function entryOf(
  { cand, arms }: { readonly cand: PlanEntry; readonly arms: readonly PlanArm[] },
  name: string | undefined,
): PlanEntry {
  return arms.find((arm) => arm.name === name)?.entry ?? cand;
}

/**
 * Finds the first bucket that is in another arm than before.
 * @param bp - buckets below it are compared.
 */
export function firstMoved(
  before: readonly PlanArm[],
  after: readonly PlanArm[],
  bp: number,
): number | undefined {
  const old = namesByBucket(before);
  const next = namesByBucket(after);
  for (let bucket = 0; bucket < bp; bucket += 1) if (old[bucket] !== next[bucket]) return bucket;
  return undefined;
}

function namesByBucket(arms: readonly PlanArm[]): readonly string[] {
  const names = Array.from({ length: buckets }, () => CANDIDATE_ARM);
  for (const { name, ranges } of arms) for (const [from, to] of ranges) names.fill(name, from, to);
  return names;
}

function readArm(value: unknown, bp: number): PlanArm | undefined {
  if (!isFields(value)) return undefined;
  const { name, ranges } = value;
  const entry = readEntry(value['entry']);
  if (typeof name !== 'string' || !isArmName(name) || entry === undefined) return undefined;
  if (!Array.isArray(ranges) || ranges.length > MOST_RANGES || !ranges.every(isRange)) return undefined;
  const last = ranges.at(-1)?.[1] ?? 0;
  return areAscending(ranges) && last <= bp ? { name, entry, ranges } : undefined;
}

function isRange(value: unknown): value is BucketRange {
  if (!Array.isArray(value) || value.length !== 2) return false;
  const [from, to] = value as readonly unknown[];
  return isSize(from) && isSize(to) && from < to;
}

function areAscending(ranges: readonly BucketRange[]): boolean {
  return ranges.every(([from], at) => from >= (ranges[at - 1]?.[1] ?? 0));
}
