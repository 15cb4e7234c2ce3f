/** What a call hears that is given up before it runs. */
import { ScheduleError } from '../core/errors.ts';
import type { RejectReason } from './metrics.ts';

/** Why a call is given up, for its caller and for the counters. */
export interface Refusal {
  readonly reason: RejectReason;
  readonly error: ScheduleError;
}

/** The deadline has passed while the call waited. */
export function deadlinePassed(): Refusal {
  return deadline('deadline_passed', 'The deadline has passed', undefined);
}

/** The answer would come too late. @param leftMs - milliseconds until the deadline. */
export function deadlinePredicted(neededMs: number, leftMs: number): Refusal {
  const message = `The answer would take ${format(neededMs)} ms, and the deadline is in ${format(leftMs)} ms`;
  return deadline('deadline_predicted', message, Math.ceil(neededMs));
}

/** Too much waits already. @param drainMs - milliseconds until what waits now is through. */
export function queueFull(
  reason: 'queue_full' | 'bytes_full' | 'shed',
  waiting: { readonly length: number; readonly sizeBytes: number },
  drainMs: number,
): Refusal {
  const { length, sizeBytes } = waiting;
  const message =
    reason === 'shed'
      ? 'The call made way for one of higher priority'
      : `${length} calls with ${(sizeBytes / 2 ** 20).toFixed(1)} MiB of feeds wait already`;
  const error = new ScheduleError(
    'ERR_INLAY_OVERLOADED',
    `${message}; try again later, give less at once (runAll does), or raise the limit of the queue.`,
    { details: { reason, waiting: length, retryAfterMs: Math.max(1, Math.ceil(drainMs)) } },
  );
  return { reason, error };
}

function deadline(reason: RejectReason, message: string, retryAfterMs: number | undefined): Refusal {
  const details = { reason, ...(retryAfterMs !== undefined && { retryAfterMs }) };
  return {
    reason,
    error: new ScheduleError('ERR_INLAY_DEADLINE', `${message}; the call was not made.`, { details }),
  };
}

function format(milliseconds: number): string {
  return milliseconds.toPrecision(3);
}
