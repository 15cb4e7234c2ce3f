/** The search among candidates: what is tried, what is left in floats, and what has to win once more. */

import type { ModelProto } from '../onnx/messages.ts';
import type { Calibration } from './calibrate.ts';
import type { Candidate } from './candidates.ts';
import { fastest, speedupOf } from './choose.ts';
import { climb } from './climb.ts';
import type { OptimizeOptions } from './options.ts';
import { rankSensitive } from './sensitivity.ts';
import { stemsOf } from './stems.ts';
import type { StaticInt8, ValueTypes } from './technique.ts';
import type { Trial, Trials } from './trial.ts';

/** Rounds in which a layer more is left in floats. */
const mostRounds = 10;

/** Says what is under way, to which candidate, and the share that is done. */
export type Tell = (step: string, ratio: number, candidate?: string) => void;

/** What a search works with. */
export interface Work {
  readonly trials: Trials;
  readonly prepared: ModelProto;
  readonly types: ValueTypes;
  readonly calibration: Calibration | undefined;
  readonly options: OptimizeOptions;
  readonly tell: Tell;
}

/** Tries all candidates, times those that are good enough, and saves one where none is. */
export async function tryAll(
  candidates: readonly Candidate[],
  { trials, prepared, types, calibration, options, tell }: Work,
): Promise<readonly Trial[]> {
  const make = (candidate: Candidate, excluded: readonly string[] = []): Promise<Trial> =>
    trials.attempt(candidate, prepared, {
      types,
      ranges: calibration?.ranges,
      exclude: [...(options.exclude ?? []), ...excluded],
      excluded,
      ...(options.isForced !== undefined && { isForced: options.isForced }),
    });
  const tried: Trial[] = [];
  for (const [i, candidate] of candidates.entries()) {
    tell('comparing answers', 0.2 + (0.4 * i) / candidates.length, candidate.name);
    tried.push(await make(candidate));
  }
  tell('measuring speed', 0.6);
  let timed = await trials.time(tried);
  const climbed = async (from: readonly Trial[]): Promise<readonly Trial[]> => {
    const start = fastestStatic(from);
    if (start === undefined || (options.technique ?? 'auto') !== 'auto') return [];
    tell('leaving early layers in floats', 0.7, start.attempt.name);
    const { technique, excluded = [] } = start.attempt;
    const stems = stemsOf(prepared, technique, { exclude: [...(options.exclude ?? []), ...excluded] });
    return climb(start, {
      stems,
      make: (name, stem) =>
        make({ name, technique, reason: 'layers of short sums are faster in floats' }, [
          ...excluded,
          ...stem,
        ]),
      time: (both) => trials.time(both),
    });
  };
  timed = [...timed, ...(await climbed(timed))];
  // One that is no faster than the original would not be taken; more of the others may be.
  const isGood = ({ missed, attempt }: Trial): boolean =>
    missed.length === 0 &&
    (options.goal?.maxSizeRatio !== undefined || fastest([trials.original(), attempt]) === attempt);
  const lost = timed.filter(({ isAccuracyMissed }) => isAccuracyMissed);
  if (!timed.some(isGood) && lost.length > 0) {
    const nearest = nearestOf(lost);
    const candidate = candidates.find(({ name }) => name === nearest?.attempt.name);
    if (nearest !== undefined && candidate !== undefined) {
      const saved = await save(nearest, candidate, make, { trials, prepared, tell });
      if (saved !== undefined) timed = [...timed, saved, ...(await climbed([saved]))];
    }
  }
  return timed;
}

/** The winner of one race was also lucky: what is taken has to win in another one. */
export async function confirm(
  tried: readonly Trial[],
  pick: (tried: readonly Trial[]) => Trial | undefined,
  trials: Pick<Trials, 'time'>,
): Promise<readonly Trial[]> {
  let found = tried;
  const confirmed = new Set<string>();
  for (let best = pick(found); best !== undefined && !confirmed.has(best.attempt.name); best = pick(found)) {
    const { name } = best.attempt;
    confirmed.add(name);
    const [again = best] = await trials.time([best]);
    found = found.map((trial) => (trial.attempt.name === name ? again : trial));
  }
  return found;
}

/** The one of them with fixed ranges that is the fastest, be it too slow for the goal. */
function fastestStatic(
  trials: readonly Trial[],
): (Trial & { readonly attempt: { readonly technique: StaticInt8 } }) | undefined {
  const speed = ({ attempt }: Trial): number => speedupOf(attempt) ?? 0;
  return trials.filter(isTimedStatic).sort((a, b) => speed(b) - speed(a))[0];
}

function isTimedStatic(
  trial: Trial,
): trial is Trial & { readonly attempt: { readonly technique: StaticInt8 } } {
  return trial.attempt.technique?.kind === 'static' && trial.attempt.times !== undefined;
}

/** Leaves one layer more in floats until the accuracy holds. @returns the last one tried, with its speed. */
async function save(
  nearest: Trial,
  candidate: Candidate,
  make: (candidate: Candidate, excluded: readonly string[]) => Promise<Trial>,
  { trials, prepared, tell }: Pick<Work, 'trials' | 'prepared' | 'tell'>,
): Promise<Trial | undefined> {
  const layers = await trials.layers(nearest, prepared);
  const order = rankSensitive(prepared, nearest.changed, layers);
  const name = `${candidate.name}-mixed`;
  let last: Trial | undefined;
  for (let rounds = 1; rounds <= Math.min(mostRounds, order.length - 1); rounds += 1) {
    tell('leaving layers in floats', 0.8 + (0.15 * rounds) / mostRounds, name);
    last = await make({ ...candidate, name }, order.slice(0, rounds));
    if (last.isAccuracyMissed) continue;
    const [timed] = await trials.time([last]);
    return timed;
  }
  return last;
}

/** The one whose answers are the nearest to the original's. */
export function nearestOf(trials: readonly Trial[]): Trial | undefined {
  return [...trials].sort((a, b) => sqnrOf(b) - sqnrOf(a))[0];
}

function sqnrOf({ attempt: { accuracy } }: Trial): number {
  if (accuracy === undefined || accuracy.mismatch !== undefined) return -Infinity;
  return accuracy.sqnrDb ?? Infinity;
}
