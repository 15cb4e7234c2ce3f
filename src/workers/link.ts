/** Calls across a worker boundary: comlink, hardened against dead workers, lost errors and needless copies. */
import { expose, transfer, wrap, type Endpoint } from 'comlink';
import type { ModelSource, TensorMap } from '../core/backend.ts';
import { DTYPES, type DType, type DTypeStorage, type TypedArray } from '../core/dtype.ts';
import {
  BackendError,
  fromErrorRecord,
  InputError,
  toErrorRecord,
  type ErrorRecord,
} from '../core/errors.ts';
import { Tensor } from '../core/tensor.ts';

export type { Endpoint } from 'comlink';

/** Methods that one side offers to the other. Arguments and results are plain data. */
export type Api = object;

/** A method as its caller sees it. */
export type Calls<A extends Api> = {
  readonly [K in keyof A]: A[K] extends (...args: infer Args) => infer Result
    ? (...args: Args) => Promise<Awaited<Result>>
    : never;
};

/** What the calling end of a link needs to know. */
export interface LinkOptions<A extends Api> {
  readonly methods: readonly (keyof A & string)[];
  /** Name of the method that is reached by the short way, the same as at the other end. */
  readonly short: keyof A & string;
  /** Hears `true` when a call is in flight after none was, `false` when none is any more. */
  readonly onBusy?: (busy: boolean) => void;
  /** Hears the name of the call that has waited longest, whenever that is another one; `undefined` for none. */
  readonly onOldest?: (name: string | undefined) => void;
  /** Passes an answer of the short way on, at once or later. */
  readonly pace?: (answer: () => void) => void;
}

/** The calling end of a link. */
export interface Link<A extends Api> {
  readonly calls: Calls<A>;
  /** Rejects every call in flight and every later one. */
  fail(error: Error): void;
}

type Outcome =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly error: ErrorRecord };
type Method = (...args: unknown[]) => unknown;

/**
 * The short way, for the one method that is called thousands of times a second: plain messages over the same
 * endpoint. Comlink leaves arrays alone, and all other messages are its own.
 */
type ShortCall = readonly [call: number, args: readonly unknown[]];
type ShortAnswer = readonly [call: number, outcome: Outcome];

/** Keeps a message of the short way from comlink's listeners, which come later and would look at it. */
function withhold(event: Event): void {
  // Node's endpoint gives no event, only its data.
  (event as Partial<Event>).stopImmediatePropagation?.();
}

/**
 * Offers methods to the other side. What they throw arrives there with its class, code, details and cause, which
 * comlink alone would lose.
 * @param short - name of the method that is reached by the short way.
 */
export function serve<A extends Api>(api: A, endpoint: Endpoint, short: keyof A & string): void {
  const methods = Object.entries(api) as [string, Method][];
  const harden = (method: Method) => async (args: readonly unknown[]) => {
    try {
      const value = await method(...args);
      return value instanceof Packed
        ? { outcome: { ok: true, value: value.value } as const, buffers: value.buffers }
        : { outcome: { ok: true, value } as const, buffers: [] };
    } catch (error) {
      return { outcome: { ok: false, error: toErrorRecord(error) } as const, buffers: [] };
    }
  };

  const answerShort = harden(api[short] as Method);
  endpoint.addEventListener('message', (event) => {
    const { data } = event as MessageEvent<ShortCall>;
    if (!Array.isArray(data)) return;
    withhold(event);
    const [call, args] = data as ShortCall;
    const answer = (outcome: Outcome, buffers: Transferable[]): void => {
      endpoint.postMessage([call, outcome] satisfies ShortAnswer, buffers);
    };
    void answerShort(args).then(({ outcome, buffers }) => {
      try {
        answer(outcome, buffers);
      } catch (cause) {
        answer({ ok: false, error: toErrorRecord(unsendable(short, cause)) }, []);
      }
    });
  });
  const exposed: Record<string, Method> = {};
  for (const [name, method] of methods) {
    const answer = harden(method);
    exposed[name] = async (...args) => {
      const { outcome, buffers } = await answer(args);
      return transfer(outcome, buffers);
    };
  }
  expose(exposed, endpoint);
}

