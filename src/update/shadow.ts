/**
 * Runs what is staged beside what answers, for devices in the shadow of a rollout. Whatever it does, calls do not notice:
 * it gets copies of samples of them after they are answered, and what is wrong with it is held against it alone.
 */

import { orAbort } from '../core/abort.ts';
import type { Platform } from '../core/platform.ts';
import type { Store } from '../core/store.ts';
import { faultOf, isOfHost } from './fault.ts';
import type { CallWatch, Follower, Opened, Target } from './follower.ts';
import { createTrialWatch } from './guards.ts';
import { observe } from './observe.ts';
import { readTarget } from './read-target.ts';
import type { LoadToken, Slots } from './slots.ts';
import { isSameRelease, type Trial } from './slot.ts';
import type { Sync } from './sync.ts';

/** What {@link createShadow} works with. */
export interface ShadowParts {
  readonly model: string;
  readonly platform: Platform;
  readonly store: Store;
  readonly sync: Pick<Sync, 'isSigned'>;
  readonly slots: Slots;
  /** The first of them gets the shadow. */
  readonly followers: ReadonlySet<Follower>;
  /** Tries a release where it can do no harm. @throws when it does not work there. */
  readonly prove: (target: Target) => Promise<void>;
  /** Aborted when everything is being closed. */
  readonly closing: AbortSignal;
  readonly isClosing: (error: unknown) => boolean;
  /** Runs a task when it is its turn. Its failures are dealt with. */
  readonly inTurn: (task: () => Promise<void>) => Promise<void>;
  /** Hears why a release cannot run in the shadow. */
  readonly onError: (error: unknown) => void;
  /** Called after a release was rejected. */
  readonly onSettled: () => Promise<void>;
}

/** The shadow of one model. */
export interface Shadow {
  /**
   * Opens what is staged beside what answers, unless it is there already. To be called in turn.
   * @returns whether it did not work, and there may be something else to do.
   */
  begin(trial: Trial, sampleBp: number): Promise<boolean>;
  /** Closes what runs in the shadow, and frees its memory. To be called in turn; safe to call twice. */
  end(): Promise<void>;
  /** Lets a release be opened again that could not be since the last check. */
  forgive(): void;
  /** Who mirrors calls now. */
  follower(): Follower | undefined;
}

interface Present {
  readonly trial: Trial;
  readonly sampleBp: number;
  readonly follower: Follower;
  readonly opened: Opened;
  readonly token: LoadToken;
  readonly endGrace: () => void;
}

/** Creates the shadow of one model; nothing runs in it yet. */
export function createShadow(parts: ShadowParts): Shadow {
  const { platform, slots, followers, closing } = parts;
  /** Files that could not be opened since the last check. */
  const failed = new Set<string>();
  let present: Present | undefined;

  const end = async (): Promise<void> => {
    const { opened, token, endGrace } = present ?? {};
    present = undefined;
    endGrace?.();
    await opened?.discard().catch(() => {});
    if (token) await slots.closed(token);
  };

  /** Rejects a release as a trial does, for errors and for answers that are none; it serves nobody, so may be slow. */
  const watch = (trial: Trial): CallWatch => {
    const judged = createTrialWatch(trial.rules);
    const isPresent = (): boolean => isSameRelease(present?.trial, trial);
    return observe({
      platform,
      times: [],
      trial: () => (isPresent() ? judged : undefined),
      onVerdict: async () => {
        const verdict = judged.verdict(platform.now());
        if (typeof verdict === 'string') return;
        await parts.inTurn(async () => {
          if (!isPresent()) return;
          await end();
          await slots.reject(trial.release.sha256, verdict.reason, verdict.detail, trial.file.sha256);
        });
        await parts.onSettled();
      },
    });
  };

  const open = async (trial: Trial, sampleBp: number, follower: Follower, target: Target): Promise<void> => {
    const token = await slots.beginLoad('trial', trial);
    let opened: Opened;
    try {
      if (target.isNew) await orAbort(parts.prove(target), closing);
      opened = await orAbort(follower.open(target), closing, (late) => void late.discard().catch(() => {}));
    } catch (error) {
      if (isOfHost(error) || parts.isClosing(error)) await slots.closed(token);
      else {
        const { reason, detail } = faultOf(error);
        await slots.failedLoad(token, reason, detail);
      }
      throw error;
    }
    const settle = (): void => void slots.settled(token).catch(() => {});
    const endGrace = platform.setTimer(settle, trial.rules.graceS * 1000);
    present = { trial, sampleBp, follower, opened, token, endGrace };
    opened.mirror(sampleBp);
  };

  return {
    begin: async (trial, sampleBp) => {
      const isThere =
        present?.sampleBp === sampleBp &&
        isSameRelease(present.trial, trial) &&
        followers.has(present.follower);
      if (isThere) return false;
      await end();
      const [follower] = followers;
      if (follower === undefined || failed.has(trial.file.sha256)) return false;
      const found = await readTarget(parts, 'trial', trial, undefined, false);
      if (typeof found === 'string') {
        // It is fetched again.
        await (found === 'unsigned' ? slots.discard('trial') : slots.revert('committed'));
        return true;
      }
      try {
        await open(trial, sampleBp, follower, { ...found, watch: watch(trial) });
        return false;
      } catch (error) {
        failed.add(trial.file.sha256);
        parts.onError(error);
        return !parts.isClosing(error);
      }
    },
    end,
    forgive: () => failed.clear(),
    follower: () => present?.follower,
  };
}
