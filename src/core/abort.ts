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
      reject(signal.reason as Error);
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
