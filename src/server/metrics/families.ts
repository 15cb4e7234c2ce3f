/** What is exported, under names of OpenTelemetry's and Prometheus's style; `docs/grafana/inlay.json` draws it. */

import { EMPTY_HISTOGRAM } from '../../telemetry/histogram.ts';
import type { DriftRow, RolloutEvidence } from '../api/answers.ts';
import type { Aggregate } from '../ingest/aggregate.ts';
import type { IngestStats } from '../ingest/ingest.ts';
import type { Family, Labels, Sample } from './family.ts';
import type { Totals } from './totals.ts';

/** What a version adds to a family. */
type Read = (counts: Aggregate) => readonly Sample[];

/** What {@link familiesOf} writes down. */
export interface Measured {
  readonly totals: Totals;
  readonly ingest: IngestStats;
  readonly rollouts: readonly RolloutEvidence[];
  readonly drift: readonly DriftRow[];
  /** Memory of this process, bytes, where the runtime tells. */
  readonly memoryBytes: number | undefined;
}

const one = (value: number | undefined, labels: Labels = {}): Sample[] =>
  value === undefined ? [] : [{ labels, value }];
const byName = (
  label: string,
  counts: Readonly<Record<string, number>> = {},
  labels: Labels = {},
): Sample[] =>
  Object.entries(counts).map(([name, value]) => ({ labels: { ...labels, [label]: name }, value }));

/** Counters and distributions of every version. */
const ofVersions: readonly (Pick<Family, 'name' | 'type' | 'help'> & { readonly read: Read })[] = [
  {
    name: 'inlay_inferences',
    type: 'counter',
    help: 'Calls of devices, by result and by code of the error.',
    read: ({ n, ok, err }) => {
      const failures = byName('error_type', err, { result: 'error' });
      const named = failures.reduce((sum, { value }) => sum + (value as number), 0);
      const unnamed = n - ok - named;
      return [
        { labels: { result: 'ok', error_type: '' }, value: ok },
        ...failures,
        ...(unnamed > 0 ? one(unnamed, { result: 'error', error_type: '' }) : []),
      ];
    },
  },
  {
    name: 'inlay_inference_executions',
    type: 'counter',
    help: 'Runs of models on devices; a batch is one.',
    read: ({ ex }) => one(ex),
  },
  {
    name: 'inlay_inference_duration_seconds',
    type: 'histogram',
    help: 'Time of a call on a device until its answer, and the part of it spent waiting.',
    read: ({ h = {} }) => [
      ...(h.lat ? [{ labels: { phase: 'total' }, value: h.lat }] : []),
      ...(h.queue ? [{ labels: { phase: 'queue' }, value: h.queue }] : []),
    ],
  },
  {
    name: 'inlay_model_load_duration_seconds',
    type: 'histogram',
    help: 'Time of opening a model on a device.',
    read: ({ h = {} }) => (h.load ? [{ labels: { start: 'cold' }, value: h.load }] : []),
  },
  {
    name: 'inlay_cache_requests',
    type: 'counter',
    help: 'Calls that the cache of a device answered, and those that it could not.',
    read: ({ hit, miss }) => [...one(hit, { result: 'hit' }), ...one(miss, { result: 'miss' })],
  },
  {
    name: 'inlay_cpu_seconds',
    type: 'counter',
    help: 'Processor time on devices.',
    read: ({ cpu }) => one(cpu && cpu / 1000),
  },
  {
    name: 'inlay_update_received_bytes',
    type: 'counter',
    help: 'Bytes of updates that devices received.',
    read: ({ net }) => one(net),
  },
  {
    name: 'inlay_update_fallbacks',
    type: 'counter',
    help: 'Patches and compressed files that led to no release on devices, by reason.',
    read: ({ fall }) => byName('reason', fall),
  },
  {
    name: 'inlay_cost_usd',
    type: 'counter',
    help: 'Cost that apps report.',
    read: ({ cost }) => one(cost && cost / 1e6),
  },
  {
    name: 'inlay_crashes',
    type: 'counter',
    help: 'Runs of apps that ended in a call.',
    read: ({ fatal }) => one(fatal),
  },
  {
    name: 'inlay_activations',
    type: 'counter',
    help: 'Devices that began to use a version.',
    read: ({ act }) => one(act),
  },
  {
    name: 'inlay_trials',
    type: 'counter',
    help: 'Trials that ended on devices, by result and by reason of a rejection.',
    read: ({ com, rej }) => [
      ...one(com, { result: 'committed', reason: '' }),
      ...byName('reason', rej, { result: 'rejected' }),
    ],
  },
  {
    name: 'inlay_feedback',
    type: 'counter',
    help: 'Answers that turned out to be right or wrong.',
    read: ({ fb }) =>
      fb ? [...one(fb.ok, { outcome: 'correct' }), ...one(fb.n - fb.ok, { outcome: 'incorrect' })] : [],
  },
  {
    name: 'inlay_business_events',
    type: 'counter',
    help: 'Events that apps report.',
    read: ({ biz = {} }) => Object.entries(biz).map(([name, [n]]) => ({ labels: { name }, value: n })),
  },
];

