/** The files that patches of releases to come start from: kept while there is room, and the first to go. */

import type { Store } from '../core/store.ts';
import type { EventLog } from './events.ts';
import { anchorsOf, type SlotsState } from './slot.ts';

/** The anchors of all models of an app. */
export interface Anchors {
  /** Keeps the anchors that a model's releases name now. What cannot be kept makes later downloads larger. */
  hold(model: string, state: SlotsState): Promise<void>;
  /**
   * Lets go of all of them, but not of this one: there is no room for a release. They are held again with the next
   * {@link Anchors.hold}, if they are still there.
   * @returns whether there was one.
   */
  release(but: string | undefined): Promise<boolean>;
}

/** What {@link createAnchors} works with. */
export interface AnchorsParts {
  readonly store: Pick<Store, 'blob' | 'pin'>;
  /** Who keeps them: channel and server. */
  readonly owner: string;
  readonly events: Pick<EventLog, 'add'>;
  /** `false`: none is held. */
  readonly isKept: boolean;
}

/** Creates what keeps anchors. Nothing is pinned before the first call. */
export function createAnchors({ store, owner, events, isKept }: AnchorsParts): Anchors {
  const held = new Map<string, readonly string[]>();
  const pin = async (model: string, sha256s: readonly string[]): Promise<void> => {
    held.set(model, sha256s);
    // No name of a model has a slash: it is nobody else's.
    await store.pin(`${owner}-${model}/anchor`, sha256s).catch(() => {});
  };
  return {
    hold: (model, state) => pin(model, isKept ? anchorsOf(state) : []),
    release: async (but) => {
      let isAny = false;
      for (const [model, sha256s] of held) {
        for (const sha256 of sha256s) {
          if (sha256 === but || (await store.blob(sha256)) === undefined) continue;
          events.add({ model, type: 'anchor-released', sha256, reason: 'no-room' });
          isAny = true;
        }
        await pin(
          model,
          sha256s.filter((sha256) => sha256 === but),
        );
      }
      return isAny;
    },
  };
}
