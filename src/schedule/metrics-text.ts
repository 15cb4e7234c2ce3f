import type { HistogramSnapshot } from './histogram.ts';
import type { Metrics, QueueSnapshot } from './metrics.ts';

/** Figures of a model that go up and down, where they are known. */
export interface QueueGauges {
  /** Calls that wait. */
  readonly waiting?: number;
  /** Calls whose batch runs. */
  readonly running?: number;
  /** Bytes of feeds that wait. */
  readonly waitingBytes?: number;
  /** Places in which the model is open. */
  readonly slots?: number;
  /** Samples that a batch may have now. */
  readonly batchCap?: number;
  /** Learned cost of a batch: so much for each sample … */
  readonly perSampleMs?: number;
  /** … and so much for the batch. */
  readonly perBatchMs?: number;
}

/** A model whose metrics are to be written. */
export interface MeasuredModel {
  /** Name under which it was loaded; files and bytes have none. */
  readonly name: string | undefined;
  readonly version: string | undefined;
  readonly metrics: Pick<Metrics, 'snapshot'>;
  readonly gauges?: QueueGauges;
}

/**
 * Writes the metrics of models in the text format 0.0.4 of Prometheus; serve it as `text/plain; version=0.0.4`.
 * Every metric of Inlay is also there under the name that Triton gives it, where Triton has one. Models that share name
 * and version are told apart by the label `handle`.
 */
export function formatPrometheus(models: readonly MeasuredModel[]): string {
  const labels = labelsOf(models);
  const measured = models.map(({ metrics, gauges = {} }, index) => ({
    labels: labels[index] as Labels,
    snapshot: metrics.snapshot(),
    gauges,
  }));
  let text = '';
  for (const { name, type, help, read } of FAMILIES) {
    let lines = '';
    for (const model of measured) {
      for (const { suffix = '', labels: own = [], value } of read(model)) {
        lines += `${name}${suffix}${formatLabels([...model.labels, ...own])} ${formatNumber(value)}\n`;
      }
    }
    if (lines !== '') text += `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines}`;
  }
  return text;
}

type Labels = readonly (readonly [name: string, value: string])[];

interface Sample {
  readonly suffix?: string;
  readonly labels?: Labels;
  readonly value: number;
}

interface Measured {
  readonly labels: Labels;
  readonly snapshot: QueueSnapshot;
  readonly gauges: QueueGauges;
}

interface Family {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly read: (model: Measured) => readonly Sample[];
}

const counter = (name: string, help: string, read: (snapshot: QueueSnapshot) => number): Family => ({
  name,
  type: 'counter',
  help,
  read: ({ snapshot }) => [{ value: read(snapshot) }],
});

const counters = (
  name: string,
  help: string,
  read: (snapshot: QueueSnapshot) => Readonly<Record<string, number>>,
): Family => ({
  name,
  type: 'counter',
  help,
  read: ({ snapshot }) =>
    Object.entries(read(snapshot)).map(([reason, value]) => ({ labels: [['reason', reason]], value })),
});

const gauge = (name: string, help: string, key: keyof QueueGauges, unit = 1): Family => ({
  name,
  type: 'gauge',
  help,
  read: ({ gauges }) => {
    const value = gauges[key];
    return value === undefined ? [] : [{ value: value * unit }];
  },
});

/** Buckets end at powers of two, at which the counts are exact. */
const histogram = (
  name: string,
  help: string,
  [lowest, highest]: readonly [number, number],
  read: (snapshot: QueueSnapshot) => HistogramSnapshot,
  unit = 1,
): Family => ({
  name,
  type: 'histogram',
  help,
  read: ({ snapshot }) => {
    const { buckets, count, sum, zeros } = read(snapshot);
    const samples: Sample[] = [];
    let seen = zeros;
    let at = 0;
    for (let exponent = lowest; exponent <= highest; exponent += 1) {
      const bound = 2 ** exponent;
      for (let next = buckets[at]; next !== undefined && next.upTo <= bound; next = buckets[at]) {
        seen += next.count;
        at += 1;
      }
      samples.push({ suffix: '_bucket', labels: [['le', formatNumber(bound * unit)]], value: seen });
    }
    samples.push({ suffix: '_bucket', labels: [['le', '+Inf']], value: count });
    samples.push({ suffix: '_sum', value: sum * unit }, { suffix: '_count', value: count });
    return samples;
  },
});

const SECOND_PER_MS = 1e-3;
/** 2^-7 ms to 2^14 ms: 8 microseconds to 16 seconds. */
const DURATION = [-7, 14] as const;
const toMicroseconds = (ms: number): number => Math.max(0, Math.round(ms * 1000));

