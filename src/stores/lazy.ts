import { closedError } from '../core/errors.ts';
import type { Store } from '../core/store.ts';

/**
 * Opens a store when it is first used, so that an app that keeps nothing does not load what keeps things. An opening
 * that fails is tried again by the next call.
 * @param kind what `info()` says until then.
 */
export function openLazily(kind: string, open: () => Promise<Store>): Store {
  let opening: Promise<Store> | undefined;
  let store: Store | undefined;
  let closed = false;

  const opened = async (): Promise<Store> => {
    if (closed) throw closedError(`The ${kind} store`);
    opening ??= open().then(
      (result) => (store = result),
      (error: unknown) => {
        opening = undefined;
        throw error;
      },
    );
    return opening;
  };

  return {
    info: () => store?.info() ?? { kind },
    blob: async (sha256) => (await opened()).blob(sha256),
    putBlob: async (sha256, content) => (await opened()).putBlob(sha256, content),
    openPartial: async (sha256, sizeBytes) => (await opened()).openPartial(sha256, sizeBytes),
    deleteBlob: async (sha256) => (await opened()).deleteBlob(sha256),
    describeBlobs: async () => (await opened()).describeBlobs(),
    pin: async (owner, blobs) => (await opened()).pin(owner, blobs),
    reserve: async (sizeBytes) => (await opened()).reserve(sizeBytes),
    persist: async () => (await opened()).persist(),
    readRecord: async (name) => (await opened()).readRecord(name),
    updateRecord: async (name, change) => (await opened()).updateRecord(name, change),
    close: async () => {
      closed = true;
      await (await opening?.catch(() => undefined))?.close();
    },
  };
}
