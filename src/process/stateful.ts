import { assertNotAborted, orAbort } from '../core/abort.ts';
import type { TensorMap } from '../core/backend.ts';
import { DTYPES, storageLength, type DType, type DTypeStorage } from '../core/dtype.ts';
import { InputError } from '../core/errors.ts';
import { formatSpec, type Signature, type TensorSpec } from '../core/signature.ts';
import { Tensor } from '../core/tensor.ts';
import { checkInteger } from './arguments.ts';

/** What {@link createStateful} needs to know of the options of a run. */
export interface StatefulRunOptions {
  readonly outputs?: readonly string[];
  readonly transfer?: boolean;
  readonly signal?: AbortSignal;
}

/** A model, or what stands in for one. */
export interface RunnableModel<Feed, Options extends StatefulRunOptions> {
  readonly signature: Signature;
  run(feeds: Readonly<Record<string, Feed | Tensor>>, options?: Options): Promise<TensorMap>;
}

/** Options of {@link createStateful}. */
export interface StatefulOptions {
  /** Which output goes into which input of the next run: `{ stateN: 'state' }`. */
  readonly state: Readonly<Record<string, string>>;
  /** What state inputs hold at first, by input; not copied and not changed. Default: zeros, in the shape of the signature. */
  readonly initial?: TensorMap;
  /** Sizes of symbolic dimensions of the zeros, by name. Default 1 for each, and for dimensions without a name. */
  readonly sizes?: Readonly<Record<string, number>>;
}

/** One stream through a model that carries state. */
export interface StatefulModel<Feed, Options extends StatefulRunOptions> {
  /** The state that the next run would be fed, by input. Shared with the outputs of the last run. */
  readonly state: TensorMap;
  /**
   * Runs once, after the calls before it, with the state that they left.
   * @param feeds the inputs besides the state.
   * @param options go to the model; state outputs are computed in any case. A deadline counts from when the call's turn
   * comes.
   * @returns the outputs, state included; the state is not to be changed while the stream goes on.
   * @throws what the model throws, `signal.reason` when aborted, and {@link InputError} `ERR_INLAY_OUTPUT_UNKNOWN` if the
   * model has lost a state output; the state stays as it was, and later calls go on with it.
   */
  run(feeds: Readonly<Record<string, Feed | Tensor>>, options?: Options): Promise<TensorMap>;
  /** Begins anew: calls from now on start with the initial state, calls before still have the old one. */
  reset(): void;
}

/**
 * Keeps the running state of a recurrent model: voice activity, wake words, filters. Each call is fed the state that the one
 * before it gave; calls of one stream run one after the other, in the order in which they were made.
 *
 * One stream, one `createStateful`: any number of them may share a model.
 * @throws `RangeError` if the signature lacks a name of `state`, `initial` gives something else than a state input, or zeros
 * have no shape to take.
 * @example
 * import { createStateful } from 'inlay/process';
 * const stream = createStateful(model, { state: { stateN: 'state' } });
 * const { output } = await stream.run({ input: pixels, sr: 16_000 });
 * stream.reset();
 */
export function createStateful<Feed, Options extends StatefulRunOptions>(
  model: RunnableModel<Feed, Options>,
  options: StatefulOptions,
): StatefulModel<Feed, Options> {
  const links = Object.entries(options.state);
  const stateOutputs = links.map(([output]) => output);
  let state = initialState(model.signature, options);
  let last: Promise<unknown> = Promise.resolve();

  const step = async (
    feeds: Readonly<Record<string, Feed | Tensor>>,
    runOptions: Options | undefined,
  ): Promise<TensorMap> => {
    assertNotAborted(runOptions?.signal);
    const fed = runOptions?.transfer === true ? copyOf(state) : state;
    const outputs = await model.run({ ...feeds, ...fed }, withOutputs(runOptions, stateOutputs));
    assertNotAborted(runOptions?.signal);
    state = Object.fromEntries(links.map(([output, input]) => [input, pick(outputs, output)]));
    return outputs;
  };

  return {
    get state() {
      return state;
    },
    run(feeds, runOptions) {
      const turn = last.then(() => step(feeds, runOptions));
      last = turn.catch(() => {});
      const signal = runOptions?.signal;
      return signal === undefined ? turn : orAbort(turn, signal);
    },
    reset() {
      const fresh = initialState(model.signature, options);
      last = last.then(() => {
        state = fresh;
      });
    },
  };
}

/** A model that follows its updates may have another signature than when the stream began. */
function pick(outputs: TensorMap, name: string): Tensor {
  const output = outputs[name];
  if (output !== undefined) return output;
  throw new InputError(
    'ERR_INLAY_OUTPUT_UNKNOWN',
    `The model gave no output "${name}" to carry state; it gave ${Object.keys(outputs).join(', ')}.`,
    { details: { output: name } },
  );
}

function withOutputs<Options extends StatefulRunOptions>(
  options: Options | undefined,
  stateOutputs: readonly string[],
): Options | undefined {
  if (options?.outputs === undefined) return options;
  return { ...options, outputs: [...new Set([...options.outputs, ...stateOutputs])] };
}

function initialState(
  { inputs, outputs }: Signature,
  { state, initial = {}, sizes = {} }: StatefulOptions,
): TensorMap {
  const fresh: Record<string, Tensor> = {};
  for (const [output, input] of Object.entries(state)) {
    specOf('output', outputs, output);
    const spec = specOf('input', inputs, input);
    fresh[input] = initial[input] ?? zerosOf(spec, sizes);
  }
  const odd = Object.keys(initial).find((name) => !Object.hasOwn(fresh, name));
  if (odd === undefined) return fresh;
  throw new RangeError(
    `initial holds "${odd}", which is no state input; there are ${Object.keys(fresh).join(', ')}.`,
  );
}

function specOf(kind: 'input' | 'output', specs: readonly TensorSpec[], name: string): TensorSpec {
  const spec = specs.find((one) => one.name === name);
  if (spec !== undefined) return spec;
  const known = specs.map((one) => one.name).join(', ');
  throw new RangeError(`The model has no ${kind} "${name}" to carry state; it has ${known}.`);
}

function zerosOf(spec: TensorSpec, sizes: Readonly<Record<string, number>>): Tensor {
  const { name, dtype, shape } = spec;
  if (shape === null || dtype === 'string') {
    throw new RangeError(`There are no zeros for ${formatSpec(spec)}; give initial.${name}.`);
  }
  const lengths = shape.map((dimension) => {
    if (typeof dimension === 'number') return dimension;
    return dimension === null ? 1 : checkInteger(`sizes.${dimension}`, sizes[dimension] ?? 1, 0);
  });
  const Storage = DTYPES[dtype].storage as new (length: number) => DTypeStorage[Exclude<DType, 'string'>];
  const size = lengths.reduce((product, length) => product * length, 1);
  return new Tensor(dtype, lengths, new Storage(storageLength(dtype, size)));
}

/** The stream needs its state again if the run fails, so only a copy can be handed over. */
function copyOf(state: TensorMap): TensorMap {
  return Object.fromEntries(
    Object.entries(state).map(([name, { dtype, shape, data }]) => [
      name,
      new Tensor(dtype, shape, data.slice()),
    ]),
  );
}
