/** Clocks of devices are wrong by years at times. What they say is put right where it is certain to be wrong. */

/** A clock within this of the server's counts as right, milliseconds; corrections are multiples of it. */
const CLOCK_STEP_MS = 300_000;
/** Windows that ended longer ago are not taken, seconds: what was counted twice by then could not be told. */
export const MAX_AGE_S: number = 14 * 86_400;

/** When something was sent and received. */
export interface Reception {
  /** Server's clock, milliseconds since 1970. */
  readonly at: number;
  /** Device's clock when it sent the request. Unlike the time of sealing, it does not tell how long a report waited. */
  readonly sentAt?: number | undefined;
}

/**
 * What is to be added to times of a device, milliseconds: a multiple of five minutes, and 0 for a clock that is right.
 * @param sealedAt - device's clock when the report was sealed. Without the time of sending, only a clock that is ahead can
 * be told from a report that had to wait.
 */
export function clockCorrection({ at, sentAt }: Reception, sealedAt: number): number {
  const skew = at - (sentAt ?? Math.max(sealedAt, at));
  return Math.abs(skew) <= CLOCK_STEP_MS ? 0 : Math.round(skew / CLOCK_STEP_MS) * CLOCK_STEP_MS;
}

/** Tells whether a window can be counted. */
export function ageOf(beginS: number, lengthS: number, nowMs: number): 'fine' | 'too_old' | 'future' {
  const nowS = nowMs / 1000;
  if (beginS + lengthS < nowS - MAX_AGE_S) return 'too_old';
  return beginS > nowS + CLOCK_STEP_MS / 1000 ? 'future' : 'fine';
}
