/** How long models take, measured so that the figures can be compared: in turns, on the machine that is asked about. */

import type { TensorMap } from '../core/backend.ts';
import { batchOf } from './batches.ts';
import type { OpenOptions, OptimizeRuntime, RuntimeSession } from './runtime.ts';

/** A model that is measured. */
export interface Subject {
  readonly name: string;
  readonly model: Uint8Array;
}

/** Options of {@link measureModels}. */
export interface MeasureOptions extends OpenOptions {
  /** Monotonic clock, milliseconds. */
  readonly monotonicMs: () => number;
  /** Inputs whose rows batches are made of, by {@link batchOf}. */
  readonly samples: readonly TensorMap[];
  /** Rows of one call; each is measured. Default `[1]`. */
  readonly batches?: readonly number[];
  /** Least runs of each model for each batch, if there is no early end. Default 30. */
  readonly runs?: number;
  /** Turns that these are spread over. Default 10. */
  readonly rounds?: number;
  /** Shortest time of one turn, milliseconds: quick models run more often. Default 20. */
  readonly turnMs?: number;
  /** Longest time for all models at one batch, milliseconds; at least one turn each is measured. Default 60 000. */
  readonly budgetMs?: number;
  readonly signal?: AbortSignal;
  /** Gets the share of turns that are done, in [0, 1]. */
  readonly onProgress?: (ratio: number) => void;
}

/** Latency of one model at one batch. */
export interface Latency {
  readonly batch: number;
  /** 10th percentile, milliseconds: what the model needs when nothing else uses the machine. */
  readonly p10Ms: number;
  /** Median, milliseconds. */
  readonly p50Ms: number;
  /** Runs that were timed. */
  readonly runs: number;
}

/** What was measured of one model. */
export interface Measurement {
  readonly name: string;
  /** Time to open the model, milliseconds; the shortest if it was opened more than once. */
  readonly loadMs: number;
  /** Memory that opening took; absent where the runtime cannot say. */
  readonly memoryBytes?: number;
  /** In the order of the batches. */
  readonly latencies: readonly Latency[];
}

const DEFAULTS = { batches: [1], runs: 30, rounds: 10, turnMs: 20, budgetMs: 60_000, threads: 1 };
/** Runs before the first that counts, in each session: memory is laid out and weights are packed. */
const WARM_UP = 2;
/** Most runs of one turn. */
const TURN_RUNS = 500;
/** Turns after which the order of two models may be taken as clear. */
const CLEAR_ROUNDS = 5;
/** Least ratio of two models whose order is clear: closer ones count as a tie. */
const CLEAR_RATIO = 1.05;

/**
 * Measures models in turns, so that whatever else the machine does hits all of them. The order within a turn changes from
 * turn to turn. Ends early once no two models could change places. With several threads one model is open at a time,
 * since idle threads of others would spin.
 * @returns one measurement for each subject, in their order.
 * @throws what the runtime throws, and {@link batchOf}; the reason of `signal`.
 */
export async function measureModels(
  subjects: readonly Subject[],
  runtime: OptimizeRuntime,
  options: MeasureOptions,
): Promise<readonly Measurement[]> {
  const { batches, threads } = { ...DEFAULTS, ...options };
  const contestants = subjects.map((subject) => createContestant(subject, runtime, options, threads > 1));
  try {
    const latencies: Latency[][] = subjects.map(() => []);
    for (const [i, batch] of batches.entries()) {
      const onProgress = (ratio: number): void => options.onProgress?.((i + ratio) / batches.length);
      const turns = await race(contestants, batch, { ...options, onProgress });
      for (const [at, own] of turns.entries()) latencies[at]?.push(toLatency(batch, own.flat()));
    }
    return contestants.map((contestant, i) => ({ ...contestant.facts(), latencies: latencies[i] ?? [] }));
  } finally {
    for (const contestant of contestants) await contestant.close();
  }
}

