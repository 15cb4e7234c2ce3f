/** Metrics as OTLP/HTTP JSON (OpenTelemetry Protocol 1.0, "JSON Protobuf Encoding"): 64-bit integers are strings. */

import { bucketsOf, countOf, downscale } from '../../telemetry/histogram.ts';
import type { HistogramCounts } from '../../telemetry/report.ts';
import type { Family, Labels, Sample } from './family.ts';

/** `AGGREGATION_TEMPORALITY_CUMULATIVE`. */
const cumulative = 2;
/** Longest list of buckets, as the SDKs of OpenTelemetry have it. */
const mostBuckets = 160;

/** Names and units of OpenTelemetry by name of Prometheus. What is not here is of the server alone. */
const names: Readonly<Record<string, readonly [name: string, unit: string]>> = {
  inlay_devices: ['inlay.devices', '{device}'],
  inlay_inferences: ['inlay.inference.count', '{inference}'],
  inlay_inference_executions: ['inlay.inference.executions', '{execution}'],
  inlay_inference_duration_seconds: ['inlay.inference.duration', 's'],
  inlay_model_load_duration_seconds: ['inlay.model.load.duration', 's'],
  inlay_cache_requests: ['inlay.cache.requests', '{request}'],
  inlay_cpu_seconds: ['inlay.cpu.time', 's'],
  inlay_update_received_bytes: ['inlay.update.received', 'By'],
  inlay_cost_usd: ['inlay.inference.cost', '{USD}'],
  inlay_crashes: ['inlay.crash.count', '{crash}'],
  inlay_activations: ['inlay.activation.count', '{activation}'],
  inlay_trials: ['inlay.trial.count', '{trial}'],
  inlay_feedback: ['inlay.feedback.count', '{label}'],
  inlay_business_events: ['inlay.business.events', '{event}'],
  inlay_guard_log_evalue: ['inlay.guard.log_e', '1'],
  inlay_rollout_exposed_devices: ['inlay.rollout.exposed', '{device}'],
  inlay_drift_score: ['inlay.drift.score', '1'],
  inlay_telemetry_reports: ['inlay.telemetry.reports', '{report}'],
  inlay_telemetry_lost_reports: ['inlay.telemetry.lost_reports', '{report}'],
  inlay_telemetry_dropped_reports: ['inlay.telemetry.dropped_reports', '{report}'],
  inlay_telemetry_skewed_reports: ['inlay.telemetry.skewed_reports', '{report}'],
  inlay_telemetry_windows: ['inlay.telemetry.windows', '{window}'],
};

/** Names of attributes by label. */
const attributes: Readonly<Record<string, string>> = {
  model: 'inlay.model.name',
  version: 'inlay.model.version',
  error_type: 'error.type',
  result: 'inlay.result',
  phase: 'inlay.phase',
  start: 'inlay.start',
};

/** When something was measured, milliseconds since 1970. */
export interface Span {
  readonly startMs: number;
  readonly atMs: number;
}

/** Writes families as one request. @param version - of this package. */
export function otlpBody(families: readonly Family[], span: Span, version: string): unknown {
  return {
    resourceMetrics: [
      {
        resource: { attributes: attributesOf({ 'service.name': 'inlay-sync', 'service.version': version }) },
        scopeMetrics: [
          {
            scope: { name: 'inlay', version },
            metrics: families.flatMap((family) => metricOf(family, span)),
          },
        ],
      },
    ],
  };
}

function metricOf({ name: own, type, help, samples }: Family, span: Span): unknown[] {
  const [name, unit] = names[own] ?? [];
  if (name === undefined || samples.length === 0) return [];
  const time = { startTimeUnixNano: nanoseconds(span.startMs), timeUnixNano: nanoseconds(span.atMs) };
  const dataPoints = samples.map((sample) => ({ ...pointOf(sample), ...time }));
  const head = { name, unit, description: help };
  if (type === 'gauge') return [{ ...head, gauge: { dataPoints } }];
  return type === 'counter'
    ? [{ ...head, sum: { aggregationTemporality: cumulative, isMonotonic: true, dataPoints } }]
    : [{ ...head, exponentialHistogram: { aggregationTemporality: cumulative, dataPoints } }];
}

function pointOf({ labels, value }: Sample): Readonly<Record<string, unknown>> {
  const named = { attributes: attributesOf(labels) };
  if (typeof value !== 'number') return { ...named, ...histogramOf(value) };
  return Number.isSafeInteger(value) ? { ...named, asInt: String(value) } : { ...named, asDouble: value };
}

function histogramOf(times: HistogramCounts): Readonly<Record<string, unknown>> {
  const range = bucketsOf(times);
  const width = (by: number): number =>
    ((range.at(-1)?.index ?? 0) >> by) - ((range[0]?.index ?? 0) >> by) + 1;
  let by = 0;
  while (width(by) > mostBuckets) by += 1;
  const { s, z, sum, min, max, b } = by === 0 ? times : downscale(times, by);
  const buckets = bucketsOf({ s, z, sum, b });
  const offset = buckets[0]?.index ?? 0;
  const bucketCounts = Array.from({ length: buckets.length === 0 ? 0 : width(by) }, () => '0');
  for (const { index, count } of buckets) bucketCounts[index - offset] = String(count);
  return {
    count: String(countOf(times)),
    sum,
    ...(min !== undefined && max !== undefined && { min, max }),
    scale: s,
    zeroCount: String(z),
    positive: { offset, bucketCounts },
  };
}

function attributesOf(labels: Labels): unknown[] {
  return Object.entries(labels).flatMap(([name, value]) =>
    value === '' ? [] : [{ key: attributes[name] ?? otherKey(name), value: { stringValue: value } }],
  );
}

function otherKey(name: string): string {
  return name.includes('.') ? name : `inlay.${name}`;
}

/** Beyond what a number holds exactly. */
function nanoseconds(ms: number): string {
  return String(BigInt(Math.round(ms)) * 1_000_000n);
}
