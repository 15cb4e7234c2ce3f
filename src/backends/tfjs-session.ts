/** A session of TensorFlow.js. */
import type { Session, SessionRunOptions, Slot, TensorMap } from '../core/backend.ts';
import { sizeBytesOf, type TypedArray } from '../core/dtype.ts';
import { closedError, InputError } from '../core/errors.ts';
import { formatSpec, type Signature, type TensorSpec } from '../core/signature.ts';
import { sizeOf, Tensor } from '../core/tensor.ts';
import type { Engine } from './tfjs-engine.ts';
import { isUnsupported, runError } from './tfjs-errors.ts';
import type { TfModule, TfTensor } from './tfjs-library.ts';
import { isKnown, type LoadedModel } from './tfjs-model.ts';

/** What a session is made of. */
export interface SessionParts {
  readonly tf: TfModule;
  readonly engine: Engine;
  readonly model: LoadedModel;
  readonly provider: string;
  readonly slots: readonly Slot[];
}

/**
 * Opens a session and runs it once on zeros, which compiles its kernels, shows operators that are not there, and tells
 * the dtypes and ranks of outputs that the model does not tell.
 * @throws what the library throws if it lacks an operator.
 */
export async function openSession(parts: SessionParts): Promise<Session> {
  const { engine, model, provider, slots } = parts;
  const compute = createCompute(parts);
  const everything = model.outputs.map(({ name }) => name);
  const made = zeros(model.inputs);
  const trial = made === undefined ? Promise.resolve<TensorMap>({}) : compute(made, everything);
  const first = await trial.catch((error: unknown): TensorMap => {
    if (isUnsupported(error)) throw error;
    // It may rightly refuse what is made up.
    return {};
  });
  const outputs = model.outputs.map(({ name, dtype, shape }): TensorSpec => {
    const seen = first[name];
    return {
      name,
      dtype: dtype ?? seen?.dtype ?? 'float32',
      shape: shape ?? seen?.shape.map(() => null) ?? null,
    };
  });
  const signature: Signature = { inputs: model.inputs, outputs };

  let running = 0;
  let idle: (() => void) | undefined;
  let released: Promise<void> | undefined;
  const release = async (): Promise<void> => {
    if (running > 0) {
      await new Promise<void>((resolve) => {
        idle = resolve;
      });
    }
    await engine.use(provider, () => model.dispose());
  };
  const run = async (feeds: TensorMap, options?: SessionRunOptions): Promise<TensorMap> => {
    if (released !== undefined) throw closedError('The session');
    for (const spec of signature.inputs) assertFeed(spec, feeds[spec.name]);
    const wanted = options?.outputs ?? everything;
    for (const name of wanted) assertOutput(name, everything);
    running += 1;
    try {
      return await compute(feeds, wanted);
    } catch (error) {
      throw runError(error);
    } finally {
      running -= 1;
      if (running === 0) idle?.();
    }
  };
  return { signature, provider, placement: 'inline', slots, run, release: () => (released ??= release()) };
}

type Compute = (feeds: TensorMap, outputs: readonly string[]) => Promise<TensorMap>;

const NEEDS_ASYNC = /executeAsync/;

function createCompute({ tf, engine, model, provider }: SessionParts): Compute {
  let isAsync = false;
  const upload = (feeds: TensorMap): Record<string, TfTensor> =>
    Object.fromEntries(model.inputs.map(({ name }) => [name, toTf(tf, feeds[name] as Tensor)]));

  const runAtOnce = (feeds: TensorMap, wanted: readonly string[]): Promise<readonly TfTensor[]> =>
    engine.use(provider, () => keep(model.run(upload(feeds), wanted)));

  const runWaiting = (
    { runAsync }: Required<LoadedModel>,
    feeds: TensorMap,
    wanted: readonly string[],
  ): Promise<readonly TfTensor[]> =>
    engine.useAsync(provider, async () => {
      const uploaded = upload(feeds);
      const results = await runAsync(uploaded, wanted);
      const kept = keep(results);
      for (const tensor of [...Object.values(uploaded), ...results]) if (!tensor.kept) tensor.dispose();
      return kept;
    });

  return async (feeds, wanted) => {
    const { runAsync } = model;
    let tensors: readonly TfTensor[] | undefined;
    if (!isAsync || runAsync === undefined) {
      try {
        tensors = await runAtOnce(feeds, wanted);
      } catch (error) {
        // The library knows by itself which models cannot run at once, and says so before it begins.
        if (runAsync === undefined || !(error instanceof Error && NEEDS_ASYNC.test(error.message)))
          throw error;
        isAsync = true;
      }
    }
    tensors ??= await runWaiting(model as Required<LoadedModel>, feeds, wanted);
    try {
      const read = await Promise.all(tensors.map((tensor) => fromTf(tensor)));
      return Object.fromEntries(wanted.map((name, index) => [name, read[index] as Tensor]));
    } finally {
      for (const tensor of tensors) tensor.dispose();
    }
  };
}

