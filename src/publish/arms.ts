/** Shares of arms as ranges of buckets, and how they grow. */

import { ServerError } from '../core/errors.ts';
import { isArmName, MOST_ARMS, MOST_RANGES, type BucketRange, type PlanArm } from '../update/arms.ts';
import type { Plan, PlanEntry } from '../update/plan.ts';

/** A further arm, as a rollout is told of it. */
export interface ArmOption {
  readonly name: string;
  readonly entry: PlanEntry;
  /** Share of the devices that the rollout has and wins, basis points of these. The candidate gets what is left. */
  readonly weightBp: number;
}

/** The buckets of an arm. */
export type ArmRanges = Pick<PlanArm, 'name' | 'ranges'>;

/** Parts of a whole that weights are given in. */
const whole = 10_000;

/**
 * Shares the buckets that a rollout wins out among its arms. Buckets below the present share stay where they are: devices
 * may have begun there. So weights hold for new buckets alone, each to the nearest bucket.
 * @param before share and arms so far; 0 and none for a new rollout.
 * @param newBp share from now on, basis points, at least that before.
 * @param weightsBp basis points of the new buckets by name of arm, at most 10000 in all; the candidate gets the rest, and so
 * does an arm that is not there any more.
 * @param blocks into how many parts the new buckets are cut, each of which is shared out. A share that is reached bucket by
 * bucket needs several: with one, arms would begin one after the other. Fewer are used where an arm has 64 ranges else.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` if an arm would have more than 64 ranges.
 */
export function assignRanges(
  before: { readonly bp: number; readonly arms: readonly ArmRanges[] },
  newBp: number,
  weightsBp: Readonly<Record<string, number>>,
  blocks = 1,
): readonly ArmRanges[] {
  const weights = new Map(Object.entries(weightsBp));
  const old = new Map(before.arms.map(({ name, ranges }) => [name, ranges]));
  const names = [...new Set([...old.keys(), ...weights.keys()])];
  const most = Math.max(0, ...[...old.values()].map(({ length }) => length));
  const parts = Math.max(1, Math.min(blocks, MOST_RANGES - most));
  const grown = new Map(names.map((name) => [name, [...(old.get(name) ?? [])]]));
  const at = (share: number): number => before.bp + Math.round((newBp - before.bp) * share);
  for (let part = 0; part < parts; part += 1) {
    let passedBp = 0;
    for (const name of names) {
      const from = at((part + passedBp / whole) / parts);
      passedBp += weights.get(name) ?? 0;
      const to = at((part + passedBp / whole) / parts);
      if (from < to) append(grown.get(name) ?? [], [from, to]);
    }
  }
  const full = names.find((name) => (grown.get(name)?.length ?? 0) > MOST_RANGES);
  if (full !== undefined) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `The arm ${full} would have more than ${MOST_RANGES} ranges; complete the rollout, or start a new one.`,
      { details: { arm: full } },
    );
  }
  return names.map((name) => ({ name, ranges: grown.get(name) ?? [] }));
}

/**
 * Gives a rollout its arms for a share.
 * @param before plan of the same rollout, if it goes on.
 * @param next share, and what the other devices run.
 * @param options arms that it is told; without them, new buckets go to the present ones in proportion.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` for arms that cannot be.
 */
export function armsFor(
  before: Pick<Plan, 'bp' | 'arms'> | undefined,
  { bp, base }: Pick<Plan, 'bp' | 'base'>,
  options: readonly ArmOption[] | undefined,
  blocks: number,
): readonly PlanArm[] {
  const present = before?.arms ?? [];
  assertArms(present, options ?? [], base);
  const weights = options
    ? options.map(({ name, weightBp }) => [name, weightBp] as const)
    : present.map(({ name, ranges }) => [name, weightOf(ranges, before?.bp ?? 0)] as const);
  const entries = new Map([...present, ...(options ?? [])].map(({ name, entry }) => [name, entry]));
  const from = { bp: before?.bp ?? 0, arms: present };
  return assignRanges(from, bp, Object.fromEntries(weights), blocks).flatMap(({ name, ranges }) => {
    const entry = entries.get(name);
    return entry ? [{ name, entry, ranges }] : [];
  });
}

/** Share of a rollout that an arm has, basis points of the rollout's own share. */
export function weightOf(ranges: readonly BucketRange[], bp: number): number {
  const width = ranges.reduce((sum, [from, to]) => sum + to - from, 0);
  return bp === 0 ? 0 : Math.floor((width * whole) / bp);
}

function assertArms(
  present: readonly PlanArm[],
  options: readonly ArmOption[],
  base: PlanEntry | null,
): void {
  const names = options.map(({ name }) => name);
  const malformed = names.find((name) => !isArmName(name));
  if (malformed !== undefined) {
    const shown = JSON.stringify(malformed.slice(0, 80));
    refuse(`${shown} names no arm; use 1 to 32 of a-z, 0-9 and -, and neither t nor c, which have a meaning`);
  }
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) refuse(`The arm ${twice} is there twice; give it one weight`);
  if (new Set([...present.map(({ name }) => name), ...names]).size > MOST_ARMS)
    refuse(`A rollout has at most ${MOST_ARMS} arms beside the candidate`);
  const sum = options.reduce((total, { weightBp }) => total + weightBp, 0);
  if (sum > whole)
    refuse(`The arms have ${sum / 100} % of the devices together; leave the candidate its part of 100 %`);
  for (const { name, entry } of options) {
    const old = present.find((arm) => arm.name === name);
    if (base?.path === entry.path)
      refuse(
        `The arm ${name} would run ${base.version} as the other devices do; those are measured as the control`,
      );
    if (old && (old.entry.path !== entry.path || old.entry.sha256 !== entry.sha256)) {
      refuse(
        `The arm ${name} runs ${old.entry.version} and keeps it; start another arm for ${entry.version}`,
      );
    }
  }
}

function append(ranges: BucketRange[], [from, to]: BucketRange): void {
  const last = ranges.at(-1);
  if (last?.[1] === from) ranges[ranges.length - 1] = [last[0], to];
  else ranges.push([from, to]);
}

function refuse(problem: string): never {
  throw new ServerError('ERR_INLAY_REFUSED', `${problem}.`);
}
