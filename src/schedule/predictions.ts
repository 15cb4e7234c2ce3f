import { abortWith, assertNotAborted, reasonOf } from '../core/abort.ts';
import type { TensorMap } from '../core/backend.ts';
import { DTYPES } from '../core/dtype.ts';
import type { Platform } from '../core/platform.ts';
import { Tensor } from '../core/tensor.ts';
import { predictionKey } from './prediction-key.ts';

/** Options of {@link createPredictions}. */
export interface PredictionsOptions {
  /** Memory for answers, in bytes, what goes with them included. Default 64 MiB; 0 keeps none. */
  readonly maxBytes?: number;
  /** Age, in milliseconds, from which on an answer is computed anew. Default: none. */
  readonly maxAgeMs?: number;
  /**
   * How often an input is asked about, in the recent past, before its answer is kept. Default 2: traffic that never
   * repeats itself drives nothing out. At least 1.
   */
  readonly admitAt?: number;
}

/** What a {@link Predictions} has done, counted since it was created, and what it holds. */
export interface PredictionsStats {
  /** Calls answered from memory. */
  readonly hits: number;
  /** Calls that began a computation. */
  readonly misses: number;
  /** Calls that joined a computation under way. */
  readonly joined: number;
  /** Answers kept. */
  readonly admitted: number;
  /** Answers that left again: for want of room, of age, with their model, or by `clear()`. */
  readonly evicted: number;
  /** Answers held now: `admitted` less `evicted`. */
  readonly entries: number;
  /** Memory that they take, never above `maxBytes`. */
  readonly sizeBytes: number;
}

/** Options of {@link Predictions.run}. */
export interface PredictionOptions {
  /** Names of the outputs to return; those that the model lacks are left out. Default: all. */
  readonly outputs?: readonly string[] | undefined;
  /** Gives the call up: it rejects with `signal.reason`, and others that wait for the same answer are unaffected. */
  readonly signal?: AbortSignal | undefined;
}

/** Answers of models to inputs that come again. */
export interface Predictions {
  /**
   * Answers from memory, waits for the same question under way, or computes.
   * @param model identity of the loaded version; an object asks for itself alone, whatever it was loaded from.
   * @param feeds complete and bound. They are read at the call, and must not change until it settles. An answer that
   * was computed while they changed reaches its own caller only.
   * @param compute runs the model on the same feeds and gives all outputs, whatever `options.outputs` says: one answer
   * serves every choice. The signal that it gets aborts when all who wait have given up, is `undefined` where that cannot
   * be, and is the only one to heed.
   * @returns tensors owned by the caller.
   * @throws what `compute` throws, to all who wait for it; `signal.reason` when aborted.
   */
  run(
    model: object,
    feeds: TensorMap,
    options: PredictionOptions,
    compute: (signal: AbortSignal | undefined) => Promise<TensorMap>,
  ): Promise<TensorMap>;
  /** Drops the answers of a version that is gone. Those under way are delivered and not kept. */
  forget(model: object): void;
  stats(): PredictionsStats;
  /** Drops all answers. Those under way are delivered and not kept. */
  clear(): void;
}

/** One call that waits. */
interface Caller {
  readonly feeds: TensorMap;
  readonly wanted: ReadonlySet<string> | undefined;
  readonly signal: AbortSignal | undefined;
  readonly compute: (signal: AbortSignal | undefined) => Promise<TensorMap>;
  readonly resolve: (outputs: TensorMap) => void;
  readonly reject: (reason: unknown) => void;
  /** Stops listening to the signal. */
  readonly leave: () => void;
}

/** One computation and those who wait for it, in the order of their calls. */
interface Flight {
  readonly key: string;
  readonly model: object;
  readonly id: number;
  readonly callers: Set<Caller>;
  /** How often its question came lately. */
  sightings: number;
  abort: (reason: unknown) => void;
}

/** One answer in memory. */
interface Entry {
  readonly id: number;
  readonly outputs: TensorMap;
  readonly sizeBytes: number;
  readonly sinceMs: number;
}

/** Share of the memory above which one answer is not worth what it drives out. */
const LARGEST = 1 / 8;
// What V8 takes on 64-bit machines, rounded up: an entry with its key and its place in the map; a tensor with its
// shape, its array and its buffer; the head of a string. Characters count as two bytes.
const ENTRY_BYTES = 256;
const TENSOR_BYTES = 384;
const STRING_BYTES = 24;

