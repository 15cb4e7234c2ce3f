/** A small typed event source. A listener that throws does not stop the others nor the emitter. */

/** Adds a listener; the returned function removes it. */
export interface Events<Map extends object> {
  on<Name extends keyof Map>(name: Name, listener: (event: Map[Name]) => void): () => void;
}

/** The owner's side of {@link Events}. */
export interface Emitter<Map extends object> extends Events<Map> {
  emit<Name extends keyof Map>(name: Name, event: Map[Name]): void;
}

/**
 * Creates an event source.
 * @param onListenerError gets what a listener throws; by default it is rethrown in a microtask of its own, where the
 * host's handler of uncaught errors sees it.
 */
export function createEmitter<Map extends object>(
  onListenerError: (error: unknown) => void = (error) => {
    void Promise.reject(error);
  },
): Emitter<Map> {
  const listeners: { [Name in keyof Map]?: Set<(event: Map[Name]) => void> } = {};
  return {
    on: (name, listener) => {
      const set = (listeners[name] ??= new Set());
      set.add(listener);
      return () => {
        set.delete(listener);
      };
    },
    emit: (name, event) => {
      for (const listener of [...(listeners[name] ?? [])]) {
        try {
          listener(event);
        } catch (error) {
          onListenerError(error);
        }
      }
    },
  };
}
