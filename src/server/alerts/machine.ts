/** The life of one alert, as a function of what is observed. */

import { LEVELS, type Level } from './rule.ts';

/** Rank of a level: 0 for none, 3 for an emergency. */
export type Rank = 0 | 1 | 2 | 3;

/** Finds the rank of a level. */
export function rankOf(level: Level): Rank {
  return (LEVELS.indexOf(level) + 1) as Rank;
}

/** Finds the level of a rank above 0. */
export function levelOf(rank: Rank): Level {
  return LEVELS[Math.max(0, rank - 1)] as Level;
}

/** What a rule sees at one moment. */
export interface Sight {
  /** Highest level whose thresholds are reached. */
  readonly rank: Rank;
  /** Highest level that has not cleared; at least {@link Sight.rank}. */
  readonly kept: Rank;
}

/** State of an alert. */
export interface AlertState {
  readonly state: 'inactive' | 'pending' | 'firing' | 'acked' | 'resolved';
  /** Highest level in force; 0 unless it is firing or acknowledged. */
  readonly rank: Rank;
  /** Since when a level at least as high as each has held, by rank from 1; 0 for not now. */
  readonly heldSince: readonly [number, number, number];
  /** Since when the level in force has been clear; 0 for not. */
  readonly clearSince: number;
  /** When it began to fire, last time. */
  readonly firedAt: number;
  /** When there was data last. */
  readonly seenAt: number;
}

/** What happened to an alert in one step. */
export type Happening = 'pending' | 'cancelled' | 'firing' | 'raised' | 'lowered' | 'resolved' | 'expired';

/** An alert that ends because nothing is known of it any more, after so many milliseconds without data. */
export const EXPIRY_MS = 86_400_000;

/** How long a level has to hold, and to be clear, milliseconds. */
export interface Delays {
  readonly forMs: number;
  readonly clearMs: number;
}

/** An alert of which nothing is known yet. */
export const inactive: AlertState = {
  state: 'inactive',
  rank: 0,
  heldSince: [0, 0, 0],
  clearSince: 0,
  firedAt: 0,
  seenAt: 0,
};

/**
 * Goes one step. Raising needs a level to hold for `forMs`; lowering and resolving need it to be clear for `clearMs`. Without
 * data (`undefined`) nothing begins and nothing ends, as nothing is known; after a day it expires.
 */
export function step(
  before: AlertState,
  sight: Sight | undefined,
  { forMs, clearMs }: Delays,
  now: number,
): { readonly after: AlertState; readonly happened: Happening | undefined } {
  if (!sight) return blind(before, now);
  const heldSince = held(before.heldSince, sight.rank, now);
  const reached = heldSince.reduce<number>(
    (highest, since, i) => (since > 0 && now - since >= forMs ? i + 1 : highest),
    0,
  ) as Rank;
  const known = { ...before, heldSince, seenAt: now };
  if (!isOn(before)) {
    if (reached > 0) return fired(known, reached, 'firing', now);
    const state = sight.rank > 0 ? 'pending' : before.state === 'pending' ? 'inactive' : before.state;
    const happened = state === before.state ? undefined : state === 'pending' ? 'pending' : 'cancelled';
    return { after: { ...known, state }, happened };
  }
  if (reached > before.rank) return fired(known, reached, 'raised', now);
  if (sight.kept >= before.rank) return { after: { ...known, clearSince: 0 }, happened: undefined };
  const clearSince = before.clearSince || now;
  if (now - clearSince < clearMs) return { after: { ...known, clearSince }, happened: undefined };
  return sight.kept === 0
    ? { after: { ...known, state: 'resolved', rank: 0, clearSince: 0 }, happened: 'resolved' }
    : { after: { ...known, rank: sight.kept, clearSince: 0 }, happened: 'lowered' };
}

/** Tells whether an alert is in force. */
export function isOn({ state }: Pick<AlertState, 'state'>): boolean {
  return state === 'firing' || state === 'acked';
}

function held(before: AlertState['heldSince'], rank: Rank, now: number): AlertState['heldSince'] {
  const since = (of: 1 | 2 | 3): number => (rank >= of ? before[of - 1] || now : 0);
  return [since(1), since(2), since(3)];
}

/** A higher level is news: whoever acknowledged the lower one has not seen it. */
function fired(
  known: AlertState,
  rank: Rank,
  happened: 'firing' | 'raised',
  now: number,
): ReturnType<typeof step> {
  const firedAt = happened === 'firing' ? now : known.firedAt;
  return { after: { ...known, state: 'firing', rank, clearSince: 0, firedAt }, happened };
}

/** What holds without data cannot be said to have gone on holding, or to have been clear. */
function blind(before: AlertState, now: number): ReturnType<typeof step> {
  const known: AlertState = { ...before, heldSince: [0, 0, 0], clearSince: 0 };
  if (before.state === 'pending') return { after: { ...known, state: 'inactive' }, happened: 'cancelled' };
  if (!isOn(before) || now - before.seenAt < EXPIRY_MS) return { after: known, happened: undefined };
  return { after: { ...known, state: 'resolved', rank: 0 }, happened: 'expired' };
}