/** Connects to the methods that {@link serve} offers at the other end. */
export function connect<A extends Api>(endpoint: Endpoint, options: LinkOptions<A>): Link<A> {
  const { methods, short, onBusy = () => {}, onOldest, pace = (answer) => answer() } = options;
  const waiting = new Map<number, (outcome: Outcome) => void>();
  endpoint.addEventListener('message', (event) => {
    const { data } = event as MessageEvent<ShortAnswer>;
    if (!Array.isArray(data)) return;
    withhold(event);
    const [call, outcome] = data as ShortAnswer;
    pace(() => waiting.get(call)?.(outcome));
  });
  // The proxies are kept: comlink closes an endpoint whose proxies were collected, and drops its replies.
  const remote = wrap<Record<string, Method>>(endpoint);
  /** How to reject each call, and its name, in the order in which they were made. */
  const inFlight = new Map<(error: Error) => void, string>();
  let lastCall = 0;
  let failure: Error | undefined;

  const sendShort = (args: readonly unknown[], onOutcome: (outcome: Outcome) => void): void => {
    lastCall += 1;
    const call = lastCall;
    const buffers: ArrayBuffer[] = [];
    const plain = args.map((argument) => {
      if (!(argument instanceof Packed)) return argument;
      buffers.push(...argument.buffers);
      return argument.value as object;
    });
    endpoint.postMessage([call, plain] satisfies ShortCall, buffers);
    waiting.set(call, (outcome) => {
      waiting.delete(call);
      onOutcome(outcome);
    });
  };

  const createCall = (name: string): ((...args: unknown[]) => Promise<unknown>) => {
    const method = remote[name] as unknown as (...args: unknown[]) => Promise<Outcome>;
    return (...args) =>
      new Promise((resolve, reject) => {
        if (failure !== undefined) {
          reject(failure);
          return;
        }
        inFlight.set(reject, name);
        if (inFlight.size === 1) {
          onBusy(true);
          onOldest?.(name);
        }
        const settle = (): void => {
          const wasOldest = onOldest !== undefined && inFlight.keys().next().value === reject;
          if (inFlight.delete(reject) && inFlight.size === 0) onBusy(false);
          if (wasOldest) onOldest(inFlight.values().next().value);
        };
        const onOutcome = (outcome: Outcome): void => {
          settle();
          if (outcome.ok) resolve(outcome.value);
          else reject(fromErrorRecord(outcome.error));
        };
        const onUnsent = (cause: unknown): void => {
          settle();
          reject(unsendable(name, cause));
        };
        if (name !== short) method(...args.map(unpack)).then(onOutcome, onUnsent);
        else {
          try {
            sendShort(args, onOutcome);
          } catch (cause) {
            onUnsent(cause);
          }
        }
      });
  };

  return {
    calls: Object.fromEntries(methods.map((name) => [name, createCall(name)])) as Calls<A>,
    fail: (error) => {
      failure ??= error;
      for (const reject of inFlight.keys()) reject(failure);
      inFlight.clear();
      waiting.clear();
      onBusy(false);
      onOldest?.(undefined);
    },
  };
}

function unsendable(name: string, cause: unknown): BackendError {
  return new BackendError('ERR_INLAY_RUN_FAILED', `A "${name}" or its answer could not be sent.`, { cause });
}

/** Comlink looks the buffers of an argument up by the argument. */
function unpack(argument: unknown): unknown {
  return argument instanceof Packed ? transfer(argument.value, argument.buffers) : argument;
}

/** Plain data on its way through a link, with the buffers that are handed over rather than copied. */
export class Packed<T extends object> {
  readonly value: T;
  readonly buffers: ArrayBuffer[];

  constructor(value: T, buffers: ArrayBuffer[]) {
    this.value = value;
    this.buffers = buffers;
  }
}

