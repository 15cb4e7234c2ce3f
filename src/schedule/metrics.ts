import { createHistogram, type Histogram, type HistogramSnapshot } from './histogram.ts';

/**
 * Why a batch was sent off: a place was free (`idle`), it was as large as pays (`full`), its callers had come back
 * (`cohort`), an earlier one failed (`retry`), its model is not batched (`solo`), its queue closes (`flush`).
 */
export type DispatchReason = (typeof DISPATCH_REASONS)[number];
/**
 * Why a call was given up before it ran: its deadline could not be kept (`deadline_predicted`) or was over
 * (`deadline_passed`), too many calls (`queue_full`) or bytes (`bytes_full`) waited, a call of higher priority took its
 * place (`shed`), its model was closed (`closed`).
 */
export type RejectReason = (typeof REJECT_REASONS)[number];

const DISPATCH_REASONS = ['idle', 'full', 'cohort', 'retry', 'solo', 'flush'] as const;
const REJECT_REASONS = [
  'deadline_predicted',
  'deadline_passed',
  'queue_full',
  'bytes_full',
  'shed',
  'closed',
] as const;

/** What is only ever counted up. */
export interface QueueCounts {
  readonly calls: {
    /** Calls that were let in. Each one is answered, fails, is aborted or is rejected later, or still waits. */
    readonly accepted: number;
    readonly answered: number;
    readonly failed: number;
    readonly aborted: number;
    /** Calls that were given up, at the door or while they waited. */
    readonly rejected: Readonly<Record<RejectReason, number>>;
  };
  /** Batches by the reason for which they were sent off. */
  readonly dispatches: Readonly<Record<DispatchReason, number>>;
  readonly batches: number;
  /** Samples in all batches; those that were tried again count again. */
  readonly samples: number;
  /** Calls that were made again since their worker had died. */
  readonly replays: number;
  /** Batches that were compared with solo runs. */
  readonly verifications: number;
}

/** What is measured, each in the form that the reader wants. */
export interface QueueMeasures<Form> {
  /** From the acceptance of a call until its batch starts, in milliseconds. */
  readonly queueMs: Form;
  /** Putting a batch together, in milliseconds. */
  readonly formMs: Form;
  /** Run of a batch, in milliseconds. */
  readonly computeMs: Form;
  /** From the acceptance of a call until its answer, in milliseconds. */
  readonly totalMs: Form;
  /** Samples of a batch. */
  readonly batchSize: Form;
  /** Share of a batch that is padding, in [0, 1]. */
  readonly paddingRatio: Form;
}

/** A distribution in a few figures, all 0 while nothing was measured. Quantiles are off by at most 4.5 %. */
export interface Summary {
  readonly count: number;
  readonly mean: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

/** What happened to the calls of a model, for people and dashboards. */
export type QueueStats = QueueCounts & QueueMeasures<Summary>;
/** What happened to the calls of a model, with all buckets, for export. */
export type QueueSnapshot = QueueCounts & QueueMeasures<HistogramSnapshot>;

/** Counts and measures one model's queue. Everything but {@link read} and {@link snapshot} allocates nothing. */
export interface Metrics {
  accepted(): void;
  /** A call has its answer. Times are in milliseconds from its acceptance: until its batch started, and until now. */
  answered(queueMs: number, totalMs: number): void;
  failed(): void;
  aborted(): void;
  rejected(reason: RejectReason): void;
  /**
   * A batch was sent off.
   * @param formMs - what it took to put it together, where there was something to put together.
   * @param paddingRatio - share of it that is padding, where the model may be padded.
   */
  dispatched(reason: DispatchReason, samples: number, formMs?: number, paddingRatio?: number): void;
  /** A batch has come back, `computeMs` milliseconds after it started. */
  batchDone(computeMs: number): void;
  replayed(calls: number): void;
  verified(): void;
  read(): QueueStats;
  snapshot(): QueueSnapshot;
}

/** Creates counters at zero and empty histograms. */
export function createMetrics(): Metrics {
  const measures: QueueMeasures<Histogram> = {
    queueMs: createHistogram(),
    formMs: createHistogram(),
    computeMs: createHistogram(),
    totalMs: createHistogram(),
    batchSize: createHistogram(),
    paddingRatio: createHistogram(),
  };
  const { queueMs, formMs, computeMs, totalMs, batchSize, paddingRatio } = measures;
  const calls = { accepted: 0, answered: 0, failed: 0, aborted: 0 };
  const rejected = zeros(REJECT_REASONS);
  const dispatches = zeros(DISPATCH_REASONS);
  const others = { batches: 0, samples: 0, replays: 0, verifications: 0 };

  const counts = (): QueueCounts => ({
    calls: { ...calls, rejected: { ...rejected } },
    dispatches: { ...dispatches },
    ...others,
  });

  return {
    accepted: () => {
      calls.accepted += 1;
    },
    answered: (queued, total) => {
      calls.answered += 1;
      queueMs.record(queued);
      totalMs.record(total);
    },
    failed: () => {
      calls.failed += 1;
    },
    aborted: () => {
      calls.aborted += 1;
    },
    rejected: (reason) => {
      rejected[reason] += 1;
    },
    dispatched: (reason, samples, forming, padding) => {
      dispatches[reason] += 1;
      others.batches += 1;
      others.samples += samples;
      batchSize.record(samples);
      if (forming !== undefined) formMs.record(forming);
      if (padding !== undefined) paddingRatio.record(padding);
    },
    batchDone: (took) => {
      computeMs.record(took);
    },
    replayed: (again) => {
      others.replays += again;
    },
    verified: () => {
      others.verifications += 1;
    },
    read: () => ({ ...counts(), ...mapMeasures(measures, summarize) }),
    snapshot: () => ({ ...counts(), ...mapMeasures(measures, (histogram) => histogram.snapshot()) }),
  };
}

function zeros<Name extends string>(names: readonly Name[]): Record<Name, number> {
  return Object.fromEntries(names.map((name) => [name, 0])) as Record<Name, number>;
}

function mapMeasures<From, To>(measures: QueueMeasures<From>, to: (measure: From) => To): QueueMeasures<To> {
  return {
    queueMs: to(measures.queueMs),
    formMs: to(measures.formMs),
    computeMs: to(measures.computeMs),
    totalMs: to(measures.totalMs),
    batchSize: to(measures.batchSize),
    paddingRatio: to(measures.paddingRatio),
  };
}

function summarize(histogram: Histogram): Summary {
  const { count, mean, max, quantile } = histogram;
  return { count, mean, p50: quantile(0.5), p95: quantile(0.95), p99: quantile(0.99), max };
}
