/** Releases that did not prove themselves here, and when they may try again. */

import type { Rejected, RejectReason, SlotsState } from './slot.ts';

/** What rejections depend on. */
export interface SlotsContext {
  /** Milliseconds since 1970. */
  readonly now: number;
  /** Version of Inlay. */
  readonly sdk: string;
  /** Version of the app, where it says so. */
  readonly app?: string | undefined;
}

const hourMs = 3_600_000;
/** How long the first and the second rejection in a row hold; further ones hold until something changes. */
const holdsMs = [24 * hourMs, 72 * hourMs];
/** The same for what may have been bad luck, on a device that has nothing else: a kill from outside looks like a crash. */
const onlyHoldsMs = [hourMs / 6, hourMs, 6 * hourMs, ...holdsMs];
/** A rejection that still has longer to go was written by a clock that was wrong. */
const longestMs = 2 * 72 * hourMs;
/** Releases that are remembered. */
const capacity = 50;
const detailLength = 300;

/**
 * Finds the rejection of a release that holds now.
 * @param sha256 - of the release.
 * @param retryNonce - of the present plan: a higher one than that of the rejection ends it. Default 0.
 * @returns `undefined` if it may be tried.
 */
export function rejectionOf(
  { rejected }: Pick<SlotsState, 'rejected'>,
  sha256: string,
  context: SlotsContext,
  retryNonce = 0,
): Rejected | undefined {
  return rejected.find((one) => one.sha256 === sha256 && holds(one, context, retryNonce));
}

function holds(one: Rejected, context: SlotsContext, retryNonce: number): boolean {
  if (!isSameApp(one, context) || retryNonce > one.retryNonce) return false;
  if (one.until === null) return true;
  const leftMs = one.until - context.now;
  return leftMs > 0 && leftMs <= longestMs;
}

function isSameApp(one: Rejected, { sdk, app }: SlotsContext): boolean {
  return one.sdk === sdk && one.app === app;
}

/** Why a release is rejected. */
export interface Grounds {
  readonly reason: RejectReason;
  readonly detail: string;
  readonly retryNonce: number;
  /** Whether the device has nothing else to run, and the fault may have been bad luck. */
  readonly isOnly: boolean;
}

/** Adds a rejection in place of an earlier one of the same release, and forgets the oldest where there are too many. */
export function addRejection(
  state: SlotsState,
  { sha256, version, seq }: Pick<Rejected, 'sha256' | 'version' | 'seq'>,
  { reason, detail, retryNonce, isOnly }: Grounds,
  context: SlotsContext,
): SlotsState {
  const { now, sdk, app } = context;
  const before = state.rejected.find((one) => one.sha256 === sha256);
  // They are in a row only while nothing has changed that could have mended it.
  const isInRow = before && isSameApp(before, context) && retryNonce <= before.retryNonce;
  // The same one, made up for after a write that had failed only in part.
  if (isInRow && before.at === now && before.reason === reason) return state;
  const count = (isInRow ? before.count : 0) + 1;
  const holdMs = (isOnly ? onlyHoldsMs : holdsMs)[count - 1];
  const added: Rejected = {
    sha256,
    version,
    seq,
    reason,
    detail: detail.slice(0, detailLength),
    at: now,
    count,
    until: holdMs === undefined ? null : now + holdMs,
    retryNonce: Math.max(retryNonce, before?.retryNonce ?? 0),
    sdk,
    ...(app !== undefined && { app }),
  };
  const others = state.rejected.filter((one) => one !== before);
  return { ...state, rejected: [...others, added].slice(-capacity) };
}
