/** Listens to the calls that a release answers: for its trial, and as the measure of the next one. */

import type { Platform } from '../core/platform.ts';
import type { CallWatch } from './follower.ts';
import type { TrialBaseline, TrialWatch } from './guards.ts';

/** Run times that are kept. */
const MOST_TIMES = 512;
/** Shortest pause between two looks at a trial that answers calls, milliseconds. */
const PAUSE_MS = 50;

/** What {@link observe} works with. */
export interface ObserveParts {
  readonly platform: Pick<Platform, 'now' | 'monotonicMs'>;
  /** Gets the run times, milliseconds, in a ring. */
  readonly times: number[];
  /** The trial, as long as it goes on. */
  readonly trial: () => TrialWatch | undefined;
  /** Called when there is a verdict; not again before it has resolved. */
  readonly onVerdict: () => Promise<void>;
}

/** Creates what hears of each call. */
export function observe({ platform, times, trial, onVerdict }: ObserveParts): CallWatch {
  let timed = 0;
  let isJudged = false;
  let judgedMs = -Infinity;
  const judge = (watch: TrialWatch): void => {
    const nowMs = platform.monotonicMs();
    // Looking through run times takes longer than some models do.
    if (isJudged || nowMs - judgedMs < PAUSE_MS) return;
    judgedMs = nowMs;
    if (watch.verdict(platform.now()) === 'going-on') return;
    isJudged = true;
    void onVerdict().finally(() => {
      isJudged = false;
    });
  };
  return {
    answered: (ms, outputs) => {
      times[timed % MOST_TIMES] = ms;
      timed += 1;
      const watch = trial();
      if (watch === undefined) return;
      watch.answered(ms, outputs);
      judge(watch);
    },
    failed: (error) => {
      const watch = trial();
      if (watch === undefined) return;
      watch.failed(error);
      judge(watch);
    },
  };
}

/** Sums up what runs now. */
export function baselineOf(times: readonly number[], memoryBytes: number | undefined): TrialBaseline {
  const p95Ms = [...times].sort((a, b) => a - b)[Math.ceil(0.95 * times.length) - 1];
  return {
    ...(p95Ms !== undefined && { p95Ms, samples: times.length }),
    ...(memoryBytes !== undefined && { memoryBytes }),
  };
}
