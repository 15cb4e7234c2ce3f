import type { Model, RunOptions } from '../engine/model.ts';
import type { ModelTypes, OutputName, OutputsOf } from '../engine/typed.ts';

/** What {@link useRun} knows of its calls. */
export interface RunState<M extends ModelTypes = ModelTypes> {
  /** Of the last call that was answered; `undefined` before there is one. */
  readonly outputs: OutputsOf<M, OutputName<M>> | undefined;
  /** Of the last call, if it failed. */
  readonly error: unknown;
  /** Whether newer outputs are on their way. */
  readonly isRunning: boolean;
}

/** Options of a call of {@link useRun}. */
export type RunCallOptions = Pick<RunOptions, 'deadlineMs' | 'priority' | 'transfer'>;

/** What becomes of a call under way when newer feeds come. */
export type ObsoleteCalls = 'finish' | 'abort';

/** Runs the newest feeds, one call at a time. */
export interface Runner<M extends ModelTypes> {
  state(): RunState<M>;
  subscribe(listener: () => void): () => void;
  /**
   * Runs with this model until the returned function is called, which gives up the call under way and the feeds that wait
   * for it.
   */
  attach(model: Model<M> | undefined): () => void;
  run(feeds: M['feeds'], options: RunCallOptions | undefined, obsolete: ObsoleteCalls): void;
}

/** Creates a runner, which does nothing before it has a model. */
export function createRunner<M extends ModelTypes>(): Runner<M> {
  const listeners = new Set<() => void>();
  let state: RunState<M> = { outputs: undefined, error: undefined, isRunning: false };
  let model: Model<M> | undefined;
  let answered: Model<M> | undefined;
  let call: AbortController | undefined;
  let waiting: { readonly feeds: M['feeds']; readonly options: RunCallOptions | undefined } | undefined;

  const show = (next: RunState<M>): void => {
    state = next;
    for (const listener of [...listeners]) listener();
  };

  const giveUp = (): void => {
    call?.abort();
    call = undefined;
  };

  const next = (): void => {
    if (model === undefined || call !== undefined || waiting === undefined) return;
    const { feeds, options } = waiting;
    waiting = undefined;
    const controller = new AbortController();
    call = controller;
    const finish = (result: Pick<RunState<M>, 'outputs' | 'error'>): void => {
      // A call that was given up has nothing to say any more.
      if (call !== controller) return;
      call = undefined;
      show({ ...result, isRunning: waiting !== undefined });
      next();
    };
    if (!state.isRunning) show({ ...state, isRunning: true });
    model.run(feeds, { ...options, signal: controller.signal }).then(
      (outputs) => finish({ outputs, error: undefined }),
      (error: unknown) => finish({ outputs: state.outputs, error }),
    );
  };

  return {
    state: () => state,
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    attach: (given) => {
      model = given;
      // What another model has answered is no answer of this one.
      if (given !== undefined && answered !== undefined && given !== answered) {
        show({ outputs: undefined, error: undefined, isRunning: false });
      }
      answered = given ?? answered;
      next();
      return () => {
        model = undefined;
        giveUp();
        // Feeds that came before there was a model wait for the first one; others are meant for the one that goes.
        if (given !== undefined) waiting = undefined;
        if (state.isRunning) show({ ...state, isRunning: false });
      };
    },
    run: (feeds, options, obsolete) => {
      waiting = { feeds, options };
      if (obsolete === 'abort') giveUp();
      next();
    },
  };
}
