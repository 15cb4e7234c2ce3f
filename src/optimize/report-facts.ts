/** What a report says, in words: every form of it is made of these. */

import { percent, round, speedupOf } from './choose.ts';
import type { Attempt, Decision, Outcome } from './decision.ts';

/** A table of texts. */
export interface FactTable {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** Row that stands out. */
  readonly marked?: number;
}

/** A report in words. */
export interface ReportFacts {
  readonly title: string;
  /** The decision in one sentence. */
  readonly verdict: string;
  readonly facts: readonly (readonly [label: string, value: string])[];
  readonly warnings: readonly string[];
  readonly tables: readonly FactTable[];
}

const outcomes: Readonly<Record<Outcome, string>> = {
  chosen: 'chosen',
  beaten: 'not the best',
  rejected: 'misses the goal',
  failed: 'cannot be used',
  dismissed: 'not tried',
};

/** What stands for nothing known. */
const unknown = '–';

/** Puts a decision into words. */
export function describeDecision(decision: Decision): ReportFacts {
  const { attempts, original, chosen, reason, warnings } = decision;
  const tried = attempts.filter(({ outcome }) => outcome !== 'dismissed');
  const dismissed = attempts.filter(({ outcome }) => outcome === 'dismissed');
  const taken = attempts.find(({ outcome }) => outcome === 'chosen');
  const tables: FactTable[] = [
    {
      title: 'Candidates',
      head: ['candidate', 'size', ...decision.batches.map(batchName), 'SQNR', 'same decisions', 'result'],
      rows: [original, ...tried].map((attempt) => candidateRow(attempt, decision)),
      marked: taken === undefined ? 0 : 1 + tried.indexOf(taken),
    },
    { title: 'Why', head: ['candidate', 'reason'], rows: tried.map(({ name, reason: why }) => [name, why]) },
    {
      title: 'Not tried',
      head: ['candidate', 'reason'],
      rows: dismissed.map(({ name, reason: why }) => [name, why]),
    },
    {
      title: 'Left as they were',
      head: ['node', 'operator', 'reason'],
      rows: (taken?.kept ?? []).map(({ node, op, reason: why }) => [
        node,
        op,
        taken?.excluded?.includes(node) ? 'it is better off in floats, see above' : why,
      ]),
    },
    {
      title: 'Not fused by the library',
      head: ['node', 'operator', 'reason'],
      rows: (taken?.findings ?? []).map(({ node, op, reason: why }) => [node, op, why]),
    },
  ];
  return {
    title: chosen === null ? 'The original was kept' : `Optimised: ${chosen}`,
    verdict: `${chosen === null ? 'The original was kept: ' : ''}${reason}.`,
    facts: factsOf(decision),
    warnings,
    tables: tables.filter(({ rows }) => rows.length > 0),
  };
}

/** Writes a time as people read it. */
export function formatMs(ms: number): string {
  return `${round(ms)} ms`;
}

/** Writes a number of bytes as people read it. */
export function formatSize(sizeBytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, sizeBytes)) / 3));
  return `${round(sizeBytes / 1000 ** power)} ${units[power]}`;
}

/** Writes a signal-to-noise ratio as people read it. */
export function formatDb(sqnrDb: number | null | undefined): string {
  if (sqnrDb === undefined) return unknown;
  return sqnrDb === null ? 'the same' : `${sqnrDb.toFixed(1)} dB`;
}

function batchName(batch: number): string {
  return batch === 1 ? '1 row' : `${batch} rows`;
}

function candidateRow(attempt: Attempt, { batches, chosen, original }: Decision): readonly string[] {
  const { name, sizeBytes, sizeRatio, times, accuracy, outcome } = attempt;
  const isOriginal = attempt === original;
  const size =
    sizeBytes === undefined
      ? unknown
      : `${formatSize(sizeBytes)}${isOriginal ? '' : `, ${percent(sizeRatio ?? 1)}`}`;
  const latencies = batches.map((batch) => {
    const time = times?.find((one) => one.batch === batch);
    if (time === undefined) return unknown;
    return `${formatMs(time.p10Ms)}${isOriginal ? '' : `, ${round(time.speedup)}×`}`;
  });
  const agreement =
    accuracy === undefined || accuracy.mismatch !== undefined ? unknown : percent(accuracy.agreement);
  const result = isOriginal ? (chosen === null ? 'kept' : 'for comparison') : outcomes[outcome];
  return [name, size, ...latencies, formatDb(accuracy?.sqnrDb), agreement, result];
}

function factsOf({
  target,
  runtime,
  threads,
  samples,
  calibration,
  goal,
  minScore,
  attempts,
}: Decision): ReportFacts['facts'] {
  const taken = attempts.find(({ outcome }) => outcome === 'chosen');
  const speed = taken && speedupOf(taken);
  const goals = [
    `at least ${goal.minSqnrDb} dB`,
    ...(goal.minAgreement === undefined ? [] : [`${percent(goal.minAgreement)} of decisions the same`]),
    ...(minScore === undefined ? [] : [`a score of ${round(minScore)}`]),
    ...(goal.maxSizeRatio === undefined ? [] : [`at most ${percent(goal.maxSizeRatio)} of the size`]),
    ...(goal.minSpeedup > 0 ? [`at least ${goal.minSpeedup}× the speed at every batch`] : []),
    ...(goal.isBatchInvariant ? ['a row alone gets what it gets in a batch'] : []),
  ];
  return [
    ['target', `${target}, ${runtime}, ${threads} ${threads === 1 ? 'thread' : 'threads'}`],
    ['goal', goals.join('; ')],
    ['samples', `${samples.count}${samples.isMadeUp ? ', made up' : ''}`],
    [
      'calibration',
      calibration === undefined ? 'none' : `${calibration.method}, ${calibration.samples} samples`,
    ],
    ...(taken?.sizeRatio === undefined
      ? []
      : [['size', `${percent(taken.sizeRatio)} of the original`] as const]),
    ...(speed === undefined ? [] : [['speed', `${round(speed)} times the original`] as const]),
    ...(taken?.isBatchInvariant === undefined
      ? []
      : [['batch-invariant', taken.isBatchInvariant ? 'yes' : 'no'] as const]),
    ...(taken?.excluded === undefined ? [] : [['left in floats', taken.excluded.join(', ')] as const]),
  ];
}