/** Tensors as plain data. */
export type WireTensors = Readonly<Record<string, Pick<Tensor, 'dtype' | 'shape' | 'data'>>>;

/** Bytes that are copied in one go: some 2 ms. */
const SLICE_BYTES = 2 ** 22;

/**
 * Prepares where a model is for a link. Bytes are copied once, without what surrounds them, and slice by slice: a page
 * whose thread copies a large model in one go drops frames.
 */
export async function packSource(source: ModelSource): Promise<Packed<ModelSource>> {
  if (source.path !== undefined) return new Packed(source, []);
  const { bytes, ...more } = source;
  const copy = new Uint8Array(bytes.length);
  for (let at = 0; at < bytes.length; at += SLICE_BYTES) {
    if (at > 0) await nextTask();
    copy.set(bytes.subarray(at, at + SLICE_BYTES), at);
  }
  return new Packed({ ...more, bytes: copy }, [copy.buffer]);
}

function nextTask(): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve);
  });
}

/** Below this, in bytes, copying inside the message is cheaper than handing a copy over. */
const SMALL_BYTES = 8192;

/**
 * Prepares tensors for a link.
 *
 * A buffer is handed over only if `handOver` is set and the tensor covers all of it: a view on a larger buffer, such
 * as Node's pooled ones, would take its neighbours along. Otherwise it is copied, once, and without what surrounds the
 * view. Shared memory is always copied, since inference libraries refuse it.
 *
 * @param handOver - whether buffers of these tensors may become unusable here; `large`: those that are worth it.
 * @throws {@link InputError} `ERR_INLAY_FEED_DETACHED` if a buffer was handed over before.
 */
export function packTensors(tensors: TensorMap, handOver: boolean | 'large'): Packed<WireTensors> {
  const packed: Record<string, WireTensors[string]> = {};
  const buffers: ArrayBuffer[] = [];
  for (const name in tensors) {
    const tensor = tensors[name] as Tensor;
    const { dtype, shape, data } = tensor;
    if (!ArrayBuffer.isView(data)) {
      packed[name] = { dtype, shape, data };
      continue;
    }
    if (data.length === 0 && tensor.size > 0) throw detached(name);
    const { buffer } = data;
    const isShared = !(buffer instanceof ArrayBuffer);
    const isWhole = data.byteLength === buffer.byteLength;
    const isSmall = data.byteLength <= SMALL_BYTES;
    if (isWhole && !isShared && (handOver !== false || isSmall)) {
      packed[name] = { dtype, shape, data };
      const isGiven = handOver === true ? data.byteLength > 0 : handOver === 'large' && !isSmall;
      if (isGiven && !buffers.includes(buffer)) buffers.push(buffer);
    } else {
      const copy = copyOf(dtype, data);
      packed[name] = { dtype, shape, data: copy as DTypeStorage[DType] };
      buffers.push(copy.buffer);
    }
  }
  return new Packed(packed, buffers);
}

function copyOf(dtype: DType, data: TypedArray): TypedArray & { readonly buffer: ArrayBuffer } {
  // Not `slice`, which gives a view on the same memory for Node's Buffer.
  const Storage = DTYPES[dtype].storage as unknown as new (source: TypedArray) => TypedArray & {
    readonly buffer: ArrayBuffer;
  };
  return new Storage(data);
}

function detached(name: string): InputError {
  return new InputError(
    'ERR_INLAY_FEED_DETACHED',
    `The buffer of input "${name}" was transferred elsewhere; pass a copy, or leave "transfer" off.`,
  );
}

/** Rebuilds tensors that came through a link. */
export function toTensors(tensors: WireTensors): TensorMap {
  const rebuilt: Record<string, Tensor> = {};
  for (const name in tensors) {
    const { dtype, shape, data } = tensors[name] as WireTensors[string];
    rebuilt[name] = new Tensor(dtype, shape, data);
  }
  return rebuilt;
}
