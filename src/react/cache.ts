import type { Inlay } from '../engine/inlay.ts';
import type { Model } from '../engine/model.ts';
import { createEntry, LOADING, type Entry, type Snapshot, type Wish } from './entry.ts';
import { createKeys } from './key.ts';

/** The models that the components of one Inlay share. */
export interface ModelCache {
  readonly keyOf: (value: unknown) => string;
  /** What is known of a model, without loading it. */
  peek(key: string): Snapshot;
  /** Loads the model, unless it is there, and keeps it until the returned function is called. */
  hold(wish: Wish, listener: () => void): () => void;
  /**
   * Gives the model, loaded for a component that suspends.
   * @throws a promise while it is loading, its error when it failed.
   */
  read(wish: Wish): Model;
  retry(key: string): void;
  /** Lets go of the loads that failed and that nobody holds. */
  forgive(): void;
}

/** An Inlay that is gone takes its models with it. */
const caches = /* @__PURE__ */ new WeakMap<Inlay, ModelCache>();

/** The cache of an Inlay. */
export function cacheOf(inlay: Inlay): ModelCache {
  const cache = caches.get(inlay) ?? createCache(inlay);
  caches.set(inlay, cache);
  return cache;
}

function createCache(inlay: Inlay): ModelCache {
  const entries = new Map<string, Entry>();

  const enter = (wish: Wish): Entry => {
    const present = entries.get(wish.key);
    if (present !== undefined) return present;
    const entry = createEntry(inlay, wish, () => {
      if (entries.get(wish.key) === entry) entries.delete(wish.key);
    });
    entries.set(wish.key, entry);
    return entry;
  };

  return {
    keyOf: createKeys(),
    peek: (key) => entries.get(key)?.snapshot() ?? LOADING,
    hold: (wish, listener) => enter(wish).hold(listener, wish.keepMs),
    read: (wish) => {
      const entry = enter(wish);
      entry.expect();
      const snapshot = entry.snapshot();
      if (snapshot.status === 'ready') return snapshot.model;
      // What suspends a component, in every version of React.
      throw snapshot.status === 'loading' ? entry.settled() : snapshot.error;
    },
    retry: (key) => entries.get(key)?.retry(),
    forgive: () => {
      for (const entry of [...entries.values()]) entry.forgive();
    },
  };
}
