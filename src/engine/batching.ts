import type { Session, TensorMap } from '../core/backend.ts';
import { difference, type Tolerance } from '../core/compare.ts';
import type { Platform } from '../core/platform.ts';
import type { Signature } from '../core/signature.ts';
import { hasRows, joinFeeds, refuseBatching, splitOutputs } from '../schedule/batch.ts';
import type { Queue } from '../schedule/scheduler.ts';
import { exampleFeeds, randomFeeds } from './example-feeds.ts';

/** Rows that are tried together: with two, an output of twice the rows could not be told from a sum. */
const ROWS = 3;

/**
 * Finds out whether the calls of a model can share batches: its signature has to allow it, and rows that are run
 * together have to give what they give alone.
 *
 * A model that refuses the random feeds that are tried remains batchable: the first real batch is compared with a solo
 * run, too.
 * @returns the reason why not, in words; `undefined` if they can.
 */
export async function tryBatching(
  session: Session,
  options: { readonly maxBatch?: number | undefined; readonly tolerance?: Tolerance | undefined },
): Promise<string | undefined> {
  if (options.maxBatch === 1) return 'maxBatch is 1';
  const refusal = refuseBatching(session.signature);
  if (refusal !== undefined) return refusal;
  const rows = Array.from({ length: ROWS }, (_, seed) => randomFeeds(session.signature, seed + 1));
  const solo: TensorMap[] = [];
  let together: TensorMap;
  try {
    for (const feeds of rows) solo.push(await session.run(feeds));
  } catch {
    return undefined;
  }
  if (solo.some((outputs) => !hasRows(outputs, 1)))
    return 'a single row gives outputs of another number of rows';
  try {
    together = await session.run(joinFeeds(rows.map((feeds) => ({ feeds }))));
  } catch (error) {
    return `it fails on ${ROWS} rows at once: ${error instanceof Error ? error.message : String(error)}`;
  }
  if (!hasRows(together, ROWS)) return `${ROWS} rows give outputs of another number of rows`;
  const parts = splitOutputs(
    together,
    rows.map((feeds) => ({ feeds, samples: 1, outputs: undefined })),
  );
  for (const [row, expected] of solo.entries()) {
    const found = difference(expected, parts[row] as TensorMap, options.tolerance);
    if (found !== undefined) return `batched and solo results differ: ${found}`;
  }
  return undefined;
}

/** Longest time, in milliseconds, that is spent on finding the batch size that pays. */
const BUDGET_MS = 60;
/** Runs of each size, of which the shortest counts: whatever else the machine does only adds to it. */
const REPEATS = 4;

/** Measures batches of growing size, until they stop to pay, so that the first calls are planned well already. */
export async function calibrate(platform: Platform, session: Session, queue: Queue): Promise<void> {
  const startedMs = platform.monotonicMs();
  const batchOf = batchesOf(session.signature);
  let measured = 0;
  while (platform.monotonicMs() - startedMs < BUDGET_MS) {
    const { samples, isSettled } = queue.cap(batchOf(1));
    // A cap that has not moved has found its size, or wants to see more of it than there is time for.
    if (isSettled || samples === measured) return;
    measured = samples;
    const feeds = batchOf(samples);
    let shortestMs = Infinity;
    for (let i = 0; i < REPEATS; i += 1) {
      const beganMs = platform.monotonicMs();
      try {
        await session.run(feeds);
      } catch {
        // It does not take made-up feeds; real ones will tell.
        return;
      }
      shortestMs = Math.min(shortestMs, platform.monotonicMs() - beganMs);
    }
    queue.learn(feeds, samples, shortestMs);
  }
}

function batchesOf(signature: Signature): (samples: number) => TensorMap {
  const { feeds } = exampleFeeds(signature);
  let made: { readonly samples: number; readonly feeds: TensorMap } | undefined;
  return (samples) => {
    if (made?.samples !== samples) {
      made = { samples, feeds: joinFeeds(Array.from({ length: samples }, () => ({ feeds }))) };
    }
    return made.feeds;
  };
}
