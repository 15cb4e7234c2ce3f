/** Metrics as text: Prometheus 0.0.4 and OpenMetrics 1.0. */

import { cumulativeOf } from '../../telemetry/histogram.ts';
import type { HistogramCounts } from '../../telemetry/report.ts';

/** Labels of a sample, in order. */
export type Labels = Readonly<Record<string, string>>;

/** One number, or one distribution. */
export interface Sample {
  readonly labels: Labels;
  readonly value: number | HistogramCounts;
}

/** Samples of one name. */
export interface Family {
  /** Without `_total`, which counters get. */
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly samples: readonly Sample[];
}

/** How metrics are written. */
export type MetricsFormat = 'prometheus' | 'openmetrics';

/** Content types by format. */
export const contentTypes: Readonly<Record<MetricsFormat, string>> = {
  prometheus: 'text/plain; version=0.0.4; charset=utf-8',
  openmetrics: 'application/openmetrics-text; version=1.0.0; charset=utf-8',
};

/** Edges of the buckets, seconds: powers of two from 1 ms to 64 s, at which exponential histograms are exact. */
const edges: readonly number[] = Array.from({ length: 17 }, (_, i) => 2 ** (i - 10));

/** Writes families; those without samples are left out. */
export function writeMetrics(families: readonly Family[], format: MetricsFormat): string {
  const lines = families
    .filter(({ samples }) => samples.length > 0)
    .flatMap(({ name, type, help, samples }) => {
      // OpenMetrics names the family of a counter without the suffix of its samples.
      const total = type === 'counter' ? `${name}_total` : name;
      const family = format === 'openmetrics' ? name : total;
      const head = [`# HELP ${family} ${escapeHelp(help)}`, `# TYPE ${family} ${type}`];
      return [...head, ...samples.flatMap(({ labels, value }) => linesOf(total, labels, value))];
    });
  if (format === 'openmetrics') lines.push('# EOF');
  return lines.map((line) => `${line}\n`).join('');
}

function linesOf(name: string, labels: Labels, value: number | HistogramCounts): string[] {
  if (typeof value === 'number') return [`${name}${labelsOf(labels)} ${numberOf(value)}`];
  const steps = cumulativeOf(value);
  const count = steps.at(-1)?.count ?? 0;
  let at = 0;
  let seen = 0;
  const buckets = edges.map((edge) => {
    for (let next = steps[at]; next && next.upTo <= edge; next = steps[at]) {
      seen = next.count;
      at += 1;
    }
    return `${name}_bucket${labelsOf({ ...labels, le: edge < 1 ? String(edge) : `${edge}.0` })} ${seen}`;
  });
  return [
    ...buckets,
    `${name}_bucket${labelsOf({ ...labels, le: '+Inf' })} ${count}`,
    `${name}_sum${labelsOf(labels)} ${numberOf(value.sum)}`,
    `${name}_count${labelsOf(labels)} ${count}`,
  ];
}

function labelsOf(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

function escapeLabel(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

function escapeHelp(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
}

function numberOf(value: number): string {
  if (Number.isFinite(value)) return String(value);
  return Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf';
}
