import { useCallback, useMemo, useSyncExternalStore } from 'react';
import { ModelError } from '../core/errors.ts';
import type { Inlay } from '../engine/inlay.ts';
import type { ModelReference } from '../engine/reference.ts';
import type { Model } from '../engine/model.ts';
import type { ModelTypes } from '../engine/typed.ts';
import { cacheOf, type ModelCache } from './cache.ts';
import { LOADING, type HookLoadOptions, type Snapshot, type Wish } from './entry.ts';
import type { LoadProgress } from '../engine/progress.ts';
import { useInlay } from './provider.ts';

/** Options of {@link useModel}: those of `inlay.load`, and how components share. */
export interface UseModelOptions extends HookLoadOptions {
  /** Default: that of the closest {@link InlayProvider}. */
  readonly inlay?: Inlay;
  /**
   * Milliseconds that the model stays loaded after the last component that uses it is gone. Default 0: it goes with the next
   * task, so that another component of the same update can take it over.
   */
  readonly keepMs?: number;
}

/** What {@link useModel} gives. */
export type ModelState<M extends ModelTypes = ModelTypes> = {
  /** Loads once more after a failure; does nothing otherwise. Always the same function for one model. */
  readonly retry: () => void;
} & (
  | {
      readonly status: 'loading';
      /** `undefined` until something is known. */
      readonly progress: LoadProgress | undefined;
      readonly model: undefined;
      readonly version: undefined;
      readonly error: undefined;
    }
  | {
      readonly status: 'ready';
      readonly progress: undefined;
      /** Belongs to all components that asked for it: do not close it. */
      readonly model: Model<M>;
      /** Version that answers now; the component is rendered again when it changes. */
      readonly version: string | undefined;
      readonly error: undefined;
    }
  | {
      readonly status: 'error';
      readonly progress: undefined;
      readonly model: undefined;
      readonly version: undefined;
      /** What `inlay.load` rejected with. */
      readonly error: unknown;
    }
);

/**
 * Loads a model while the component is mounted. Components with equal references and options share one model; it is
 * closed when the last of them is gone, and a load that nobody waits for any more is given up.
 *
 * Bytes and functions in `reference` and `options` are compared by identity, so keep them outside of the component. On a
 * server it is `loading`, and nothing is touched.
 * @throws `TypeError` if there is no Inlay.
 * @example
 * import { useModel } from 'inlay/react';
 * function Status() {
 *   const { status, model, progress, error, retry } = useModel({ name: 'digits' });
 *   return status === 'ready' ? `Version ${model.version}` : status;
 * }
 */
export function useModel<M extends ModelTypes = ModelTypes>(
  reference: ModelReference,
  options: UseModelOptions = {},
): ModelState<M> {
  const { cache, wish } = useWish(reference, options);
  const snapshot = useSnapshot(cache, wish, () => LOADING);
  const retry = useCallback(() => cache.retry(wish.key), [cache, wish.key]);
  return useMemo(() => stateOf<M>(snapshot, retry), [snapshot, retry]);
}

/**
 * As {@link useModel}, for components inside of a `Suspense` boundary: it suspends while the model is loading, and throws the
 * error to the closest error boundary, whose reset calls {@link resetFailedModels}. A model that was loaded for a component
 * which never appeared is closed ten seconds later.
 *
 * A server cannot load models for a page: there, `Suspense` gives its fallback, and the browser goes on from it.
 * @throws `TypeError` if there is no Inlay, what `inlay.load` rejected with, and on a server {@link ModelError}
 * `ERR_INLAY_MODEL_UNAVAILABLE`, which React turns into the fallback.
 * @example
 * import { useModelSuspense } from 'inlay/react';
 * function Version() {
 *   return useModelSuspense('/digits.onnx').variant;
 * }
 */
export function useModelSuspense<M extends ModelTypes = ModelTypes>(
  reference: ModelReference,
  options: UseModelOptions = {},
): Model<M> {
  const { cache, wish } = useWish(reference, options);
  const snapshot = useSnapshot(cache, wish, failOnServer);
  return (snapshot.status === 'ready' ? snapshot.model : cache.read(wish)) as Model<M>;
}

function useWish(
  reference: ModelReference,
  { inlay: given, keepMs = 0, ...options }: UseModelOptions,
): { readonly cache: ModelCache; readonly wish: Wish } {
  const cache = cacheOf(useInlay(given));
  const key = cache.keyOf([reference, options]);
  return { cache, wish: { key, reference, options, keepMs } };
}

function useSnapshot(cache: ModelCache, wish: Wish, onServer: () => Snapshot): Snapshot {
  const { key, keepMs } = wish;
  // The key stands for the reference and the options, which may be new objects for each render.
  const subscribe = useCallback((listener: () => void) => cache.hold(wish, listener), [cache, key, keepMs]);
  return useSyncExternalStore(subscribe, () => cache.peek(key), onServer);
}

function failOnServer(): never {
  throw new ModelError(
    'ERR_INLAY_MODEL_UNAVAILABLE',
    'A model is loaded where the page is shown, not on the server that renders it; put a Suspense boundary around the component.',
  );
}

function stateOf<M extends ModelTypes>(snapshot: Snapshot, retry: () => void): ModelState<M> {
  const nothing = { progress: undefined, model: undefined, version: undefined, error: undefined, retry };
  if (snapshot.status !== 'ready') return { ...nothing, ...snapshot };
  return { ...nothing, ...snapshot, model: snapshot.model as Model<M> };
}
