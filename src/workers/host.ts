/** The worker's half: a backend whose sessions are reached by number. */
import type { Backend, ExecutionProvider, ModelSource, Session, SessionOptions } from '../core/backend.ts';
import { closedError } from '../core/errors.ts';
import type { Signature } from '../core/signature.ts';
import { packTensors, serve, toTensors, type Endpoint, type Packed, type WireTensors } from './link.ts';

/** A session as the other side knows it. */
export interface RemoteSession {
  readonly id: number;
  readonly signature: Signature;
  readonly intraOpThreads?: number;
  readonly threadsReason?: string;
}

/** What a worker offers. One call is carried out at a time, in the order in which they arrive. */
export interface HostApi {
  providers(): Promise<readonly ExecutionProvider[]>;
  create(source: ModelSource, options: SessionOptions): Promise<RemoteSession>;
  run(id: number, feeds: WireTensors, outputs?: readonly string[]): Promise<Packed<WireTensors>>;
  release(id: number): Promise<void>;
  close(): Promise<void>;
}

/** Brackets native code, so that the thread is not ended in the middle of it. */
export interface Guard {
  /** Waits for good if the thread is about to be ended. */
  enter(): void;
  leave(): void;
}

/** For threads that may be ended at any moment, as those with WebAssembly may. */
export const NO_GUARD: Guard = { enter: () => {}, leave: () => {} };

/**
 * Serves a backend to the other end of a link.
 * @param guard - brackets every call into the backend.
 */
export function hostBackend(backend: Backend, endpoint: Endpoint, guard: Guard): void {
  const sessions = new Map<number, Session>();
  let nextId = 1;
  let turn: Promise<unknown> = Promise.resolve();

  const inTurn = <Args extends unknown[], T>(task: (...args: Args) => Promise<T>) => {
    return (...args: Args): Promise<T> => {
      const start = async (): Promise<T> => {
        guard.enter();
        try {
          return await task(...args);
        } finally {
          guard.leave();
        }
      };
      const done = turn.then(start, start);
      turn = done;
      return done;
    };
  };
  const sessionOf = (id: number): Session => {
    const session = sessions.get(id);
    if (session === undefined) throw closedError('The session');
    return session;
  };

  const api: HostApi = {
    providers: inTurn(() => backend.providers()),
    create: inTurn(async (source, options) => {
      const session = await backend.createSession(source, options);
      const id = nextId;
      nextId += 1;
      sessions.set(id, session);
      const { signature, intraOpThreads, threadsReason } = session;
      return {
        id,
        signature,
        ...(intraOpThreads !== undefined && { intraOpThreads }),
        ...(threadsReason !== undefined && { threadsReason }),
      };
    }),
    run: inTurn(async (id, feeds, outputs) => {
      const results = await sessionOf(id).run(toTensors(feeds), outputs === undefined ? {} : { outputs });
      return packTensors(results, 'large');
    }),
    release: inTurn(async (id) => {
      const session = sessions.get(id);
      sessions.delete(id);
      await session?.release();
    }),
    close: inTurn(async () => {
      sessions.clear();
      await backend.close();
    }),
  };
  serve(api, endpoint, 'run');
}
