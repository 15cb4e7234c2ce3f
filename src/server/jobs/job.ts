/** Work that the server does by itself, on one replica at a time. */

import type { Transaction } from 'kysely';
import type { Schema } from '../db/schema.ts';

/** Keeps a replica that was too slow from undoing what the one after it does. */
export interface Fence {
  /**
   * Makes sure that this replica is still the one that works, until the transaction ends: the next one waits for it.
   * Do it first in every transaction of a job.
   * @throws {@link ServerError} `ERR_INLAY_CONFLICT` if another replica has taken over.
   */
  assertHeld(tx: Transaction<Schema>): Promise<void>;
}

/** Something that is done again and again. */
export interface Job {
  readonly name: string;
  /** Milliseconds from the end of one run to the begin of the next. */
  readonly everyMs: number;
  /**
   * Does it once. It may be cut off at any point and run again, also by another replica, and then goes on where it was.
   * @param now - wall clock, milliseconds since 1970.
   * @param signal aborts when another replica takes over, or the server stops.
   * @param fence absent where nobody else can be at work.
   */
  run(now: number, signal: AbortSignal, fence?: Fence): Promise<void>;
}

/** Runs jobs while this replica is the one that does. */
export interface JobRunner {
  start(): void;
  /** Runs every job once, in order, if this replica may; for tests and simulations. @returns whether it might. */
  runOnce(now: number): Promise<boolean>;
  /** Ends what is under way, gives the lease back. Safe to call twice. */
  close(): Promise<void>;
}
