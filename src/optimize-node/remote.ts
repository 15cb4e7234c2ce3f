/** A runtime that is somewhere else, behind questions and answers: in another process, in a page of a browser. */

import type { TensorMap } from '../core/backend.ts';
import { closedError, isInlayError } from '../core/errors.ts';
import type { OpenOptions, OptimizationLevel, OptimizeRuntime, RuntimeSession } from '../optimize/runtime.ts';

/** What a runtime elsewhere can be asked for, each with its answer. */
export interface Verbs {
  readonly open: {
    readonly body: { readonly model: Uint8Array; readonly options: OpenOptions };
    readonly answer: Pick<RuntimeSession, 'inputs' | 'outputs'> & { readonly session: number };
  };
  readonly run: {
    readonly body: SessionBody & { readonly feeds: TensorMap; readonly outputs?: readonly string[] };
    readonly answer: TensorMap;
  };
  readonly time: {
    readonly body: SessionBody & { readonly feeds: TensorMap; readonly runs: number };
    readonly answer: readonly number[];
  };
  readonly release: { readonly body: SessionBody; readonly answer: null };
  readonly optimized: {
    readonly body: { readonly model: Uint8Array; readonly level: OptimizationLevel };
    readonly answer: Uint8Array;
  };
  readonly memory: { readonly body: object; readonly answer: number };
}

interface SessionBody {
  readonly session: number;
}

/** Name of something that is asked for. */
export type Verb = keyof Verbs;

/** Asks one question. Rejects with what the other side throws. */
export type Ask = <Name extends Verb>(
  verb: Name,
  body: Verbs[Name]['body'],
) => Promise<Verbs[Name]['answer']>;

/** What {@link createRemoteRuntime} takes. */
export interface Remote extends Pick<OptimizeRuntime, 'target' | 'description' | 'close'> {
  /** The other side as it is now. Sessions keep to the one that they were opened with. */
  connect(): Ask;
  /** Which of the optional parts the other side has. */
  readonly can: readonly ('optimized' | 'memory')[];
}

/** Makes a runtime of one that is elsewhere. */
export function createRemoteRuntime({ target, description, connect, can, close }: Remote): OptimizeRuntime {
  let closing: Promise<void> | undefined;
  const connected = (): Ask => {
    if (closing !== undefined) throw closedError('The runtime');
    return connect();
  };

  const open = async (model: Uint8Array, options: OpenOptions = {}): Promise<RuntimeSession> => {
    const ask = connected();
    const { session, inputs, outputs } = await ask('open', { model, options });
    let releasing: Promise<void> | undefined;
    const assertOpen = (): void => {
      if (releasing !== undefined || closing !== undefined) throw closedError('The session');
    };
    const release = async (): Promise<void> => {
      try {
        // What is closed has released everything, and what was lost is released with it.
        if (closing === undefined) await ask('release', { session });
      } catch (error) {
        if (!isInlayError(error) || error.code !== 'ERR_INLAY_WORKER_LOST') throw error;
      }
    };
    return {
      inputs,
      outputs,
      run: async (feeds, names) => {
        assertOpen();
        return ask('run', { session, feeds, ...(names && { outputs: names }) });
      },
      time: async (feeds, runs) => {
        assertOpen();
        return ask('time', { session, feeds, runs });
      },
      release: () => (releasing ??= release()),
    };
  };

  return {
    target,
    description,
    open,
    ...(can.includes('optimized') && {
      optimized: async (model: Uint8Array, level: OptimizationLevel) =>
        connected()('optimized', { model, level }),
    }),
    ...(can.includes('memory') && { memoryBytes: async () => connected()('memory', {}) }),
    close: () => (closing ??= close()),
  };
}

/** Answers questions with a runtime that is here. */
export function serveRuntime(runtime: OptimizeRuntime): Ask {
  const sessions = new Map<number, RuntimeSession>();
  let last = 0;
  const sessionOf = ({ session }: SessionBody): RuntimeSession => {
    const found = sessions.get(session);
    if (found === undefined) throw closedError('The session');
    return found;
  };
  const answers: { readonly [Name in Verb]: (body: Verbs[Name]['body']) => Promise<Verbs[Name]['answer']> } =
    {
      open: async ({ model, options }) => {
        const opened = await runtime.open(model, options);
        last += 1;
        sessions.set(last, opened);
        return { session: last, inputs: opened.inputs, outputs: opened.outputs };
      },
      run: (body) => sessionOf(body).run(body.feeds, body.outputs),
      time: (body) => sessionOf(body).time(body.feeds, body.runs),
      release: async (body) => {
        const found = sessionOf(body);
        sessions.delete(body.session);
        await found.release();
        return null;
      },
      optimized: async ({ model, level }) => {
        if (runtime.optimized === undefined) throw new TypeError('The runtime does not give its graph.');
        return runtime.optimized(model, level);
      },
      memory: async () => (await runtime.memoryBytes?.()) ?? 0,
    };
  return async (verb, body) => answers[verb](body);
}
