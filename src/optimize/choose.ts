/** Which of several models is taken: goals are constraints, and among what holds them the fastest wins. */

import type { Attempt } from './decision.ts';
import type { CompleteGoal } from './options.ts';

/** Least score of the user's own measure, where there is one. */
export interface ScoreGoal {
  readonly minScore?: number | undefined;
}

/** Speeds that differ by less than this are the same, relative. */
const tie = 0.05;

/** Geometric mean of the speed-ups at all batches; `undefined` if none was measured. */
export function speedupOf({ times = [] }: Pick<Attempt, 'times'>): number | undefined {
  if (times.length === 0) return undefined;
  return Math.exp(times.reduce((sum, { speedup }) => sum + Math.log(speedup), 0) / times.length);
}

/** Goals of size and accuracy that an attempt misses, in words. What was not measured misses none. */
export function missedBeforeTiming(
  attempt: Pick<Attempt, 'accuracy' | 'sizeRatio' | 'isBatchInvariant' | 'score'>,
  goal: CompleteGoal & ScoreGoal,
): readonly string[] {
  const { accuracy, sizeRatio, isBatchInvariant, score } = attempt;
  const missed: string[] = [];
  if (accuracy?.mismatch !== undefined) missed.push(accuracy.mismatch);
  else if (accuracy !== undefined) {
    const { sqnrDb, agreement } = accuracy;
    if (sqnrDb !== null && !(sqnrDb >= goal.minSqnrDb))
      missed.push(`its answers have ${round(sqnrDb)} dB, asked for are ${goal.minSqnrDb}`);
    if (goal.minAgreement !== undefined && !(agreement >= goal.minAgreement)) {
      missed.push(
        `it decides ${percent(agreement)} of the rows as the original, asked for are ${percent(goal.minAgreement)}`,
      );
    }
  }
  if (goal.minScore !== undefined && score !== undefined && !(score >= goal.minScore))
    missed.push(`it scores ${round(score)}, asked for are ${round(goal.minScore)}`);
  if (goal.isBatchInvariant && isBatchInvariant === false)
    missed.push('a row does not get alone what it gets in a batch');
  if (goal.maxSizeRatio !== undefined && sizeRatio !== undefined && sizeRatio > goal.maxSizeRatio)
    missed.push(`it has ${percent(sizeRatio)} of the size, asked for are ${percent(goal.maxSizeRatio)}`);
  return missed;
}

/** Goals of speed that an attempt misses, in words: each batch counts. */
export function missedByTiming(
  { times = [] }: Pick<Attempt, 'times'>,
  goal: CompleteGoal,
): readonly string[] {
  return times
    .filter(({ speedup }) => !(speedup >= goal.minSpeedup))
    .map(
      ({ batch, speedup }) =>
        `it runs ${round(speedup)} times as fast with ${batch} ${batch === 1 ? 'row' : 'rows'}, asked for are ${goal.minSpeedup}`,
    );
}

/**
 * Takes the fastest of the attempts that hold all goals; of those that are as fast within 5 %, the most accurate, and
 * of those that are as accurate, the smallest.
 * @param contenders - the original first; none of them misses a goal.
 * @returns the one to take; `undefined` if there is none.
 */
export function fastest(contenders: readonly Attempt[]): Attempt | undefined {
  const speed = (attempt: Attempt): number => speedupOf(attempt) ?? 1;
  const top = Math.max(...contenders.map(speed));
  const accuracy = (attempt: Attempt): number => attempt.accuracy?.sqnrDb ?? Infinity;
  const near = contenders.filter((attempt) => speed(attempt) >= top * (1 - tie));
  const [best] = near.sort(
    (a, b) => compare(accuracy(b), accuracy(a)) || compare(a.sizeRatio ?? 1, b.sizeRatio ?? 1),
  );
  return best;
}

/** Rounds for people: three digits. */
export function round(value: number): string {
  return String(Number(value.toPrecision(3)));
}

/** Writes a ratio for people. */
export function percent(ratio: number): string {
  return `${round(100 * ratio)} %`;
}

function compare(a: number, b: number): number {
  return a === b ? 0 : a - b;
}
