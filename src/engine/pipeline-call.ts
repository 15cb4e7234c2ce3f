import { reasonOf } from '../core/abort.ts';
import { ScheduleError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { nameOf } from '../core/tensor.ts';
import type { Histogram } from '../schedule/histogram.ts';
import type { Feeds } from './feeds.ts';
import type { StepContext, Values } from './pipeline-definition.ts';
import type { GraphStep, Plan, Port } from './pipeline-graph.ts';
import type { Guest, Places } from './pipeline-places.ts';
import { createSharedSignals, type SharedSignal, type SignalHub } from '../core/signals.ts';

/** What the runs of a step share over all calls. */
export interface Station {
  readonly places: Places;
  /** Durations of runs that succeeded, milliseconds. */
  readonly runMs: Histogram;
  /** Outputs to ask a model for; `undefined` for all. */
  readonly outputs: readonly string[] | undefined;
  failures: number;
}

/** What all calls of a pipeline share. */
export interface CallHost {
  readonly platform: Pick<Platform, 'monotonicMs' | 'setTimer'>;
  readonly hub: SignalHub;
  stationOf(step: GraphStep): Station;
  /** Turns what a step threw into what the caller gets. */
  explain(step: GraphStep, error: unknown): unknown;
}

/** How a call is to be run. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  readonly deadlineMs?: number | undefined;
  readonly priority?: number | undefined;
}

/** A run of a step that may wait for its place. */
interface StepRun extends Guest {
  readonly places: Places;
}

/** Longest delay that timers take. */
const TIMER_LIMIT_MS = 2 ** 31 - 1;

/**
 * Runs a plan once. It is driven by events: what gives a value starts the steps that waited for nothing else.
 * @param values - by number; those of the plan's inputs are there already.
 */
export function runPlan(
  { platform, hub, stationOf, explain }: CallHost,
  plan: Plan,
  values: unknown[],
  { signal, deadlineMs, priority }: CallOptions,
): Promise<Values> {
  const dueMs = deadlineMs === undefined ? Infinity : platform.monotonicMs() + deadlineMs;
  const signals = createSharedSignals();
  // Where nothing can end a call but the step that runs, models are spared a signal that never aborts.
  const isWatched = plan.forks || signal !== undefined || deadlineMs !== undefined;
  const waits = [...plan.waits];
  const ready = waits.flatMap((count, position) => (count === 0 ? [position] : []));
  const waiting = new Set<StepRun>();
  const unfinished = new Set<GraphStep>();
  const detach: (() => void)[] = [];
  let left = plan.steps.length;
  let isOver = false;
  let isDraining = false;
  let resolve: (outputs: Values) => void;
  let reject: (error: unknown) => void;

  const end = (): void => {
    isOver = true;
    for (const undo of detach) undo();
  };
  const giveUp = (error: unknown): void => {
    if (isOver) return;
    end();
    reject(error);
    for (const run of waiting) run.places.giveUp(run);
    signals.abort(error);
  };
  const passDeadline = (): void => giveUp(deadlineError(deadlineMs, unfinished));

  const complete = (step: GraphStep, position: number): void => {
    unfinished.delete(step);
    left -= 1;
    for (const follower of plan.followers[position] ?? []) {
      const count = (waits[follower] ?? 0) - 1;
      waits[follower] = count;
      if (count === 0) ready.push(follower);
    }
    drain();
  };

  /** One loop starts all steps, however many finish at once, so that the stack stays flat. */
  const drain = (): void => {
    if (isDraining) return;
    isDraining = true;
    while (!isOver) {
      const position = ready.shift();
      if (position === undefined) break;
      const step = plan.steps[position] as GraphStep;
      unfinished.add(step);
      guard(step, () => begin(step, position));
    }
    isDraining = false;
    if (left > 0 || isOver) return;
    end();
    resolve(collect(plan.outputs, values));
  };

  /** What the pipeline itself finds wrong with a step fails the call as what the step throws does. */
  const guard = (step: GraphStep, task: () => void): void => {
    try {
      task();
    } catch (error) {
      fail(step, error);
    }
  };
  const fail = (step: GraphStep, error: unknown): void => {
    if (isOver) return;
    stationOf(step).failures += 1;
    giveUp(explain(step, error));
  };

  const begin = (step: GraphStep, position: number): void => {
    const { definition, takes, gives, each } = step;
    if (definition.when !== undefined && !definition.when(collect(takes, values))) {
      complete(step, position);
    } else if (each === undefined) {
      enter(step, collect(takes, values), (result) => {
        for (const { name, value } of gives) values[value] = pick(step, result, name);
        complete(step, position);
      });
    } else {
      beginEach(step, each, () => complete(step, position));
    }
  };

  const beginEach = (step: GraphStep, each: number, done: () => void): void => {
    const { definition, takes, gives } = step;
    const list = assertArray(step, values[each]);
    const lists = gives.map(({ value }) => (values[value] = Array.from<unknown>({ length: list.length })));
    let next = 0;
    let remaining = list.length;
    const enterNext = (): void => {
      if (isOver || next === list.length) return;
      const at = next;
      next += 1;
      enter(step, collect(takes, values, { value: each, item: list[at] }), (result) => {
        for (const [index, { name }] of gives.entries())
          (lists[index] as unknown[])[at] = pick(step, result, name);
        remaining -= 1;
        if (remaining === 0) done();
        else enterNext();
      });
    };
    if (remaining === 0) done();
    // No more of them stand in line than can be under way: the others would only take memory.
    const width = Math.min(list.length, definition.maxInFlight ?? list.length);
    for (let lane = 0; lane < width; lane += 1) enterNext();
  };

  /** Runs a step on its arguments as soon as there is a place. */
  const enter = (step: GraphStep, taken: Values, done: (result: unknown) => void): void => {
    const { places, runMs } = stationOf(step);
    const run: StepRun = {
      places,
      start: () => {
        waiting.delete(run);
        const startedMs = platform.monotonicMs();
        let lent: SharedSignal | undefined;
        const lend = (): AbortSignal => (lent ??= signals.take()).signal;
        const leave = (): void => {
          if (lent !== undefined) signals.giveBack(lent);
          places.leave();
        };
        const succeed = (result: unknown): void => {
          runMs.record(platform.monotonicMs() - startedMs);
          leave();
          if (!isOver) guard(step, () => done(result));
        };
        const refuse = (error: unknown): void => {
          leave();
          fail(step, error);
        };
        if (startedMs >= dueMs) {
          leave();
          passDeadline();
          return;
        }
        let result: unknown;
        try {
          result = execute(step, taken, lend, dueMs - startedMs);
        } catch (error) {
          refuse(error);
          return;
        }
        if (isThenable(result)) Promise.resolve(result).then(succeed, refuse);
        else succeed(result);
      },
    };
    waiting.add(run);
    places.enter(run);
  };

  const execute = (step: GraphStep, taken: Values, lend: () => AbortSignal, leftMs: number): unknown => {
    const { definition } = step;
    const limits = {
      ...(deadlineMs !== undefined && { deadlineMs: leftMs }),
      ...(priority !== undefined && { priority }),
    };
    if (definition.model === undefined) {
      return definition.run(taken, withSignal(limits, lend));
    }
    const { outputs } = stationOf(step);
    return definition.model.run(taken as Feeds, {
      ...(outputs !== undefined && { outputs }),
      ...(isWatched && { signal: lend() }),
      ...limits,
    });
  };

  return new Promise((onDone, onError) => {
    resolve = onDone;
    reject = onError;
    if (signal !== undefined) detach.push(hub.listen(signal, () => giveUp(reasonOf(signal))));
    if (deadlineMs !== undefined && deadlineMs <= TIMER_LIMIT_MS) {
      detach.push(platform.setTimer(passDeadline, deadlineMs, true));
    }
    drain();
  });
}

const LEND: unique symbol = /* @__PURE__ */ Symbol('signal');

/** One getter for all contexts: an accessor of its own would give each of them a hidden class of its own. */
const SIGNAL = {
  get(this: { readonly [LEND]: () => AbortSignal }): AbortSignal {
    return this[LEND]();
  },
  enumerable: true,
};

/** Adds a signal that is made when somebody asks for it, since most functions do not. */
function withSignal(limits: Omit<StepContext, 'signal'>, lend: () => AbortSignal): StepContext {
  const context = { ...limits, [LEND]: lend };
  return Object.defineProperty(context, 'signal', SIGNAL) as typeof context & StepContext;
}

/** Builds an object with own properties only: `__proto__` is a name like any other. */
function collect(
  ports: readonly Port[],
  values: readonly unknown[],
  each?: { readonly value: number; readonly item: unknown },
): Values {
  const collected: Record<string, unknown> = {};
  for (const { name, value } of ports) {
    const taken = each?.value === value ? each.item : values[value];
    if (name === '__proto__') Object.defineProperty(collected, name, { value: taken, enumerable: true });
    else collected[name] = taken;
  }
  return collected;
}

function pick({ name: step, definition }: GraphStep, result: unknown, name: string): unknown {
  if (definition.model === undefined && definition.outputs === undefined) return result;
  if (typeof result === 'object' && result !== null && Object.hasOwn(result, name)) {
    return Reflect.get(result, name);
  }
  throw new TypeError(`Step "${step}" returned no "${name}", which is one of its outputs.`);
}

function assertArray({ name, definition }: GraphStep, list: unknown): readonly unknown[] {
  if (Array.isArray(list)) return list;
  throw new TypeError(
    `Step "${name}" runs on each element of "${definition.each}", which is an array, got ${nameOf(list)}.`,
  );
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}

function deadlineError(deadlineMs: number | undefined, unfinished: Iterable<GraphStep>): ScheduleError {
  const steps = [...unfinished].map(({ name }) => name);
  return new ScheduleError(
    'ERR_INLAY_DEADLINE',
    `The deadline of ${deadlineMs} ms passed in step ${steps.map((name) => `"${name}"`).join(', ')}; allow more time.`,
    { details: { reason: 'deadline_passed', steps } },
  );
}