/** What became of reports, by name of the table `health`. */
const outcomes: Readonly<Record<string, string>> = {
  reports: 'counted',
  duplicates: 'duplicate',
  too_old: 'too_old',
  future: 'future',
  unknown: 'unknown',
  refused: 'refused',
  busy: 'busy',
};

/** Writes everything down as families. */
export function familiesOf({ totals, ingest, rollouts, drift, memoryBytes }: Measured): Family[] {
  const { versions, health, unfolded } = totals;
  const counter = (name: string, help: string, samples: readonly Sample[]): Family => ({
    name,
    type: 'counter',
    help,
    samples,
  });
  const gauge = (name: string, help: string, samples: readonly Sample[]): Family => ({
    name,
    type: 'gauge',
    help,
    samples,
  });
  return [
    gauge(
      'inlay_devices',
      'Devices that reported within a day.',
      versions.map(({ model, version, devices }) => ({ labels: { model, version }, value: devices })),
    ),
    ...ofVersions.map(({ read, ...family }) => ({
      ...family,
      samples: versions.flatMap(({ model, version, counts }) =>
        read(counts).map(({ labels, value }) => ({ labels: { model, version, ...labels }, value })),
      ),
    })),
    gauge(
      'inlay_guard_log_evalue',
      'Evidence for a bad release (fail) and for a good one (pass), natural logarithm.',
      rollouts.flatMap(({ channel, plan, stage, guards }) =>
        guards.flatMap(({ guard, logEFail, logEPass }) => {
          const labels = { channel, model: plan.model, rollout: plan.id, stage: String(stage), guard };
          return [
            ...one(logEFail, { ...labels, side: 'fail' }),
            ...one(logEPass, { ...labels, side: 'pass' }),
          ];
        }),
      ),
    ),
    gauge(
      'inlay_rollout_exposed_devices',
      'Devices that have the candidate of a rollout.',
      rollouts.map(({ channel, plan, stage, devices }) => ({
        labels: { channel, model: plan.model, rollout: plan.id, stage: String(stage) },
        value: devices.exposed,
      })),
    ),
    gauge(
      'inlay_drift_score',
      'How far a feature is from its reference.',
      drift.flatMap((row) => {
        const { model, version, feature, kind, against } = row;
        const labels = { model, version, feature, kind, against };
        return (['psi', 'ks', 'js', 'w1'] as const).flatMap((method) =>
          one(row[method] ?? undefined, { ...labels, method }),
        );
      }),
    ),
    counter(
      'inlay_telemetry_reports',
      'Reports by what became of them.',
      Object.entries(outcomes).map(([name, outcome]) => ({
        labels: { outcome },
        value: health.get(name) ?? 0,
      })),
    ),
    counter(
      'inlay_telemetry_lost_reports',
      'Reports that devices sealed and that never came.',
      one(health.get('lost') ?? 0),
    ),
    counter(
      'inlay_telemetry_dropped_reports',
      'Reports that devices lost themselves.',
      one(health.get('dropped') ?? 0),
    ),
    counter(
      'inlay_telemetry_skewed_reports',
      'Reports of devices whose clock is wrong.',
      one(health.get('skewed') ?? 0),
    ),
    counter('inlay_telemetry_windows', 'Windows that were counted.', one(health.get('windows') ?? 0)),
    gauge('inlay_unfolded_rows', 'Rows that wait to be folded.', one(unfolded)),
    gauge('inlay_ingest_waiting_reports', 'Reports that wait in this process.', one(ingest.waiting)),
    {
      name: 'inlay_ingest_wait_seconds',
      type: 'histogram',
      help: 'Time from the arrival of a report at this process to its answer.',
      samples: [{ labels: {}, value: ingest.batches === 0 ? EMPTY_HISTOGRAM : ingest.wait }],
    },
    {
      name: 'inlay_ingest_transaction_seconds',
      type: 'histogram',
      help: 'Time of transactions that take reports in, of this process.',
      samples: [{ labels: {}, value: ingest.batches === 0 ? EMPTY_HISTOGRAM : ingest.transaction }],
    },
    gauge('process_resident_memory_bytes', 'Memory of this process.', one(memoryBytes)),
  ];
}
