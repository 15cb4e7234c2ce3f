/** Has the followers of a model answer calls with one release after the other, and never with none. */

import { abortWith, orAbort } from '../core/abort.ts';
import { closedError, isInlayError, StoreError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import type { Store } from '../core/store.ts';
import type { NewUpdateEvent } from './events.ts';
import { faultOf, isOfHost } from './fault.ts';
import type { Embedded, Follower, Opened, Target } from './follower.ts';
import { createTrialWatch, type TrialWatch } from './guards.ts';
import { baselineOf, observe } from './observe.ts';
import { readTarget } from './read-target.ts';
import type { LoadToken, Slots } from './slots.ts';
import type { Slot, SlotName, Trial } from './slot.ts';
import type { Sync } from './sync.ts';

/** How long a file that was verified need not be verified again, milliseconds. */
const FRESH_MS = 10_000;

/** What answers calls. */
export interface Running {
  readonly name: SlotName;
  readonly slot: Slot;
  readonly target: Target;
  readonly token: LoadToken;
  /** Judges it, while it is on trial. */
  readonly trial: TrialWatch | undefined;
  /** Run times of its latest calls, milliseconds. */
  readonly times: readonly number[];
}

/** What {@link createRunner} works with. */
export interface RunnerParts {
  readonly model: string;
  readonly platform: Platform;
  readonly store: Store;
  readonly sync: Pick<Sync, 'isSigned'>;
  readonly slots: Slots;
  readonly log: (event: Omit<NewUpdateEvent, 'model'>) => void;
  /** Tries a release where it can do no harm. @throws when it does not work there. */
  readonly prove: (target: Target) => Promise<void>;
  /** Called right before calls move over to what a slot holds. */
  readonly onEnter: (slot: Slot) => void;
  /** Called when there is a verdict on the trial that runs. */
  readonly onVerdict: () => Promise<void>;
  /** Hears of a follower that could not come along. */
  readonly onError: (error: unknown) => void;
}

/** Runs what it is told to. */
export interface Runner {
  running(): Running | undefined;
  /**
   * Opens what a slot holds in all followers, and sends their calls there; or else leaves everything as it was, and
   * writes down what was wrong.
   */
  enter(name: SlotName, slot: Slot, embedded: Embedded | undefined): Promise<void>;
  /** What runs is in another slot from now on, and on trial no more. */
  rename(name: SlotName): void;
  readonly followers: ReadonlySet<Follower>;
  add(follower: Follower): void;
  /** Has a follower answer with what runs. It does not wait for a release that is being tried. */
  bringIn(follower: Follower): Promise<void>;
  /** @returns whether it was the last one; then nothing runs any more. */
  remove(follower: Follower): boolean;
  /** A file was verified a moment ago. */
  verified(sha256: string): void;
  /** Whether a file was not there, or damaged, when it was wanted last. */
  isLost(sha256: string): boolean;
  /** Whether everything is being closed, and an error says no more than that. */
  isClosing(error: unknown): boolean;
  /** Aborted when everything is being closed. */
  readonly closing: AbortSignal;
  /** Ends what is being opened. */
  close(): void;
}

/** Creates the runner of one model. */
export function createRunner(parts: RunnerParts): Runner {
  const { model, platform, slots, log } = parts;
  const followers = new Set<Follower>();
  /** Followers that answer with what runs. */
  const inside = new Set<Follower>();
  const lost = new Set<string>();
  /** Files that were verified in this process and not opened yet. */
  const fresh = new Map<string, number>();
  const closes = new AbortController();
  let running: Running | undefined;

  const isClosing = (error: unknown): boolean =>
    closes.signal.aborted || (isInlayError(error) && error.code === 'ERR_INLAY_CLOSED');

  const read = async (
    name: SlotName,
    slot: Slot,
    embedded: Embedded | undefined,
  ): Promise<Omit<Running, 'token'>> => {
    const { release, file } = slot;
    // What has just been verified need not be read again.
    const verifiedMs = fresh.get(file.sha256) ?? -Infinity;
    fresh.delete(file.sha256);
    const isFresh = platform.monotonicMs() - verifiedMs < FRESH_MS;
    const found = await readTarget(parts, name, slot, embedded, isFresh);
    if (found === 'unsigned' && name !== 'embedded') await slots.discard(name);
    if (typeof found === 'string') {
      if (found === 'lost') {
        lost.add(file.sha256);
        log({ type: 'record-lost', slot: name, version: release.version, sha256: file.sha256 });
      }
      throw new StoreError(
        'ERR_INLAY_STORE_MISSING',
        `The file of version ${release.version} of model "${model}" is no longer in the store; it is fetched again.`,
      );
    }
    const proof = name === 'trial' ? (slot as Trial) : undefined;
    const begin = proof?.since === undefined ? undefined : { ...proof, at: proof.since };
    const baseline = baselineOf(running?.times ?? [], platform.memoryBytes?.());
    const trial = proof && createTrialWatch(proof.rules, baseline, begin);
    const times: number[] = [];
    const watch = observe({
      platform,
      times,
      trial: () => (closes.signal.aborted || running?.trial !== trial ? undefined : trial),
      onVerdict: parts.onVerdict,
    });
    return { name, slot, times, trial, target: { ...found, watch } };
  };

  const assertFollowed = (): void => {
    if (followers.size === 0) throw closedError(`Model "${model}"`);
  };

  /** Nobody waits for a release that opens slowly when everything is being closed. */
  const openIn = (follower: Follower, target: Target): Promise<Opened> =>
    orAbort(follower.open(target), closes.signal, (late) => void late.discard().catch(() => {}));

  const bringAlong = async (follower: Follower, present: Running): Promise<void> => {
    const opened = await openIn(follower, present.target);
    if (running !== present || !followers.has(follower)) {
      await opened.discard();
      return;
    }
    opened.enter();
    inside.add(follower);
  };

  return {
    running: () => running,
    enter: async (name, slot, embedded) => {
      const found = await read(name, slot, embedded);
      const { target } = found;
      const token = await slots.beginLoad(name, slot);
      const opened = new Map<Follower, Opened>();
      try {
        if (target.isNew) await orAbort(parts.prove(target), closes.signal);
        for (const follower of followers) opened.set(follower, await openIn(follower, target));
        // Without anybody left, nothing has answered, and nothing does.
        assertFollowed();
        await slots.loaded(token);
        assertFollowed();
      } catch (error) {
        for (const one of opened.values()) await one.discard().catch(() => {});
        if (isOfHost(error) || isClosing(error)) await slots.closed(token);
        else {
          const { reason, detail } = faultOf(error);
          await slots.failedLoad(token, reason, detail);
        }
        throw error;
      }
      parts.onEnter(slot);
      const late: Opened[] = [];
      for (const [follower, one] of opened) {
        if (followers.has(follower)) {
          one.enter();
          inside.add(follower);
        } else late.push(one);
      }
      const before = running;
      running = { ...found, token };
      lost.delete(slot.file.sha256);
      for (const one of late) await one.discard().catch(() => {});
      if (before) await slots.closed(before.token);
      // Whoever joined meanwhile has what ran before.
      for (const follower of followers) {
        if (inside.has(follower) && !opened.has(follower))
          await bringAlong(follower, running).catch(parts.onError);
      }
    },
    rename: (name) => {
      if (running) running = { ...running, name, trial: undefined };
    },
    followers,
    add: (follower) => {
      followers.add(follower);
    },
    bringIn: async (follower) => {
      while (running !== undefined && !inside.has(follower)) await bringAlong(follower, running);
    },
    remove: (follower) => {
      followers.delete(follower);
      inside.delete(follower);
      if (followers.size > 0) return false;
      running = undefined;
      return true;
    },
    verified: (sha256) => {
      fresh.set(sha256, platform.monotonicMs());
      lost.delete(sha256);
    },
    isLost: (sha256) => lost.has(sha256),
    isClosing,
    closing: closes.signal,
    close: () => {
      abortWith(closes, closedError('This Inlay'));
    },
  };
}
