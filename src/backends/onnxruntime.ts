/** What all builds of ONNX Runtime share: the shape of their JavaScript API, and how it maps to ours. */
import type { ModelSource, Session, SessionRunOptions, TensorMap } from '../core/backend.ts';
import { isDType, type DType, type DTypeStorage } from '../core/dtype.ts';
import {
  BackendError,
  closedError,
  InputError,
  isInlayError,
  ModelError,
  type ErrorParts,
} from '../core/errors.ts';
import type { Dimension, Signature, TensorSpec } from '../core/signature.ts';
import { Tensor } from '../core/tensor.ts';

/** The part of `ort.Tensor` that is used. Several copies of its class may be around, so that only its form counts. */
export interface OrtTensor {
  readonly type: string;
  readonly dims: readonly number[];
  readonly data: unknown;
  readonly location: string;
}

/** The part of `ort.InferenceSession.ValueMetadata` that is used. */
export interface OrtValueMetadata {
  readonly name: string;
  readonly isTensor: boolean;
  readonly type?: string;
  readonly shape?: ReadonlyArray<number | string>;
}

/** The part of `ort.InferenceSession` that is used. */
export interface OrtSession {
  readonly inputMetadata: readonly OrtValueMetadata[];
  readonly outputMetadata: readonly OrtValueMetadata[];
  run(feeds: Readonly<Record<string, OrtTensor>>): Promise<Readonly<Record<string, unknown>>>;
  run(
    feeds: Readonly<Record<string, OrtTensor>>,
    fetches: readonly string[],
  ): Promise<Readonly<Record<string, unknown>>>;
  release(): Promise<void>;
}

/** The part of `ort.InferenceSession.SessionOptions` that is used. */
export interface OrtSessionOptions {
  executionProviders: Array<string | { readonly name: string; readonly [option: string]: unknown }>;
  intraOpNumThreads?: number;
  interOpNumThreads?: number;
  logSeverityLevel?: 0 | 1 | 2 | 3 | 4;
  graphOptimizationLevel?: 'disabled' | 'basic' | 'extended' | 'all';
  /** Where to write the graph after it was optimised. */
  optimizedModelFilePath?: string;
  extra?: Record<string, unknown>;
}

/** The part of an ONNX Runtime module that every build has. */
export interface OrtModule {
  readonly InferenceSession: {
    create(path: string, options?: OrtSessionOptions): Promise<OrtSession>;
    create(bytes: Uint8Array, options?: OrtSessionOptions): Promise<OrtSession>;
  };
}

/** Where a session runs, and with what. */
export type SessionPlace = Required<Pick<Session, 'provider' | 'slots' | 'intraOpThreads'>> &
  Pick<Session, 'threadsReason'>;

/**
 * Wraps a library session.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` if an input is no tensor, or no output is one.
 */
export function wrapSession(ort: OrtSession, place: SessionPlace): Session {
  const signature: Signature = {
    inputs: ort.inputMetadata.map((value) => toSpec(value)),
    // Sequences and maps, such as the class probabilities of scikit-learn, are left out and not computed.
    outputs: ort.outputMetadata.filter(({ isTensor }) => isTensor).map((value) => toSpec(value)),
  };
  if (signature.outputs.length === 0) throw unsupported('The model has no output that is a tensor.');
  const tensorOutputs = signature.outputs.map(({ name }) => name);
  const fetches = tensorOutputs.length === ort.outputMetadata.length ? undefined : tensorOutputs;

  let running = 0;
  let released: Promise<void> | undefined;
  let idle: (() => void) | undefined;
  const leave = (): void => {
    running -= 1;
    if (running === 0) idle?.();
  };
  const succeed = (outputs: Readonly<Record<string, unknown>>): TensorMap => {
    leave();
    const tensors: Record<string, Tensor> = {};
    for (const name in outputs) tensors[name] = fromOrt(outputs[name] as OrtTensor);
    return tensors;
  };
  const release = async (): Promise<void> => {
    // The library frees a session at once, under the feet of its runs.
    if (running > 0) {
      await new Promise<void>((resolve) => {
        idle = resolve;
      });
    }
    await ort.release();
  };

  const run = (feeds: TensorMap, options?: SessionRunOptions): Promise<TensorMap> => {
    if (released !== undefined) return Promise.reject(closedError('The session'));
    const ortFeeds: Record<string, OrtTensor> = {};
    for (const name in feeds) ortFeeds[name] = toOrt(feeds[name] as Tensor);
    const outputs = options?.outputs ?? fetches;
    running += 1;
    return (outputs === undefined ? ort.run(ortFeeds) : ort.run(ortFeeds, outputs)).then(
      succeed,
      (cause: unknown) => {
        leave();
        throw runError(cause, feeds);
      },
    );
  };

  return { signature, ...place, placement: 'inline', run, release: () => (released ??= release()) };
}

