import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatPrometheus, type MeasuredModel } from '../../../src/schedule/metrics-text.ts';
import { createMetrics, type Metrics } from '../../../src/schedule/metrics.ts';

type Labels = Readonly<Record<string, string>>;

interface Family {
  readonly type: string;
  readonly samples: { readonly name: string; readonly labels: Labels; readonly value: number }[];
}

/**
 * Reads the text exposition format 0.0.4 and refuses all that its description does not allow: families in one piece,
 * HELP and TYPE first, no series twice, and histograms whose buckets ascend to `_count`.
 */
function parse(text: string): Map<string, Family> {
  const families = new Map<string, Family>();
  const series = new Set<string>();
  const lines = text.split('\n');
  if (lines.pop() !== '') throw new Error('The last line has no line feed.');
  let helped: string | undefined;
  let current: [string, Family] | undefined;
  for (const line of lines) {
    const comment = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line);
    if (comment !== null) {
      const [, kind, name, rest] = comment as unknown as [string, string, string, string];
      if (families.has(name)) throw new Error(`${name} comes twice.`);
      if (kind === 'HELP') helped = name;
      else {
        if (helped !== name || !['counter', 'gauge', 'histogram'].includes(rest)) throw new Error(line);
        current = [name, { type: rest, samples: [] }];
        families.set(...current);
      }
      continue;
    }
    const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^\n]*)\} (-?\d+(?:\.\d+)?(?:e[+-]\d+)?|[+-]Inf|NaN)$/.exec(
      line,
    );
    if (sample === null || current === undefined) throw new Error(`Not a sample: ${line}`);
    const [, name, labelText, value] = sample as unknown as [string, string, string, string];
    const suffixes = current[1].type === 'histogram' ? ['_bucket', '_sum', '_count'] : [''];
    if (!suffixes.some((suffix) => current?.[0] + suffix === name)) throw new Error(`${name} is astray.`);
    const labels = parseLabels(labelText);
    const key =
      name +
      JSON.stringify(
        Object.keys(labels)
          .sort()
          .map((label) => [label, labels[label]]),
      );
    if (series.has(key)) throw new Error(`Series twice: ${line}`);
    series.add(key);
    current[1].samples.push({ name, labels, value: numberOf(value) });
  }
  for (const [name, family] of families) if (family.type === 'histogram') checkHistogram(name, family);
  return families;
}

function parseLabels(text: string): Labels {
  const labels: Record<string, string> = {};
  const label = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)/y;
  while (label.lastIndex < text.length) {
    const match = label.exec(text) as unknown as [string, string, string] | null;
    if (match === null) throw new Error(`Not labels: ${text}`);
    if (match[1] in labels) throw new Error(`Label twice: ${text}`);
    labels[match[1]] = match[2].replace(/\\(.)/g, (_, char: string) => (char === 'n' ? '\n' : char));
  }
  return labels;
}

function numberOf(text: string): number {
  return Number(text.replace('Inf', 'Infinity'));
}

function checkHistogram(name: string, { samples }: Family): void {
  const groups = new Map<string, Family['samples']>();
  for (const sample of samples) {
    const { le, ...rest } = sample.labels;
    if ((le !== undefined) !== sample.name.endsWith('_bucket')) throw new Error(`le of ${sample.name}`);
    const key = JSON.stringify(rest);
    groups.set(key, [...(groups.get(key) ?? []), sample]);
  }
  for (const group of groups.values()) {
    const buckets = group.filter((sample) => sample.name === `${name}_bucket`);
    const bounds = buckets.map(({ labels }) => numberOf(labels['le'] as string));
    const counts = buckets.map(({ value }) => value);
    const isAscending = (values: number[], strictly: boolean): boolean =>
      values.every((value, i) => i === 0 || (strictly ? value > values[i - 1]! : value >= values[i - 1]!));
    if (!isAscending(bounds, true) || bounds.at(-1) !== Infinity) throw new Error(`Bounds of ${name}`);
    const count = group.find((sample) => sample.name === `${name}_count`)?.value;
    if (!isAscending(counts, false) || counts.at(-1) !== count) throw new Error(`Counts of ${name}`);
    if (group.filter((sample) => sample.name === `${name}_sum`).length !== 1)
      throw new Error(`Sum of ${name}`);
  }
}

function model(
  metrics: Pick<Metrics, 'snapshot'> = createMetrics(),
  parts: Partial<MeasuredModel> = {},
): MeasuredModel {
  return { name: 'digits', version: '1.0.0', metrics, ...parts };
}

function valueOf(families: Map<string, Family>, name: string, labels: Labels = {}): number | undefined {
  const family = families.get(name) ?? families.get(name.replace(/_(bucket|sum|count)$/, ''));
  return family?.samples.find(
    (sample) =>
      sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value),
  )?.value;
}

