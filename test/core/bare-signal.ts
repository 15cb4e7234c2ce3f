/** Abort signals as React Native has them: no `reason`, no `throwIfAborted`, and `abort` takes no reason. */

/** An AbortController of React Native. */
export class BareController {
  readonly signal: AbortSignal;
  readonly abort: () => void;

  constructor() {
    const listeners = new Set<() => void>();
    const signal = {
      aborted: false,
      addEventListener: (_: 'abort', listener: () => void) => void listeners.add(listener),
      removeEventListener: (_: 'abort', listener: () => void) => void listeners.delete(listener),
    };
    this.signal = signal as unknown as AbortSignal;
    this.abort = () => {
      if (signal.aborted) return;
      signal.aborted = true;
      for (const listener of [...listeners]) listener();
    };
  }
}

/** A signal of React Native that has aborted. */
export function abortedBare(): AbortSignal {
  const controller = new BareController();
  controller.abort();
  return controller.signal;
}
