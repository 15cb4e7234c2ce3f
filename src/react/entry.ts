import type { Inlay, LoadOptions } from '../engine/inlay.ts';
import type { ModelReference } from '../engine/reference.ts';
import type { Model } from '../engine/model.ts';
import type { LoadProgress } from '../engine/progress.ts';
import { isVisible } from './progress.ts';

/** What components see of one model. A new object for each change. */
export type Snapshot =
  | { readonly status: 'loading'; readonly progress: LoadProgress | undefined }
  | { readonly status: 'ready'; readonly model: Model; readonly version: string | undefined }
  | { readonly status: 'error'; readonly error: unknown };

export const LOADING: Snapshot = { status: 'loading', progress: undefined };

/** Options of a load that components cannot bring: the cache has them. */
export type HookLoadOptions = Omit<LoadOptions, 'signal' | 'onProgress'>;

/** A model that components ask for. */
export interface Wish {
  /** Equal for equal references and options. */
  readonly key: string;
  readonly reference: ModelReference;
  readonly options: HookLoadOptions;
  /** Milliseconds that the model stays after the last component has let it go. */
  readonly keepMs: number;
}

/** One model that components share. */
export interface Entry {
  snapshot(): Snapshot;
  /** Resolves when the load under way has ended, well or not. */
  settled(): Promise<void>;
  /** Keeps the model until the returned function is called. */
  hold(listener: () => void, keepMs: number): () => void;
  /** Keeps the model for a while, for a component that waits for it and cannot hold it before it is there. */
  expect(): void;
  /** Loads once more, after a failure. */
  retry(): void;
  /** Lets go of a load that failed, if nobody holds it. */
  forgive(): void;
}

/**
 * How long a model waits for a component that suspended for it. React says nothing when it gives such a component up; one
 * that comes later loads again.
 */
const EXPECTED_MS = 10_000;

/**
 * Loads a model and counts who needs it.
 * @param forget is called once, when nobody does any more and the model is being closed.
 */
export function createEntry(
  inlay: Inlay,
  { reference, options }: Pick<Wish, 'reference' | 'options'>,
  forget: () => void,
): Entry {
  const holders = new Set<{ notify(): void }>();
  let snapshot: Snapshot = LOADING;
  let leaving: ReturnType<typeof setTimeout> | undefined;
  let expectedMs = 0;
  let release = (): void => {};
  let settled = Promise.resolve();

  const publish = (next: Snapshot): void => {
    snapshot = next;
    for (const holder of [...holders]) holder.notify();
  };

  const load = (): void => {
    const controller = new AbortController();
    const { signal } = controller;
    release = () => controller.abort();
    if (snapshot.status !== 'loading') publish(LOADING);
    const onProgress = (progress: LoadProgress): void => {
      if (signal.aborted || snapshot.status !== 'loading') return;
      if (isVisible(progress, snapshot.progress)) publish({ status: 'loading', progress });
    };
    const withProgress: LoadOptions & { onProgress: typeof onProgress } = { ...options, signal, onProgress };
    settled = inlay.load(reference, withProgress).then(
      (model) => {
        const close = (): void => void model.close().catch(() => {});
        if (signal.aborted) return close();
        const show = (): void => publish({ status: 'ready', model, version: model.version });
        const unlisten = model.on('swapped', show);
        release = () => {
          unlisten();
          close();
        };
        show();
      },
      (error: unknown) => {
        if (!signal.aborted) publish({ status: 'error', error });
      },
    );
  };

  const drop = (): void => {
    forget();
    release();
  };
  const stay = (): void => {
    clearTimeout(leaving);
    leaving = undefined;
  };
  const leave = (afterMs: number): void => {
    stay();
    if (holders.size === 0) leaving = setTimeout(drop, afterMs);
  };

  load();
  return {
    snapshot: () => snapshot,
    settled: () => settled,
    hold: (notify, keepMs) => {
      const holder = { notify };
      holders.add(holder);
      expectedMs = 0;
      stay();
      return () => {
        // At once would load twice where a component is mounted twice, as in strict mode.
        if (holders.delete(holder)) leave(Math.max(keepMs, expectedMs));
      };
    },
    expect: () => {
      expectedMs = EXPECTED_MS;
      void settled.then(() => leave(EXPECTED_MS));
    },
    retry: () => {
      if (snapshot.status === 'error') load();
    },
    forgive: () => {
      if (snapshot.status !== 'error' || holders.size > 0) return;
      stay();
      drop();
    },
  };
}