describe('metrics as Prometheus text', () => {
  it('are nothing without models', () => {
    expect(formatPrometheus([])).toBe('');
  });

  it('are valid before the first call', () => {
    const families = parse(formatPrometheus([model()]));
    expect(valueOf(families, 'inlay_calls_accepted_total', { model: 'digits', version: '1.0.0' })).toBe(0);
    expect(valueOf(families, 'inlay_call_seconds_count')).toBe(0);
  });

  it('have the counters under the names of Inlay and of Triton', () => {
    const metrics = createMetrics();
    for (let call = 0; call < 7; call += 1) metrics.accepted();
    metrics.answered(1, 3);
    metrics.answered(2, 4.5);
    metrics.failed();
    metrics.aborted();
    metrics.rejected('queue_full');
    metrics.rejected('shed');
    metrics.dispatched('full', 6, 0.125, 0);
    metrics.dispatched('idle', 1);
    metrics.batchDone(2);
    const families = parse(formatPrometheus([model(metrics, { gauges: { waiting: 2, batchCap: 8 } })]));
    const expected: [string, number, Labels?][] = [
      ['inlay_calls_accepted_total', 7],
      ['inlay_calls_answered_total', 2],
      ['inlay_calls_failed_total', 1],
      ['inlay_calls_aborted_total', 1],
      ['inlay_calls_rejected_total', 1, { reason: 'queue_full' }],
      ['inlay_calls_rejected_total', 0, { reason: 'closed' }],
      ['inlay_dispatches_total', 1, { reason: 'full' }],
      ['inlay_batches_total', 2],
      ['inlay_samples_total', 7],
      ['inlay_waiting_calls', 2],
      ['inlay_batch_cap', 8],
      ['nv_inference_request_success', 2],
      ['nv_inference_request_failure', 2, { reason: 'REJECTED' }],
      ['nv_inference_request_failure', 1, { reason: 'CANCELED' }],
      ['nv_inference_request_failure', 1, { reason: 'BACKEND' }],
      ['nv_inference_count', 7],
      ['nv_inference_exec_count', 2],
      ['nv_inference_pending_request_count', 2],
      ['nv_inference_request_duration_us', 7500],
      ['nv_inference_queue_duration_us', 3000],
      ['nv_inference_compute_infer_duration_us', 4500],
    ];
    for (const [name, value, labels] of expected)
      expect([name, valueOf(families, name, labels)]).toEqual([name, value]);
    expect(families.get('nv_inference_pending_request_count')?.type).toBe('gauge');
    expect(families.has('inlay_running_calls')).toBe(false);
  });

  it('count exactly what is at most each bound, in seconds', () => {
    const metrics = createMetrics();
    const totals = [0, 0.004, 1, 1.0001, 2, 64, 1e6];
    for (const total of totals) metrics.answered(0, total);
    const families = parse(formatPrometheus([model(metrics)]));
    for (const { name, labels, value } of families.get('inlay_call_seconds')?.samples ?? []) {
      if (!name.endsWith('_bucket')) continue;
      const bound = numberOf(labels['le'] as string);
      expect([bound, value]).toEqual([bound, totals.filter((total) => total / 1000 <= bound).length]);
    }
    expect(valueOf(families, 'inlay_call_seconds_bucket', { le: '0.001' })).toBe(3);
    expect(valueOf(families, 'inlay_call_seconds_bucket', { le: '16.384' })).toBe(6);
    expect(valueOf(families, 'inlay_call_seconds_count')).toBe(7);
    expect(valueOf(families, 'inlay_call_seconds_sum')).toBeCloseTo(1000.0680041, 9);
  });

  it('stay valid for whatever was measured', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.double(), fc.double())), fc.array(fc.nat(5000)), (calls, batches) => {
        const metrics = createMetrics();
        for (const [queued, total] of calls) metrics.answered(queued, total);
        for (const samples of batches) metrics.dispatched('idle', samples, samples / 7, 1 / (1 + samples));
        parse(formatPrometheus([model(metrics), model(metrics, { name: 'other' })]));
      }),
    );
  });

  it('keep any name in its label', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string(), (name, version) => {
        const families = parse(formatPrometheus([model(createMetrics(), { name, version })]));
        expect(valueOf(families, 'inlay_batches_total', { model: name, version })).toBe(0);
      }),
      { examples: [['a"b\\n\n\\', '} 1']] },
    );
  });

  it('tell models apart that share name and version', () => {
    const [first, second] = [createMetrics(), createMetrics()];
    first.accepted();
    const unnamed = { name: undefined, version: undefined };
    const families = parse(formatPrometheus([model(first, unnamed), model(second, unnamed), model()]));
    expect(families.get('inlay_calls_accepted_total')?.samples).toMatchObject([
      { labels: { model: '', version: '' }, value: 1 },
      { labels: { model: '', version: '', handle: '2' }, value: 0 },
      { labels: { model: 'digits', version: '1.0.0' }, value: 0 },
    ]);
  });
});
