/** Watches a release on trial: whether it serves as well as the one before it did. */

import { isInlayError } from '../core/errors.ts';
import { chanceOfAtLeast } from '../stats/special.ts';
import { kindOfAnswer } from './guards-outputs.ts';
import type { TrialRules } from './plan.ts';
import type { RejectReason } from './slot.ts';

/** What the version before took. */
export interface TrialBaseline {
  /** 95th percentile of its run times, milliseconds. */
  readonly p95Ms?: number;
  /** Run times behind it. Default: enough. */
  readonly samples?: number;
  /** Memory that it took, bytes. */
  readonly memoryBytes?: number;
}

/** Where a trial stood when the app ended last time. */
export interface TrialBegin {
  /** When it first answered, on the clock of {@link TrialWatch.verdict}. */
  readonly at: number;
  readonly inferences: number;
  readonly errors: number;
}

/** What is known of a trial now. */
export type TrialVerdict = 'going-on' | 'passed' | { readonly reason: RejectReason; readonly detail: string };

/** The watch over one trial. */
export interface TrialWatch {
  /**
   * Takes note of an answer.
   * @param ms - how long its run took, milliseconds.
   * @param outputs - tensors by name; anything else is not looked at.
   */
  answered(ms: number, outputs?: unknown): void;
  /**
   * Takes note of a call that failed. Only failures of the model and of what runs it count: not wrong feeds, missed
   * deadlines, aborts or closed handles, which say nothing of the release.
   */
  failed(error: unknown): void;
  /** Takes note of the memory that the release takes, bytes. */
  measured(memoryBytes: number): void;
  /** Gives the counts since the last time, for the record of the trial. */
  takeCounts(): { readonly inferences: number; readonly errors: number };
  /**
   * Judges by what has been noted so far.
   * @param nowMs - milliseconds on a clock that runs on; where it is set back, the soak time begins anew.
   */
  verdict(nowMs: number): TrialVerdict;
}

/** Chance at which a release that fails as often as tolerated is rejected by one look at its count of errors. */
const falseAlarm = 0.01;
/** Run times that a percentile needs on both sides. */
const enoughSamples = 100;
/** First run times of a release, which warm it up and do not count. */
const warmUps = 10;
/** How long a machine may be busy with something else before a release is blamed for it, milliseconds. */
const patienceMs = 10_000;
/** Run times that are kept. */
const capacity = 512;
/** A difference that nobody notices, whatever its ratio. */
const negligibleMs = 1;

/**
 * Starts to watch a trial.
 *
 * - Errors: rejected when so many of so many calls would come with a chance of at most 1 % from a release that fails
 *   exactly as often as is tolerated (`P(X ≥ k), X ~ B(n, maxErrorBp)`, exact). At the default of 2 %, one error never is
 *   enough, two are among the first 7 calls, three among the first 22. It does not pass either while more fail than is
 *   tolerated.
 * - Answers: NaN or infinity in a float, or no outputs, in at least two calls and at least `maxErrorBp` of them. Outputs
 *   without elements count only if there was nothing else in `minInferences` calls: a detector may see nothing.
 * - Run time: 95th percentile above `maxP95Percent` of the baseline's and more than 1 ms above it, with at least 100 run
 *   times in both, after the first 10 of the release and its first 10 seconds.
 * - Memory: more than `maxMemoryMiB` above the baseline's.
 *
 * @param baseline - without it, run time and memory are not judged.
 * @param begin - without it, the trial begins with the first verdict.
 */