/** The value below which a share `q` of the values lies. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

/** Times of each turn of each contestant at one batch. */
async function race(
  contestants: readonly Contestant[],
  batch: number,
  options: MeasureOptions,
): Promise<readonly (readonly (readonly number[])[])[]> {
  const { rounds, budgetMs } = { ...DEFAULTS, ...options };
  const startedMs = options.monotonicMs();
  const turns: number[][][] = contestants.map(() => []);
  for (let round = 0; round < rounds; round += 1) {
    for (let i = 0; i < contestants.length; i += 1) {
      options.signal?.throwIfAborted();
      const at = (i + round) % contestants.length;
      turns[at]?.push([...((await contestants[at]?.turn(batch)) ?? [])]);
    }
    options.onProgress?.((round + 1) / rounds);
    if (isClear(turns) || options.monotonicMs() - startedMs > budgetMs) break;
  }
  options.onProgress?.(1);
  return turns;
}

/** Whether each two neighbours in the ranking kept their order in all turns, by more than a tie. */
function isClear(turns: readonly (readonly (readonly number[])[])[]): boolean {
  if (turns.length < 2 || (turns[0]?.length ?? 0) < CLEAR_ROUNDS) return false;
  const medians = turns.map((own) => own.map((times) => quantile(times, 0.5)));
  const ranked = medians.sort((a, b) => quantile(a, 0.5) - quantile(b, 0.5));
  return ranked.every((slower, i) => {
    const faster = ranked[i - 1];
    return i === 0 || slower.every((ms, round) => ms > CLEAR_RATIO * (faster?.[round] ?? 0));
  });
}

function toLatency(batch: number, times: readonly number[]): Latency {
  return { batch, p10Ms: quantile(times, 0.1), p50Ms: quantile(times, 0.5), runs: times.length };
}

/** One model, opened when it is needed. */
interface Contestant {
  /** Runs one turn. @returns milliseconds of each run. */
  turn(batch: number): Promise<readonly number[]>;
  facts(): Omit<Measurement, 'latencies'>;
  close(): Promise<void>;
}

function createContestant(
  { name, model }: Subject,
  runtime: OptimizeRuntime,
  options: MeasureOptions,
  isAlone: boolean,
): Contestant {
  const { monotonicMs, samples, level = 'all' } = options;
  const { threads, rounds, runs, turnMs } = { ...DEFAULTS, ...options };
  let loadMs = Infinity;
  let memoryBytes: number | undefined;
  let opened: RuntimeSession | undefined;
  let prepared: { readonly batch: number; readonly feeds: TensorMap } | undefined;
  let isWarm = false;
  let turnRuns = 1;

  const open = async (): Promise<RuntimeSession> => {
    const before = memoryBytes === undefined ? await runtime.memoryBytes?.() : undefined;
    const startedMs = monotonicMs();
    const session = await runtime.open(model, { level, threads });
    loadMs = Math.min(loadMs, monotonicMs() - startedMs);
    isWarm = false;
    if (before !== undefined) memoryBytes = Math.max(0, ((await runtime.memoryBytes?.()) ?? before) - before);
    return session;
  };
  const close = async (): Promise<void> => {
    const session = opened;
    opened = undefined;
    await session?.release();
  };
  return {
    turn: async (batch) => {
      opened ??= await open();
      try {
        if (prepared?.batch !== batch) {
          prepared = { batch, feeds: batchOf(opened.inputs, samples, batch) };
          isWarm = false;
        }
        if (!isWarm) {
          const times = await opened.time(prepared.feeds, WARM_UP);
          const quickestMs = Math.max(1e-3, Math.min(...times));
          turnRuns = Math.min(TURN_RUNS, Math.max(Math.ceil(runs / rounds), Math.ceil(turnMs / quickestMs)));
          isWarm = true;
        }
        return await opened.time(prepared.feeds, turnRuns);
      } finally {
        if (isAlone) await close();
      }
    },
    facts: () => ({ name, loadMs, ...(memoryBytes !== undefined && { memoryBytes }) }),
    close,
  };
}