/** Outputs may be weights or feeds; their copies share the memory, and can be disposed of without asking. */
function keep(results: readonly TfTensor[]): readonly TfTensor[] {
  return results.map((result) => {
    const copy = result.clone();
    copy.kept = true;
    return copy;
  });
}

function toTf(tf: TfModule, { dtype, shape, data }: Tensor): TfTensor {
  // Not every API that the library hands it to takes shared memory.
  const isShared = ArrayBuffer.isView(data) && !(data.buffer instanceof ArrayBuffer);
  return tf.tensor((isShared ? data.slice() : data) as never, [...shape] as never, dtype as never);
}

async function fromTf(tensor: TfTensor): Promise<Tensor> {
  const { dtype, shape } = tensor;
  if (!isKnown(dtype)) throw new TypeError(`An output is of dtype ${dtype}, which cannot be read`);
  const data = (await tensor.data()) as TypedArray | string[];
  // On the CPU it is the memory of the tensor itself, which may be a weight or a feed.
  return new Tensor(dtype, [...shape], data.slice());
}

/** Elements of feeds that are made up at most. */
const TRIAL_CAP = 2 ** 26;

/** Feeds for a trial, with 1 for each size that is free; `undefined` if they would be huge. */
function zeros(inputs: readonly TensorSpec[]): TensorMap | undefined {
  const shapes = inputs.map(({ shape }) =>
    (shape ?? [1]).map((size) => (typeof size === 'number' ? size : 1)),
  );
  if (!(shapes.reduce((sum, sizes) => sum + sizeOf(sizes), 0) <= TRIAL_CAP)) return undefined;
  return Object.fromEntries(
    inputs.map(({ name, dtype }, index) => {
      const sizes = shapes[index] as number[];
      const size = sizeOf(sizes);
      const bytes = new ArrayBuffer(sizeBytesOf(dtype, size));
      const data =
        dtype === 'string'
          ? Array.from({ length: size }, () => '')
          : dtype === 'bool'
            ? new Uint8Array(bytes)
            : dtype === 'int32'
              ? new Int32Array(bytes)
              : new Float32Array(bytes);
      return [name, new Tensor(dtype, sizes, data)];
    }),
  );
}

function assertFeed(spec: TensorSpec, feed: Tensor | undefined): void {
  const { name, dtype, shape } = spec;
  if (feed === undefined)
    throw new InputError('ERR_INLAY_FEED_MISSING', `Input "${name}" is missing in the feeds.`);
  if (feed.dtype !== dtype) {
    throw new InputError(
      'ERR_INLAY_FEED_DTYPE',
      `Input ${formatSpec(spec)} cannot take a ${feed.dtype} tensor.`,
    );
  }
  const fits =
    shape === null ||
    (shape.length === feed.shape.length &&
      shape.every((size, axis) => typeof size !== 'number' || size === feed.shape[axis]));
  if (!fits) {
    throw new InputError(
      'ERR_INLAY_FEED_SHAPE',
      `Input ${formatSpec(spec)} cannot take shape [${feed.shape.join(', ')}].`,
    );
  }
  if (feed.size > 0 && feed.data.length === 0) {
    throw new InputError(
      'ERR_INLAY_FEED_DETACHED',
      `The buffer of input "${name}" was transferred elsewhere; pass a copy, or leave "transfer" off.`,
    );
  }
}

function assertOutput(name: string, names: readonly string[]): void {
  if (names.includes(name)) return;
  throw new InputError(
    'ERR_INLAY_OUTPUT_UNKNOWN',
    `There is no output "${name}"; the model has ${names.join(', ')}.`,
  );
}