/**
 * Creates a cache of predictions, bounded in bytes, that drops what was asked for least recently.
 * @throws `RangeError` if an option is out of range.
 */
export function createPredictions(
  platform: Pick<Platform, 'createSha256' | 'monotonicMs'>,
  options: PredictionsOptions = {},
): Predictions {
  const { maxBytes = 64 * 2 ** 20, maxAgeMs = Infinity, admitAt = 2 } = options;
  if (!(maxBytes >= 0)) throw new RangeError(`maxBytes is a number of at least 0, got ${maxBytes}.`);
  if (!(maxAgeMs > 0)) throw new RangeError(`maxAgeMs is a number above 0, got ${maxAgeMs}.`);
  if (!(Number.isInteger(admitAt) && admitAt >= 1)) {
    throw new RangeError(`admitAt is an integer of at least 1, got ${admitAt}.`);
  }

  /** Least recently used first. */
  const entries = new Map<string, Entry>();
  const flights = new Map<string, Flight>();
  const sighted = createSightings();
  let ids = new WeakMap<object, number>();
  let lastId = 0;
  let sizeBytes = 0;
  let hits = 0;
  let misses = 0;
  let joined = 0;
  let admitted = 0;
  let evicted = 0;

  const idOf = (model: object): number => {
    const known = ids.get(model);
    if (known !== undefined) return known;
    lastId += 1;
    ids.set(model, lastId);
    return lastId;
  };

  const keyOf = (id: number, feeds: TensorMap): string => predictionKey(platform.createSha256(), id, feeds);

  const drop = (key: string, entry: Entry): void => {
    entries.delete(key);
    sizeBytes -= entry.sizeBytes;
    evicted += 1;
  };

  const lookUp = (key: string): TensorMap | undefined => {
    const entry = entries.get(key);
    if (entry === undefined) return undefined;
    if (platform.monotonicMs() - entry.sinceMs >= maxAgeMs) {
      drop(key, entry);
      return undefined;
    }
    entries.delete(key);
    entries.set(key, entry);
    return entry.outputs;
  };

  const keep = (key: string, entry: Entry): void => {
    for (const [oldKey, old] of entries) {
      if (sizeBytes + entry.sizeBytes <= maxBytes) break;
      drop(oldKey, old);
    }
    entries.set(key, entry);
    sizeBytes += entry.sizeBytes;
    admitted += 1;
  };

  const close = (flight: Flight): void => {
    if (flights.get(flight.key) === flight) flights.delete(flight.key);
    for (const caller of flight.callers) caller.leave();
    flight.callers.clear();
  };

  const launch = (flight: Flight, starter: Caller): void => {
    const controller = starter.signal && new AbortController();
    flight.abort = (reason) => {
      if (controller) abortWith(controller, reason);
    };
    new Promise<TensorMap>((resolve) => {
      resolve(starter.compute(controller?.signal));
    })
      .then((outputs) => {
        if (flight.callers.size > 0) land(flight, starter, outputs);
      })
      .catch((error: unknown) => {
        const callers = [...flight.callers];
        close(flight);
        for (const caller of callers) caller.reject(error);
      });
  };

  const land = (flight: Flight, starter: Caller, outputs: TensorMap): void => {
    const { key, id } = flight;
    const callers = [...flight.callers];
    const others = callers.filter((caller) => caller !== starter);
    const entryBytes = sizeOfEntry(outputs);
    const isKept =
      flight.sightings >= admitAt && ids.get(flight.model) === id && entryBytes <= maxBytes * LARGEST;
    // One who gave up is free to write to its feeds, so what goes to others is checked against what was asked.
    const isSpoilt =
      (isKept || others.length > 0) && !isHandedOver(starter.feeds) && keyOf(id, starter.feeds) !== key;
    const answered = isSpoilt ? callers.filter((caller) => caller === starter) : callers;
    const answers = answered.map((caller, index) => {
      const picked = pick(outputs, caller.wanted);
      return [caller, index === 0 ? picked : copyOf(picked)] as const;
    });
    const [next] = others;
    if (isSpoilt && next !== undefined) {
      starter.leave();
      flight.callers.delete(starter);
      launch(flight, next);
    } else {
      if (isKept && !isSpoilt) {
        keep(key, { id, outputs: copyOf(outputs), sizeBytes: entryBytes, sinceMs: platform.monotonicMs() });
      }
      close(flight);
    }
    for (const [caller, answer] of answers) caller.resolve(answer);
  };

  const dropIf = (isGone: (entry: Entry) => boolean): void => {
    for (const [key, entry] of entries) if (isGone(entry)) drop(key, entry);
  };

  return {
    run: (model, feeds, { outputs, signal }, compute) =>
      new Promise((resolve, reject) => {
        assertNotAborted(signal);
        const id = idOf(model);
        const key = keyOf(id, feeds);
        const wanted = outputs && new Set(outputs);
        const kept = lookUp(key);
        if (kept !== undefined) {
          hits += 1;
          resolve(copyOf(pick(kept, wanted)));
          return;
        }
        const underWay = flights.get(key);
        const flight = underWay ?? { key, model, id, callers: new Set(), sightings: 0, abort: () => {} };
        const giveUp = (): void => {
          flight.callers.delete(caller);
          reject(reasonOf(signal));
          if (flight.callers.size > 0) return;
          close(flight);
          flight.abort(reasonOf(signal));
        };
        const leave = (): void => signal?.removeEventListener('abort', giveUp);
        const caller: Caller = { feeds, wanted, signal, compute, resolve, reject, leave };
        signal?.addEventListener('abort', giveUp, { once: true });
        flight.callers.add(caller);
        flight.sightings = sighted(key);
        if (underWay !== undefined) {
          joined += 1;
          return;
        }
        misses += 1;
        flights.set(key, flight);
        launch(flight, caller);
      }),
    forget: (model) => {
      const id = ids.get(model);
      ids.delete(model);
      dropIf((entry) => entry.id === id);
    },
    stats: () => ({ hits, misses, joined, admitted, evicted, entries: entries.size, sizeBytes }),
    clear: () => {
      ids = new WeakMap();
      dropIf(() => true);
    },
  };
}

