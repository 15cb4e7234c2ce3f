/** Counters of one model, and the durations of its latest runs. */

/** What {@link Model.stats} returns. Durations are in milliseconds, over the latest 1,024 successful runs. */
export interface ModelStats {
  /** Successful runs. */
  readonly runs: number;
  /** Runs that failed in the backend; refused feeds are not among them. */
  readonly failures: number;
  /** Calls that have not settled yet. */
  readonly inFlight: number;
  readonly meanMs: number;
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly p99Ms: number;
}

/** Writable side of {@link ModelStats}. */
export interface StatsRecorder {
  started(): void;
  succeeded(durationMs: number): void;
  failed(): void;
  read(): ModelStats;
}

const WINDOW = 1024;

/** Creates counters at zero. */
export function createStats(): StatsRecorder {
  const durations = new Float64Array(WINDOW);
  let runs = 0;
  let failures = 0;
  let inFlight = 0;
  return {
    started: () => {
      inFlight += 1;
    },
    succeeded: (durationMs) => {
      durations[runs % WINDOW] = durationMs;
      runs += 1;
      inFlight -= 1;
    },
    failed: () => {
      failures += 1;
      inFlight -= 1;
    },
    read: () => {
      const sorted = durations.slice(0, Math.min(runs, WINDOW)).sort();
      const at = (quantile: number): number =>
        sorted[Math.min(sorted.length - 1, Math.floor(quantile * sorted.length))] ?? 0;
      const meanMs = sorted.length === 0 ? 0 : sorted.reduce((sum, value) => sum + value, 0) / sorted.length;
      return { runs, failures, inFlight, meanMs, p50Ms: at(0.5), p95Ms: at(0.95), p99Ms: at(0.99) };
    },
  };
}
