/** One way to answer calls. */
export interface Contestant {
  readonly name: string;
  /** Answers one call. @param call - number of the call, from 0, to choose its feeds by. */
  run(call: number): Promise<unknown>;
}

/** What was measured of one contestant under one load. */
export interface Figures {
  readonly name: string;
  /** Callers, each of which makes its next call when the last one was answered. */
  readonly concurrency: number;
  /** Medians of the rounds. */
  readonly callsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Calls of all rounds. */
  readonly calls: number;
  /** Calls per second of each round, in order: those of one round were measured one after another. */
  readonly rounds: readonly number[];
}

const ROUNDS = 5;

/**
 * Measures each contestant under one load. They take turns, round by round, so that they share whatever else the
 * machine does; a first turn, in which caches, compilers and batch sizes settle, does not count.
 * @param seconds - time for each contestant, all rounds together.
 */
export async function measure(
  contestants: readonly Contestant[],
  concurrency: number,
  seconds: number,
): Promise<Figures[]> {
  const turns: Turn[][] = contestants.map(() => []);
  for (let round = -1; round < ROUNDS; round += 1) {
    for (const [index, contestant] of contestants.entries()) {
      const turn = await takeTurn(contestant, concurrency, (seconds * 1000) / ROUNDS);
      if (round >= 0) turns[index]?.push(turn);
    }
  }
  return contestants.map(({ name }, index) => {
    const own = turns[index] as Turn[];
    const rounds = own.map(({ durations, tookMs }) => (durations.length * 1000) / tookMs);
    return {
      name,
      concurrency,
      callsPerSecond: median(rounds),
      p50Ms: median(own.map(({ durations }) => quantile(durations, 0.5))),
      p99Ms: median(own.map(({ durations }) => quantile(durations, 0.99))),
      calls: own.reduce((sum, { durations }) => sum + durations.length, 0),
      rounds,
    };
  });
}

/** How many times as fast `figures` are as `baseline`: the median of what their rounds say. */
export function ratioOf(figures: Figures, baseline: Figures): number {
  return median(figures.rounds.map((rate, round) => rate / (baseline.rounds[round] as number)));
}

interface Turn {
  /** Milliseconds of each call. */
  readonly durations: readonly number[];
  readonly tookMs: number;
}

async function takeTurn(contestant: Contestant, concurrency: number, lengthMs: number): Promise<Turn> {
  const durations: number[] = [];
  const start = performance.now();
  const end = start + lengthMs;
  let calls = 0;
  const caller = async (): Promise<void> => {
    let before = performance.now();
    do {
      await contestant.run(calls++);
      const after = performance.now();
      durations.push(after - before);
      before = after;
    } while (before < end);
  };
  await Promise.all(Array.from({ length: concurrency }, caller));
  return { durations, tookMs: performance.now() - start };
}

function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] as number;
}
