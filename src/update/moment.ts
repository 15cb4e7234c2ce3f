/** When a release may take the place of another one, and when to look again. */

import type { Platform } from '../core/platform.ts';
import type { Activation, Follower } from './follower.ts';
import type { Sync } from './sync.ts';

/** How often a model that waits for a quiet moment is looked at, and for how long it has to be quiet, milliseconds. */
const LOOK_MS = 250;
const QUIET_MS = 2000;
/** How old the news may be by which something begins, milliseconds: a release may have been halted while it came. */
const NEWS_MS = 60_000;

/** What {@link createMoment} works with. */
export interface MomentParts {
  readonly platform: Pick<Platform, 'now' | 'setTimer' | 'conditions'>;
  readonly sync: Pick<Sync, 'check' | 'info'>;
  readonly activation: Activation;
  readonly followers: ReadonlySet<Follower>;
  /** Called when something may have changed by itself. */
  readonly onDue: () => void;
}

/** The moments of one model. */
export interface Moment {
  /** Has things looked at again then, milliseconds since 1970; in place of what was waited for. */
  wait(dueAt: number | undefined): void;
  /**
   * Tells whether what is staged may begin. Where the model is to be quiet first, that is looked at again soon; where
   * the news are old, the server is asked, and whoever hears of checks looks again, whether it answered or not.
   */
  isConvenient(): boolean;
}

/** Creates the moments of one model; nothing is waited for yet. */
export function createMoment(parts: MomentParts): Moment {
  const { platform, sync, activation, followers, onDue } = parts;
  let cancel = (): void => {};
  const wait = (dueAt: number | undefined): void => {
    cancel();
    if (dueAt === undefined) return;
    cancel = platform.setTimer(onDue, Math.max(0, dueAt - platform.now()));
  };
  const isQuiet = (): boolean => {
    if (activation !== 'idle') return activation === 'now';
    const areIdle = [...followers].every((follower) => follower.idleMs() >= QUIET_MS);
    if (areIdle && platform.conditions?.().isIdle !== false) return true;
    wait(platform.now() + LOOK_MS);
    return false;
  };
  const isInformed = (): boolean => {
    const { lastCheckAt = -Infinity, isPaused } = sync.info();
    if (isPaused || Math.abs(platform.now() - lastCheckAt) <= NEWS_MS) return true;
    void sync.check().catch(() => {});
    return false;
  };
  return { wait, isConvenient: () => isQuiet() && isInformed() };
}
