/** Judges the release that runs on trial, at each verdict of its watch and now and then without one. */

import type { Platform } from '../core/platform.ts';
import type { Running } from './runner.ts';
import type { Slots } from './slots.ts';
import type { RejectReason, Slot, SlotsState } from './slot.ts';

/** How often a trial is judged when no call does so, milliseconds. */
const JUDGE_MS = 500;

/** What {@link createJudge} works with. */
export interface JudgeParts {
  readonly platform: Pick<Platform, 'now' | 'setTimer' | 'memoryBytes'>;
  readonly slots: Slots;
  readonly running: () => Running | undefined;
  /** Runs a task when it is its turn. Its failures are dealt with. */
  readonly inTurn: (task: () => Promise<void>) => Promise<void>;
  /** Called in turn, when a trial has ended well. */
  readonly onPassed: (state: SlotsState, slot: Slot) => Promise<void>;
  /** Called in turn, when a trial has been rejected. */
  readonly onRejected: (reason: RejectReason, detail: string) => Promise<void>;
  /** Called after either. */
  readonly onSettled: () => Promise<void>;
}

/** Judges trials. */
export interface Judge {
  /** Looks at the trial that runs, if one does. */
  now(): Promise<void>;
  /** Looks at it now and then, as long as it runs. */
  watch(): void;
  stop(): void;
}

/** Creates the judge of one model. */
export function createJudge(parts: JudgeParts): Judge {
  const { platform, slots, running } = parts;
  let cancel = (): void => {};

  const now = async (): Promise<void> => {
    let isSettled = false;
    await parts.inTurn(async () => {
      const { trial, token, slot } = running() ?? {};
      if (trial === undefined || token === undefined || slot === undefined) return;
      const { sha256 } = slot.release;
      const memoryBytes = platform.memoryBytes?.();
      if (memoryBytes !== undefined) trial.measured(memoryBytes);
      const { inferences, errors } = trial.takeCounts();
      slots.progress(token, inferences, errors);
      const verdict = trial.verdict(platform.now());
      if (verdict === 'going-on') return;
      isSettled = true;
      if (verdict === 'passed') {
        await parts.onPassed(await slots.commit(sha256, slot.file.sha256), slot);
        return;
      }
      await slots.reject(sha256, verdict.reason, verdict.detail, slot.file.sha256);
      await parts.onRejected(verdict.reason, verdict.detail);
    });
    if (isSettled) await parts.onSettled();
  };

  const watch = (): void => {
    cancel();
    if (running()?.trial === undefined) return;
    cancel = platform.setTimer(() => {
      void now().finally(watch);
    }, JUDGE_MS);
  };

  return {
    now,
    watch,
    stop: () => {
      cancel();
      cancel = () => {};
    },
  };
}
