/** Abort signals of many calls at once, without a controller or a listener for each of them. */

import { abortWith } from './abort.ts';

/** Signals of calls that are given up together. */
export interface SharedSignals {
  /** Lends a signal to one call, which gives it back when it has settled. */
  take(): SharedSignal;
  giveBack(lent: SharedSignal): void;
  /** Aborts all calls that have a signal or still take one. */
  abort(reason: unknown): void;
}

/** A signal that a few calls share. */
export interface SharedSignal {
  readonly signal: AbortSignal;
}

/**
 * Calls that share a signal. Node warns of a leak at eleven listeners, and a call may add two; a controller for each
 * call would cost more than many a call does.
 */
const CALLS_PER_SIGNAL = 4;

interface Lent extends SharedSignal {
  readonly controller: AbortController;
  calls: number;
}

/** Creates signals, each when a call needs it. */
export function createSharedSignals(): SharedSignals {
  const all: Lent[] = [];
  const free: Lent[] = [];
  let aborted: { readonly reason: unknown } | undefined;

  const add = (): Lent => {
    const controller = new AbortController();
    if (aborted !== undefined) abortWith(controller, aborted.reason);
    const lent = { controller, signal: controller.signal, calls: 0 };
    all.push(lent);
    free.push(lent);
    return lent;
  };

  return {
    take: () => {
      const lent = free.at(-1) ?? add();
      lent.calls += 1;
      if (lent.calls === CALLS_PER_SIGNAL) free.pop();
      return lent;
    },
    giveBack: (shared) => {
      const lent = shared as Lent;
      if (lent.calls === CALLS_PER_SIGNAL) free.push(lent);
      lent.calls -= 1;
    },
    abort: (reason) => {
      if (aborted !== undefined) return;
      aborted = { reason };
      for (const { controller } of all) abortWith(controller, reason);
    },
  };
}

/** Hears of aborts on behalf of many. */
export interface SignalHub {
  /** Calls `onAbort` when the signal aborts. @returns stops listening, in O(1). */
  listen(signal: AbortSignal, onAbort: () => void): () => void;
}

interface Ear {
  readonly calls: Set<() => void>;
  readonly stop: () => void;
}

/** Creates a hub that puts one listener on each signal, however many calls were given the same one. */
export function createSignalHub(): SignalHub {
  const heard = new Map<AbortSignal, Ear>();

  const hear = (signal: AbortSignal): Ear => {
    const calls = new Set<() => void>();
    const abort = (): void => {
      heard.delete(signal);
      for (const call of calls) call();
    };
    signal.addEventListener('abort', abort, { once: true });
    const ear = {
      calls,
      stop: () => {
        heard.delete(signal);
        signal.removeEventListener('abort', abort);
      },
    };
    heard.set(signal, ear);
    return ear;
  };

  return {
    listen: (signal, onAbort) => {
      const { calls, stop } = heard.get(signal) ?? hear(signal);
      // One function may be passed twice; each time counts.
      const call = (): void => onAbort();
      calls.add(call);
      return () => {
        if (calls.delete(call) && calls.size === 0) stop();
      };
    },
  };
}
