/** What adapters around inference libraries have in common. */

import type { Session, Slot } from './backend.ts';
import { BackendError, closedError } from './errors.ts';

/** A module, or how to load it when it is first needed. */
export type LibraryLoader<Module> = Module | (() => Promise<Module>);

/**
 * Makes a loader that loads once; a failed load is tried again by the next call.
 * @param packageName - package to install when it is missing.
 * @param family - packages that may be missing in its place, as a regular expression. Default: itself.
 */
export function createLoader<Module extends object>(
  library: LibraryLoader<Module>,
  packageName: string,
  family: string = packageName,
): () => Promise<Module> {
  let loading: Promise<Module> | undefined;
  // Async, so that a loader that throws at once fails like one that rejects.
  const load = async (): Promise<Module> => (typeof library === 'function' ? library() : library);
  return () =>
    (loading ??= load().catch((cause: unknown) => {
      loading = undefined;
      throw loadError(cause, packageName, family);
    }));
}

function loadError(cause: unknown, packageName: string, family: string): BackendError {
  const message = cause instanceof Error ? cause.message : String(cause);
  // A native binary that the package lacks for this platform has the same code, so the name has to match too.
  const missing = new RegExp(
    `(?:package|module|specifier|import|resolve) ['"](${family})(?:/[^'"]*)?['"]`,
    'i',
  ).exec(message)?.[1];
  return missing === undefined
    ? new BackendError(
        'ERR_INLAY_BACKEND_UNAVAILABLE',
        `${packageName} is installed but does not load here; see the cause, or use another backend.`,
        { cause, details: { packageName } },
      )
    : new BackendError(
        'ERR_INLAY_BACKEND_MISSING',
        `${missing} is not installed; run "npm install ${missing}".`,
        { cause },
      );
}

/** What {@link createSessionSet} makes. */
export interface SessionSet {
  /**
   * Opens a session and keeps track of it.
   * @throws `StateError` `ERR_INLAY_CLOSED` after {@link SessionSet.close}.
   */
  open(create: () => Promise<Session>): Promise<Session>;
  /** Releases every session, those that are still being created included. Safe to call twice. */
  close(): Promise<void>;
}

/** Tracks the sessions of one backend, so that closing the backend frees them. */
export function createSessionSet(backendName: string): SessionSet {
  const opened = new Set<Promise<Session>>();
  let closed: Promise<void> | undefined;
  const releaseAll = async (): Promise<void> => {
    for (const settled of await Promise.allSettled(opened)) {
      if (settled.status === 'fulfilled') await settled.value.release();
    }
    opened.clear();
  };
  return {
    open: async (create) => {
      if (closed !== undefined) throw closedError(`The backend ${backendName}`);
      const opening = create();
      opened.add(opening);
      try {
        const session = await opening;
        return {
          ...session,
          release: () => {
            opened.delete(opening);
            return session.release();
          },
        };
      } catch (error) {
        opened.delete(opening);
        throw error;
      }
    },
    close: () => (closed ??= releaseAll()),
  };
}

/**
 * Says that a provider cannot be used.
 * @param refusal - why, in words that complete "is not usable here: …".
 */
export function unusableError(provider: string, refusal: string): BackendError {
  return new BackendError(
    'ERR_INLAY_DEVICE_UNAVAILABLE',
    `The execution provider "${provider}" is not usable here: ${refusal}.`,
    { details: { provider } },
  );
}

/** The slot of one backend whose sessions run where they are called. */
export function callingThread(): readonly Slot[] {
  return [{ name: 'calling thread' }];
}
