/** What aborts are told by, also in React Native, whose signals have neither `reason` nor `throwIfAborted`. */

/** Why a signal aborted: its reason, or an `AbortError` where the runtime keeps none. */
export function reasonOf(signal: AbortSignal | undefined): unknown {
  const reason: unknown = signal?.reason;
  if (reason !== undefined) return reason;
  // A DOMException is made where signals have reasons; the others lack that, too.
  return Object.assign(new Error('This operation was aborted.'), { name: 'AbortError' });
}

/** @throws the signal's reason if it has aborted. */
export function assertNotAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw reasonOf(signal);
}

/** Aborts for a reason, which {@link reasonOf} then gives in every runtime. */
export function abortWith(controller: AbortController, reason: unknown): void {
  const { signal } = controller;
  if (!('reason' in signal)) Object.defineProperty(signal, 'reason', { value: reason });
  controller.abort(reason);
}

/**
 * Settles with the task, or rejects with the signal's reason if that comes first.
 * @param drop gets what the task gives nevertheless, so that it can be freed.
 */
export function orAbort<T>(
  task: Promise<T>,
  signal: AbortSignal,
  drop: (late: T) => void = () => {},
): Promise<T> {
  return new Promise((resolve, reject) => {
    let isAborted = false;
    const abort = (): void => {
      isAborted = true;
      reject(reasonOf(signal));
    };
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
    task
      .then((value) => (isAborted ? drop(value) : resolve(value)), reject)
      .finally(() => {
        signal.removeEventListener('abort', abort);
      });
  });
}
