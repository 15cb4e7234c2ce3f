/**
 * Which numbers of a sender have been seen: the highest one and the 128 up to it, as the anti-replay window of IPsec keeps
 * them (RFC 4303 §3.4.3).
 */

import { MAX_UNACKNOWLEDGED } from '../../telemetry/report.ts';

/** What is remembered of one sequence. */
export interface Sequence {
  /** Highest number so far; −1 before the first. */
  readonly hi: number;
  /** 32 hex digits; bit 0 of the last digit stands for `hi`. */
  readonly seen: string;
  /** Numbers that left the window without having been seen. */
  readonly lost: number;
}

/** More cannot be lost by one step: devices keep 128 reports, and a forged number must not look like a catastrophe. */
const mostLost = 1024;

/** A sequence of which nothing has been seen. */
export const noSequence: Sequence = { hi: -1, seen: '0'.repeat(32), lost: 0 };

/** What became of a number: taken, seen before, or too far below the highest to tell. */
export interface Noted {
  readonly outcome: 'new' | 'duplicate' | 'too_old';
  readonly sequence: Sequence;
}

const size = BigInt(MAX_UNACKNOWLEDGED);
const all = (1n << size) - 1n;

/** Notes a number: a safe integer of at least 0. Numbers far below a first one may have been forgotten here, so they are not lost. */
export function noteNumber(sequence: Sequence, seq: number): Noted {
  const { hi, lost } = sequence;
  const below = hi - seq;
  if (below >= MAX_UNACKNOWLEDGED) return { outcome: 'too_old', sequence };
  const seen = BigInt(`0x${sequence.seen}`);
  if (below >= 0) {
    const bit = 1n << BigInt(below);
    if ((seen & bit) !== 0n) return { outcome: 'duplicate', sequence };
    return { outcome: 'new', sequence: { hi, seen: hexOf(seen | bit), lost } };
  }
  const shifted = below < -MAX_UNACKNOWLEDGED ? 0n : (seen << BigInt(-below)) & all;
  return {
    outcome: 'new',
    sequence: { hi: seq, seen: hexOf(shifted | 1n), lost: hi < 0 ? 0 : lost + lostBy(hi, seen, seq) },
  };
}

/** Numbers that leave the window unseen as it moves up to `seq`. */
function lostBy(hi: number, seen: bigint, seq: number): number {
  const lowest = Math.max(hi - MAX_UNACKNOWLEDGED + 1, 0);
  const leaving = Math.max(seq - MAX_UNACKNOWLEDGED - lowest + 1, 0);
  const inWindow = Math.min(leaving, hi - lowest + 1);
  // The lowest numbers are the highest bits.
  return Math.min(leaving - ones(seen >> BigInt(hi - lowest + 1 - inWindow)), mostLost);
}

function ones(bits: bigint): number {
  let count = 0;
  for (let rest = bits; rest !== 0n; rest &= rest - 1n) count += 1;
  return count;
}

function hexOf(bits: bigint): string {
  return bits.toString(16).padStart(32, '0');
}
