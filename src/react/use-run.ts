import { useCallback, useEffect, useMemo, useState, useSyncExternalStore } from 'react';
import type { Model } from '../engine/model.ts';
import type { ModelTypes } from '../engine/typed.ts';
import { createRunner, type ObsoleteCalls, type RunCallOptions, type RunState } from './runner.ts';

/** Options of {@link useRun}. */
export interface UseRunOptions {
  /**
   * What becomes of a call under way when newer feeds come. `finish` lets it answer first, so that a stream that is faster
   * than the model shows an answer now and then; `abort` gives it up by its signal, so that only the newest feeds are ever answered.
   * Default `finish`.
   */
  readonly obsolete?: ObsoleteCalls;
}

/** What {@link useRun} gives. */
export interface RunResult<M extends ModelTypes = ModelTypes> extends RunState<M> {
  /**
   * Runs the model on these feeds, as soon as it is there and free. Feeds that still wait then are replaced by newer ones.
   * Always the same function.
   */
  readonly run: (feeds: M['feeds'], options?: RunCallOptions) => void;
}

/**
 * Runs a model on input that changes all the time: a camera, a slider, what somebody types. There is one call at a time,
 * the newest feeds wait for it, and older ones are dropped. When the component goes or gets another model, the call under way
 * and the feeds that wait for it are given up.
 * @param model may be `undefined` while it is loading; the newest feeds wait for it.
 * @example
 * import { useModel, useRun } from 'inlay/react';
 * function useDigit() {
 *   const { model } = useModel('/digits.onnx');
 *   const { run, outputs, error, isRunning } = useRun(model);
 *   return { onDraw: () => run({ image: pixels }), logits: outputs?.logits };
 * }
 */
export function useRun<M extends ModelTypes = ModelTypes>(
  model: Model<M> | undefined,
  { obsolete = 'finish' }: UseRunOptions = {},
): RunResult<M> {
  const [runner] = useState(() => createRunner<M>());
  const state = useSyncExternalStore(runner.subscribe, runner.state, runner.state);
  useEffect(() => runner.attach(model), [runner, model]);
  const run = useCallback<RunResult<M>['run']>(
    (feeds, options) => runner.run(feeds, options, obsolete),
    [runner, obsolete],
  );
  return useMemo(() => ({ ...state, run }), [state, run]);
}