/** Distinct questions in one generation of {@link createSightings}: two of them take about 1 MiB. */
const GENERATION = 8192;

/**
 * Counts how often each key came lately: it remembers between one and two generations of distinct keys, by their first
 * 64 bits.
 * @returns tells how often a key came, this time included.
 */
function createSightings(): (key: string) => number {
  let young = new Map<string, number>();
  let old = young;
  return (key) => {
    const short = key.slice(0, 8);
    const count = (young.get(short) ?? old.get(short) ?? 0) + 1;
    if (young.size >= GENERATION && !young.has(short)) {
      old = young;
      young = new Map();
    }
    young.set(short, count);
    return count;
  };
}

/** Whether the buffer of a feed was given away; nobody can have written to those that the computation took over. */
function isHandedOver(feeds: TensorMap): boolean {
  return Object.values(feeds).some(({ data, size }) => data.length === 0 && size > 0);
}

function pick(outputs: TensorMap, wanted: ReadonlySet<string> | undefined): TensorMap {
  if (wanted === undefined) return outputs;
  return Object.fromEntries(Object.entries(outputs).filter(([name]) => wanted.has(name)));
}

function copyOf(outputs: TensorMap): TensorMap {
  return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, copyOfTensor(tensor)]));
}

function copyOfTensor({ dtype, shape, data }: Tensor): Tensor {
  // Not `slice`: that of a Node Buffer, a Uint8Array like any other, gives a view.
  const Storage = DTYPES[dtype].storage as new (elements: Tensor['data']) => Tensor['data'];
  return new Tensor(dtype, [...shape], ArrayBuffer.isView(data) ? new Storage(data) : [...data]);
}

function sizeOfEntry(outputs: TensorMap): number {
  let sizeBytes = ENTRY_BYTES;
  for (const [name, { shape, data }] of Object.entries(outputs)) {
    sizeBytes += TENSOR_BYTES + 2 * name.length + 8 * shape.length;
    if (ArrayBuffer.isView(data)) sizeBytes += data.byteLength;
    else for (const text of data) sizeBytes += STRING_BYTES + 2 * text.length;
  }
  return sizeBytes;
}