export function createTrialWatch(
  rules: TrialRules,
  baseline: TrialBaseline = {},
  begin?: TrialBegin,
): TrialWatch {
  const { minInferences, soakS, maxErrorBp, maxP95Percent, maxMemoryMiB } = rules;
  let { inferences, errors } = begin ?? { inferences: 0, errors: 0 };
  let since = begin?.at;
  let counted = { inferences, errors };
  /** Answers that were looked at in this run of the app, and what was found. */
  let looked = 0;
  let invalid = 0;
  let empty = 0;
  const times: number[] = [];
  let timed = 0;
  let memory: number | undefined;

  const badAnswers = (): string | undefined => {
    if (invalid >= 2 && invalid * 10_000 >= maxErrorBp * looked)
      return `${invalid} of ${looked} answers had no finite numbers or no outputs.`;
    if (empty === looked && empty >= Math.max(2, minInferences))
      return `All of ${looked} answers were without elements.`;
    return undefined;
  };

  const slowness = (nowMs: number, beganMs: number): string | undefined => {
    if (nowMs - beganMs < patienceMs) return undefined;
    const { p95Ms, samples = enoughSamples } = baseline;
    if (p95Ms === undefined || samples < enoughSamples || times.length < enoughSamples) return undefined;
    const present = percentile95(times);
    if (present * 100 <= p95Ms * maxP95Percent || present - p95Ms <= negligibleMs) return undefined;
    return `Run times have a 95th percentile of ${present.toFixed(1)} ms, and had ${p95Ms.toFixed(1)} ms before.`;
  };

  const excess = (): string | undefined => {
    if (maxMemoryMiB === 0 || memory === undefined || baseline.memoryBytes === undefined) return undefined;
    const moreMiB = (memory - baseline.memoryBytes) / 2 ** 20;
    return moreMiB > maxMemoryMiB ? `It takes ${Math.ceil(moreMiB)} MiB more than before.` : undefined;
  };

  return {
    answered: (ms, outputs) => {
      inferences += 1;
      const kind = kindOfAnswer(outputs, looked);
      if (kind !== undefined) looked += 1;
      if (kind === 'empty') empty += 1;
      if (kind === 'non-finite' || kind === 'missing') invalid += 1;
      if (!Number.isFinite(ms)) return;
      timed += 1;
      if (timed > warmUps) times[(timed - warmUps - 1) % capacity] = ms;
    },
    failed: (error) => {
      if (isModelsFault(error)) errors += 1;
    },
    measured: (memoryBytes) => {
      memory = memoryBytes;
    },
    takeCounts: () => {
      const taken = { inferences: inferences - counted.inferences, errors: errors - counted.errors };
      counted = { inferences, errors };
      return taken;
    },
    verdict: (nowMs) => {
      // A clock that was ahead when the trial began would make it last until it is as late again.
      since = Math.min(since ?? nowMs, nowMs);
      const answers = badAnswers();
      if (answers !== undefined) return { reason: 'invalid-outputs', detail: answers };
      const calls = inferences + errors;
      const isTolerated = errors * 10_000 <= maxErrorBp * calls;
      if (!isTolerated && chanceOfAtLeast(errors, calls, maxErrorBp / 10_000) <= falseAlarm)
        return { reason: 'errors', detail: `${errors} of ${calls} calls failed.` };
      const memoryExcess = excess();
      if (memoryExcess !== undefined) return { reason: 'memory', detail: memoryExcess };
      const latency = slowness(nowMs, since);
      if (latency !== undefined) return { reason: 'latency', detail: latency };
      const isOver = inferences >= minInferences && nowMs - since >= soakS * 1000;
      // One bad answer alone rejects nothing, but more of them may come.
      return isOver && isTolerated && invalid * 10_000 <= maxErrorBp * looked ? 'passed' : 'going-on';
    },
  };
}

/** Failures that a release can be blamed for: whatever a caller or an abort may throw is something else. */
function isModelsFault(error: unknown): boolean {
  return isInlayError(error) && (error.name === 'BackendError' || error.name === 'ModelError');
}

/** Nearest-rank percentile: the smallest time that at least 95 % of them do not exceed. */
function percentile95(times: readonly number[]): number {
  const sorted = [...times].sort((a, b) => a - b);
  return sorted[Math.ceil(0.95 * sorted.length) - 1] as number;
}