/** What a value is, in our words. @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` if it is no tensor. */
export function toSpec({ name, isTensor, type = '', shape = [] }: OrtValueMetadata): TensorSpec {
  if (!isTensor)
    throw unsupported(`Input "${name}" is a sequence, map or optional; only tensors can be fed.`);
  if (!isDType(type)) throw unsupported(`"${name}" is of type "${type}", which has no name in ONNX.`);
  // The library reports no dimensions for a scalar and for an unknown rank alike.
  return { name, dtype: type, shape: shape.length === 0 ? null : shape.map((size) => toDimension(size)) };
}

/** The WASM build reports -1 read as an unsigned number for a dimension without a name. */
const NAMELESS = 0xff_ff_ff_ff;

function toDimension(size: number | string): Dimension {
  return size === '' || size === NAMELESS || (typeof size === 'number' && size < 0) ? null : size;
}

/** A tensor as the library takes it: a plain object is what it needs, and cheaper than its class. */
export function toOrt({ dtype, shape, data }: Tensor): OrtTensor {
  const buffer: ArrayBufferLike | undefined = (data as Partial<Uint8Array>).buffer;
  const owned =
    typeof SharedArrayBuffer !== 'undefined' && buffer instanceof SharedArrayBuffer
      ? (data as Uint8Array).slice()
      : data;
  return { type: dtype, dims: shape, data: owned, location: 'cpu' };
}

function fromOrt({ type, dims, data }: OrtTensor): Tensor {
  const bits =
    type === 'float16' && ArrayBuffer.isView(data) && !(data instanceof Uint16Array)
      ? new Uint16Array(data.buffer, data.byteOffset, data.byteLength / 2)
      : data;
  return new Tensor(type as DType, dims, bits as DTypeStorage[DType]);
}

/** Reasons in the words of the library; the first that matches counts. */
const CREATE_REASONS: ReadonlyArray<readonly [ModelError['code'], RegExp]> = [
  [
    'ERR_INLAY_MODEL_NOT_FOUND',
    /file doesn't exist|ENOENT|no such file|EISDIR|is a directory|external data path|failed to load external data/i,
  ],
  [
    'ERR_INLAY_MODEL_UNSUPPORTED',
    /no op registered|no opset import|not a registered|could not find an implementation|not currently registered|unsupported data type|only \*guarantees\* support|unsupported model IR|not implemented|requires f16|no provider has a kernel/i,
  ],
  [
    'ERR_INLAY_MODEL_INVALID',
    /protobuf parsing failed|no graph was found|does not have a graph|data pointer is null|invalid model|shapeinferenceerror|typeinferenceerror/i,
  ],
];

const CREATE_SENTENCES: Readonly<Partial<Record<ModelError['code'], string>>> = {
  ERR_INLAY_MODEL_NOT_FOUND: 'or a file that it names cannot be read',
  ERR_INLAY_MODEL_INVALID: 'is no valid ONNX model',
  ERR_INLAY_MODEL_UNSUPPORTED: 'cannot be loaded by this build of ONNX Runtime',
};

const NO_FAULT_OF_THE_MODEL = /no available backend|out of memory|bad_alloc|failed to allocate|RangeError/i;