/** Triton's names as of its metrics documentation, "Inference Request Metrics". Its times are sums over requests. */
const FAMILIES: readonly Family[] = [
  counter('inlay_calls_accepted_total', 'Calls that were let in.', ({ calls }) => calls.accepted),
  counter('inlay_calls_answered_total', 'Calls that were answered.', ({ calls }) => calls.answered),
  counter('inlay_calls_failed_total', 'Calls that failed in the backend.', ({ calls }) => calls.failed),
  counter('inlay_calls_aborted_total', 'Calls that their caller gave up.', ({ calls }) => calls.aborted),
  counters('inlay_calls_rejected_total', 'Calls given up before they ran.', ({ calls }) => calls.rejected),
  counters(
    'inlay_dispatches_total',
    'Batches by the reason for which they were sent off.',
    (s) => s.dispatches,
  ),
  counter('inlay_batches_total', 'Batches that were sent off.', ({ batches }) => batches),
  counter('inlay_samples_total', 'Samples in all batches.', ({ samples }) => samples),
  counter('inlay_replays_total', 'Calls made again after their worker had died.', ({ replays }) => replays),
  counter('inlay_verifications_total', 'Batches compared with solo runs.', (s) => s.verifications),
  histogram(
    'inlay_queue_seconds',
    'Wait of a call for its batch.',
    DURATION,
    (s) => s.queueMs,
    SECOND_PER_MS,
  ),
  histogram(
    'inlay_batch_form_seconds',
    'Putting a batch together.',
    DURATION,
    (s) => s.formMs,
    SECOND_PER_MS,
  ),
  histogram('inlay_compute_seconds', 'Run of a batch.', DURATION, (s) => s.computeMs, SECOND_PER_MS),
  histogram('inlay_call_seconds', 'Call until its answer.', DURATION, (s) => s.totalMs, SECOND_PER_MS),
  histogram('inlay_batch_size', 'Samples of a batch.', [0, 12], ({ batchSize }) => batchSize),
  histogram('inlay_padding_ratio', 'Share of a batch that is padding.', [-7, 0], (s) => s.paddingRatio),
  gauge('inlay_waiting_calls', 'Calls that wait.', 'waiting'),
  gauge('inlay_running_calls', 'Calls whose batch runs.', 'running'),
  gauge('inlay_waiting_bytes', 'Bytes of feeds that wait.', 'waitingBytes'),
  gauge('inlay_slots', 'Places in which the model is open.', 'slots'),
  gauge('inlay_batch_cap', 'Samples that a batch may have now.', 'batchCap'),
  gauge('inlay_cost_per_sample_seconds', 'Learned cost of a sample.', 'perSampleMs', SECOND_PER_MS),
  gauge('inlay_cost_per_batch_seconds', 'Learned cost of a batch.', 'perBatchMs', SECOND_PER_MS),
  counter('nv_inference_request_success', 'Number of successful requests.', ({ calls }) => calls.answered),
  counters('nv_inference_request_failure', 'Number of failed requests.', ({ calls }) => ({
    REJECTED: Object.values(calls.rejected).reduce((sum, count) => sum + count, 0),
    CANCELED: calls.aborted,
    BACKEND: calls.failed,
    OTHER: 0,
  })),
  counter('nv_inference_count', 'Number of samples.', ({ samples }) => samples),
  counter('nv_inference_exec_count', 'Number of batches.', ({ batches }) => batches),
  gauge('nv_inference_pending_request_count', 'Number of waiting requests.', 'waiting'),
  counter('nv_inference_request_duration_us', 'Cumulative time of requests.', (s) =>
    toMicroseconds(s.totalMs.sum),
  ),
  counter('nv_inference_queue_duration_us', 'Cumulative wait of requests.', (s) =>
    toMicroseconds(s.queueMs.sum),
  ),
  counter('nv_inference_compute_infer_duration_us', 'Cumulative run of requests.', (s) =>
    toMicroseconds(s.totalMs.sum - s.queueMs.sum),
  ),
];

function labelsOf(models: readonly MeasuredModel[]): Labels[] {
  const seen = new Map<string, number>();
  return models.map(({ name = '', version = '' }) => {
    const key = JSON.stringify([name, version]);
    const handle = (seen.get(key) ?? 0) + 1;
    seen.set(key, handle);
    const labels: [string, string][] = [
      ['model', name],
      ['version', version],
    ];
    if (handle > 1) labels.push(['handle', String(handle)]);
    return labels;
  });
}

function formatLabels(labels: Labels): string {
  const escape = (value: string): string =>
    value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
  return `{${labels.map(([name, value]) => `${name}="${escape(value)}"`).join(',')}}`;
}

function formatNumber(value: number): string {
  return Number.isFinite(value) ? String(value) : Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf';
}
