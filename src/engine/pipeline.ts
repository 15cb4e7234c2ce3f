import { assertNotAborted } from '../core/abort.ts';
import { fromErrorRecord, InputError, isInlayError, type AnyInlayError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { nameOf } from '../core/tensor.ts';
import { createHistogram } from '../schedule/histogram.ts';
import { runPlan, type CallHost, type Station } from './pipeline-call.ts';
import type { PipelineDefinition, PipelineInputs, PipelineOutputs, Values } from './pipeline-definition.ts';
import { buildGraph, planFor, quote, type Graph, type GraphStep, type Plan } from './pipeline-graph.ts';
import { createPlaces } from './pipeline-places.ts';
import { createRunAll, type RunAll } from './run-all.ts';
import { createSignalHub } from '../core/signals.ts';

/** Options of {@link Pipeline.run}. */
export interface PipelineRunOptions<Name extends string = string> {
  /** Names of the outputs to compute; steps that none of them needs are not run. Default: all. */
  readonly outputs?: readonly Name[];
  /** Gives the call up: it rejects with `signal.reason`, and every step under way hears of it. */
  readonly signal?: AbortSignal;
  /** Milliseconds from now, above 0, in which the whole call has to be done. Steps get what is left of it. */
  readonly deadlineMs?: number;
  /** Passed on to every model. */
  readonly priority?: number;
}

/** Counters of one step. */
export interface StepStats {
  /** Runs that succeeded; with `each`, one per element. */
  readonly runs: number;
  /** Runs that failed; those that were given up are not among them. */
  readonly failures: number;
  readonly inFlight: number;
  /** Runs that wait for a place. */
  readonly waiting: number;
  /** Median of the successful runs, milliseconds, without the wait for a place; off by at most 4.5 %. */
  readonly p50Ms: number;
  readonly p95Ms: number;
}

/** Models and functions, joined into one function. */
export interface Pipeline<In extends object = Values, Out extends object = Values> {
  /** Names of the values that a call gives. */
  readonly inputs: readonly string[];
  /** Names of the values that a call returns. */
  readonly outputs: readonly string[];
  /**
   * Runs the steps once: each as soon as what it needs is there, independent ones at the same time.
   *
   * The first step that fails fails the call, and the others are given up. What a function throws arrives as it is;
   * an {@link InlayError} arrives as one of the same class and code that names the step, with the original as its
   * cause. {@link Pipeline.stepOf} tells the step of both.
   * @param inputs - one entry per input that the outputs need.
   * @throws {@link InputError} `ERR_INLAY_FEED_MISSING`, `ERR_INLAY_FEED_UNKNOWN` or `ERR_INLAY_OUTPUT_UNKNOWN`;
   * {@link ScheduleError} `ERR_INLAY_DEADLINE`; `signal.reason`; what steps throw.
   */
  run<const Name extends keyof Out & string = keyof Out & string>(
    inputs: In,
    options?: PipelineRunOptions<Name>,
  ): Promise<Pick<Out, Name>>;
  /** Runs over a source; see {@link RunAll}. */
  readonly runAll: RunAll<In, Out, PipelineRunOptions<keyof Out & string>>;
  /** Name of the step that an error came from; `undefined` for errors that came from none. */
  stepOf(error: unknown): string | undefined;
  /** Counters by step. */
  stats(): Readonly<Record<string, StepStats>>;
}

/**
 * Joins models and functions into a graph.
 * @throws `TypeError` or `RangeError` that names the step, for everything that can be known to be wrong beforehand.
 * @example
 * const toTensor = ({ photo }: { photo: PixelImage }): Tensor => imageToTensor(photo);
 * const count = await inlay.pipeline({
 *   inputs: ['photo'],
 *   steps: {
 *     image: { inputs: ['photo'], run: toTensor },
 *     detector: { model: faces, inputs: { input: 'image' }, outputs: { boxes: 'boxes' }, maxInFlight: 4 },
 *     total: { inputs: ['boxes'], run: ({ boxes }: { boxes: Tensor }) => boxes.shape[0] },
 *   },
 *   outputs: ['total'],
 * });
 * const { total } = await count.run({ photo });
 */
export function createPipeline<const Definition extends PipelineDefinition>(
  platform: Pick<Platform, 'monotonicMs' | 'setTimer'>,
  definition: Definition,
): Pipeline<PipelineInputs<Definition>, PipelineOutputs<Definition>> {
  type In = PipelineInputs<Definition>;
  type Out = PipelineOutputs<Definition>;
  type Name = keyof Out & string;

  const graph = buildGraph(definition);
  const everything = planFor(graph, graph.outputs.keys());
  const inputNames = new Set(graph.inputs.keys());
  const stations = new Map(graph.steps.map((step) => [step, createStation(step)]));
  const origins = new WeakMap<object, string>();
  const host: CallHost = {
    platform,
    hub: createSignalHub(),
    stationOf: (step) => stations.get(step) as Station,
    explain: ({ name }, error) => {
      const explained = isInlayError(error) ? withStep(error, name) : error;
      if (typeof explained === 'object' && explained !== null) origins.set(explained, name);
      return explained;
    },
  };

  const start = (inputs: Values, options: PipelineRunOptions): Promise<Values> => {
    const { signal, outputs, deadlineMs } = options;
    assertNotAborted(signal);
    if (deadlineMs !== undefined && !(deadlineMs > 0)) {
      throw new RangeError(`deadlineMs is a number of milliseconds above 0, got ${deadlineMs}.`);
    }
    const plan = outputs === undefined ? everything : planFor(graph, checkOutputs(graph.outputs, outputs));
    return runPlan(host, plan, bind(graph, plan, inputNames, inputs), options);
  };
  const run = async <Wanted extends Name = Name>(
    inputs: In,
    options: PipelineRunOptions<Wanted> = {},
  ): Promise<Pick<Out, Wanted>> => (await start(inputs, options)) as Pick<Out, Wanted>;

  return {
    inputs: [...graph.inputs.keys()],
    outputs: [...graph.outputs.keys()],
    run,
    runAll: createRunAll<In, Out, PipelineRunOptions<Name>>(run),
    stepOf: (error) => (typeof error === 'object' && error !== null ? origins.get(error) : undefined),
    stats: () => Object.fromEntries([...stations].map(([{ name }, station]) => [name, readStats(station)])),
  };
}

function createStation({ definition, gives }: GraphStep): Station {
  const { model, maxInFlight } = definition;
  // Asking for all outputs by name would keep the calls out of the batches of those that ask for none.
  const isWhole = model === undefined || gives.length === model.signature.outputs.length;
  return {
    places: createPlaces(maxInFlight),
    runMs: createHistogram(),
    outputs: isWhole ? undefined : gives.map(({ name }) => name),
    failures: 0,
  };
}

function readStats({ places: { inFlight, waiting }, runMs, failures }: Station): StepStats {
  const [p50Ms, p95Ms] = [runMs.quantile(0.5), runMs.quantile(0.95)];
  return { runs: runMs.count, failures, inFlight, waiting, p50Ms, p95Ms };
}

/** Other calls may get the same error, so that it is not changed but wrapped in one of its kind. */
function withStep(cause: AnyInlayError, step: string): Error {
  const { name, code, details, message } = cause;
  const error = fromErrorRecord({
    name,
    code,
    details: { ...details, step },
    message: `Step "${step}": ${message}`,
  });
  return Object.defineProperty(error, 'cause', { value: cause, configurable: true, writable: true });
}

function checkOutputs(known: ReadonlyMap<string, number>, wanted: readonly string[]): readonly string[] {
  if (wanted.length === 0) throw new RangeError('`outputs` names at least one output; leave it out for all.');
  const unknown = wanted.find((name) => !known.has(name));
  if (unknown === undefined) return wanted;
  throw new InputError(
    'ERR_INLAY_OUTPUT_UNKNOWN',
    `The pipeline has no output "${unknown}"; its outputs are ${quote(known.keys())}.`,
    { details: { output: unknown } },
  );
}

/** Puts the inputs of a call at their numbers. */
function bind(graph: Graph, plan: Plan, known: ReadonlySet<string>, inputs: Values): unknown[] {
  if (typeof inputs !== 'object' || inputs === null) {
    throw new TypeError(`Inputs are an object with one entry per input, got ${nameOf(inputs)}.`);
  }
  const values: unknown[] = Array.from({ length: graph.valueNames.length });
  for (const { name, value } of plan.inputs) {
    const given = Object.hasOwn(inputs, name) ? inputs[name] : undefined;
    if (given === undefined) {
      throw new InputError(
        'ERR_INLAY_FEED_MISSING',
        `The input "${name}" of the pipeline is missing; it takes ${quote(known)}.`,
        { details: { input: name } },
      );
    }
    values[value] = given;
  }
  const unknown = Object.keys(inputs).find((name) => !known.has(name));
  if (unknown === undefined) return values;
  throw new InputError(
    'ERR_INLAY_FEED_UNKNOWN',
    `The pipeline has no input "${unknown}"; it takes ${quote(known)}.`,
    { details: { input: unknown } },
  );
}