/** Wraps what the library throws at session creation, once. */
export function createError(cause: unknown, source: ModelSource, provider: string): Error {
  if (isInlayError(cause)) return cause;
  const reason = reasonOf(cause);
  const parts = { cause, details: { provider } };
  if (isTrap(cause)) return trapError(reason, 'while the model was loaded', parts);
  const code = CREATE_REASONS.find(([, pattern]) => pattern.test(reason))?.[0];
  const isCpu = provider === 'cpu' || provider === 'wasm';
  if (code === undefined && (!isCpu || NO_FAULT_OF_THE_MODEL.test(reason))) {
    return new BackendError(
      isCpu ? 'ERR_INLAY_BACKEND_UNAVAILABLE' : 'ERR_INLAY_DEVICE_UNAVAILABLE',
      `The execution provider "${provider}" does not work here: ${reason}.`,
      parts,
    );
  }
  const model =
    source.path === undefined
      ? `The model ${source.url === undefined ? '' : `${source.url} `}of ${source.bytes.length} bytes`
      : `The model "${source.path}"`;
  const sentence = CREATE_SENTENCES[code ?? 'ERR_INLAY_MODEL_UNSUPPORTED'];
  return new ModelError(code ?? 'ERR_INLAY_MODEL_UNSUPPORTED', `${model} ${sentence}: ${reason}.`, parts);
}

const RUN_REASONS: ReadonlyArray<readonly [InputError['code'], RegExp]> = [
  ['ERR_INLAY_FEED_SHAPE', /got invalid dimensions|invalid rank for input/i],
  ['ERR_INLAY_FEED_DTYPE', /unexpected input data type|type is not supported|unsupported (data )?type/i],
  ['ERR_INLAY_FEED_MISSING', /is missing in 'feeds'/],
  ['ERR_INLAY_OUTPUT_UNKNOWN', /contains invalid output name|'fetches' cannot be an empty array/],
];

const DEVICE_LOST = /device (is |was )?lost|lost device|device removed/i;

/** Wraps what the library throws at a run, once. */
export function runError(cause: unknown, feeds: TensorMap): Error {
  if (isInlayError(cause)) return cause;
  const reason = reasonOf(cause);
  const parts: ErrorParts = { cause };
  const detached = Object.keys(feeds).find((name) => isDetached(feeds[name] as Tensor));
  if (detached !== undefined) {
    return new InputError(
      'ERR_INLAY_FEED_DETACHED',
      `The buffer of input "${detached}" was transferred elsewhere; pass a copy, or leave "transfer" off.`,
      parts,
    );
  }
  const code = RUN_REASONS.find(([, pattern]) => pattern.test(reason))?.[0];
  if (code !== undefined) return new InputError(code, `ONNX Runtime refuses the call: ${reason}.`, parts);
  if (DEVICE_LOST.test(reason)) {
    return new BackendError(
      'ERR_INLAY_DEVICE_UNAVAILABLE',
      `The device was lost during the run: ${reason}.`,
      { cause, details: { reason: 'lost' } },
    );
  }
  if (isTrap(cause)) return trapError(reason, 'in the run', parts);
  return new BackendError('ERR_INLAY_RUN_FAILED', `The run failed: ${reason}.`, parts);
}

/** What WebAssembly throws when its memory can no longer be trusted. */
function isTrap(cause: unknown): boolean {
  return cause instanceof Error && cause.name === 'RuntimeError';
}

function trapError(reason: string, when: string, parts: ErrorParts): BackendError {
  return new BackendError(
    'ERR_INLAY_BACKEND_UNAVAILABLE',
    `WebAssembly broke down ${when}: ${reason}.`,
    parts,
  );
}

function isDetached({ data, size }: Tensor): boolean {
  return size > 0 && data.length === 0;
}

function unsupported(message: string): ModelError {
  return new ModelError('ERR_INLAY_MODEL_UNSUPPORTED', message);
}

function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** Places in the library's own source, and the wrapping of the WASM build: noise to everyone else. */
const NOISE = /\/\S+\.(cc|h):\d+ \S.*?\)(::<lambda\(\)>)? |^.*?ERROR_CODE: \d+, ERROR_MESSAGE: /g;

/** What the library says of a node that was left over when the providers had taken theirs. */
const LEFT_OVER = /^.*Provider type for (\S+) node with name '(.*)' is not set/;

/** A library's message on one line, without noise and final stop. */
export function reasonOf(thrown: unknown): string {
  // Cut before it is searched: names out of a hostile model are in it, and the search takes time by their square.
  const message = messageOf(thrown).slice(0, 2000);
  return message
    .replace(/\s+/g, ' ')
    .replace(NOISE, '')
    .replace(LEFT_OVER, 'no provider has a kernel for the $1 node "$2"')
    .trim()
    .replace(/\.$/, '')
    .slice(0, 500);
}
