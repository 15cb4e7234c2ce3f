import type { Kysely } from 'kysely';
import { toHex } from '../../core/bytes.ts';
import { ServerError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import type { Schema } from '../db/schema.ts';
import type { Fence, Job, JobRunner } from './job.ts';
import { createLease } from './lease.ts';

/** Options of {@link createJobRunner}. */
export interface JobRunnerOptions {
  readonly db: Kysely<Schema>;
  readonly platform: Pick<Platform, 'now' | 'monotonicMs' | 'setTimer' | 'randomBytes'>;
  readonly jobs: readonly Job[];
  /** Gets what a job failed of; it runs again in its turn. */
  readonly onError: (error: unknown) => void;
  /** After this long without a sign of life, another replica goes on, milliseconds. Default 30 s. */
  readonly leaseMs?: number;
}

/** Jobs get this long to end when the server stops, milliseconds. */
const closeMs = 5000;

/**
 * Creates the runner of a replica's jobs. Of all replicas on a database, the one with the lease runs them, each job
 * beside the others and never beside itself.
 */
export function createJobRunner(options: JobRunnerOptions): JobRunner {
  const { db, platform, jobs, onError, leaseMs = 30_000 } = options;
  const holder = toHex(platform.randomBytes(16));
  const lease = createLease({ db, platform, name: 'jobs', holder, leaseMs });
  /** From taking the lease to losing it. */
  let term: AbortController | undefined;
  /** The term whose jobs repeat. */
  let repeating: AbortController | undefined;
  let validUntilMs = 0;
  let isStarted = false;
  let closing: Promise<void> | undefined;
  let cancelElection = (): void => undefined;
  let election: Promise<unknown> = Promise.resolve();
  /** What each job does now, or did last. */
  const turns = new Map<Job, Promise<void>>();
  const cancels = new Map<Job, () => void>();

  const endTerm = (): void => {
    term?.abort(new ServerError('ERR_INLAY_CONFLICT', 'This replica does not run the jobs any more.'));
    term = undefined;
    for (const cancel of cancels.values()) cancel();
  };

  const runJob = (job: Job, now: () => number, present: AbortController): Promise<void> => {
    const { signal } = present;
    const fence: Fence = {
      assertHeld: async (tx) => {
        signal.throwIfAborted();
        try {
          await lease.assertHeld(tx);
        } catch (error) {
          if (term === present && error instanceof ServerError) endTerm();
          throw error;
        }
      },
    };
    const turn = (turns.get(job) ?? Promise.resolve()).then(async () => {
      if (signal.aborted) return;
      try {
        await job.run(now(), signal, fence);
      } catch (cause) {
        if (signal.aborted) return;
        onError(
          new ServerError('ERR_INLAY_SERVER', `The job "${job.name}" failed; it runs again in its turn.`, {
            cause,
            details: { job: job.name },
          }),
        );
      }
    });
    turns.set(job, turn);
    return turn;
  };

  const repeat = async (job: Job, present: AbortController): Promise<void> => {
    await runJob(job, () => platform.now(), present);
    if (present.signal.aborted) return;
    cancels.set(
      job,
      platform.setTimer(() => void repeat(job, present), job.everyMs),
    );
  };

  /** Takes or renews the lease. @returns the term that goes on or begins. */
  const elect = (now: number): Promise<AbortController | undefined> => {
    const next = election.then(async () => {
      // Counted from before the question, so that it never seems to hold longer than others think.
      const askedMs = platform.monotonicMs();
      try {
        const isHeld = closing === undefined && (await lease.take(now));
        if (isHeld) validUntilMs = askedMs + leaseMs;
        else endTerm();
        if (isHeld && !closing) term ??= new AbortController();
      } catch (error) {
        onError(error);
        if (platform.monotonicMs() >= validUntilMs) endTerm();
      }
      return term;
    });
    election = next;
    return next;
  };

  const watch = async (): Promise<void> => {
    const present = await elect(platform.now());
    if (closing) return;
    if (present && present !== repeating) for (const job of jobs) void repeat(job, present);
    repeating = present;
    cancelElection = platform.setTimer(() => void watch(), leaseMs / 3);
  };

  const close = async (): Promise<void> => {
    cancelElection();
    endTerm();
    await election;
    await new Promise<void>((resolve) => {
      const cancel = platform.setTimer(resolve, closeMs, true);
      void Promise.all(turns.values()).then(() => {
        cancel();
        resolve();
      });
    });
    await lease.release().catch(onError);
  };

  return {
    start: () => {
      if (isStarted || closing) return;
      isStarted = true;
      void watch();
    },

    runOnce: async (now) => {
      const present = await elect(now);
      if (!present) return false;
      for (const job of jobs) await runJob(job, () => now, present);
      return !present.signal.aborted;
    },

    close: () => (closing ??= close()),
  };
}
