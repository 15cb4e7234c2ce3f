/** One transaction: what many reports say, counted once. */

import type { Transaction } from 'kysely';
import type { Report, ReportWindow } from '../../telemetry/report.ts';
import type { DedupeTable, DeviceTable, Schema, StageDeviceTable } from '../db/schema.ts';
import type { Aggregate } from './aggregate.ts';
import { aggregateOf, mergeAggregates } from './merge.ts';
import { inPieces } from './rows.ts';
import { noSequence, noteNumber, type Noted } from './sequence.ts';
import type { Series } from './series.ts';
import { addWindow } from './stage-device.ts';

/** A report whose windows can be counted. */
export interface CountableReport {
  readonly report: Report;
  /** Server's clock when it came, milliseconds since 1970. */
  readonly at: number;
  /** Its windows with times of the server's clock, and where they count. */
  readonly windows: readonly { readonly window: ReportWindow; readonly series: Series }[];
}

/** What a batch did. */
export interface BatchResult {
  /** By report, in their order. */
  readonly outcomes: readonly Noted['outcome'][];
  /** Numbers that were given up as lost. */
  readonly lost: number;
  /** Windows that were left out of the guards because their device has reported from another arm of the stage. */
  readonly crossed: number;
}

/** Resolutions of {@link Aggregate.dev}, seconds. */
const resolutions = [300, 3600, 86_400] as const;
/** Series of which a device row remembers the last window. */
const mostCounted = 8;

/**
 * Counts reports. What was counted before is found by number in the same transaction, so it may run again. It reads, computes
 * and writes: the transaction has to see a snapshot.
 */
export async function countReports(
  tx: Transaction<Schema>,
  reports: readonly CountableReport[],
): Promise<BatchResult> {
  const dedupe = await readDedupe(tx, reports);
  let lost = 0;
  const outcomes = reports.map(({ report: { dev, epoch, seq }, at }) => {
    const key = `${dev} ${epoch}`;
    const row = dedupe.get(key) ?? { dev, epoch, ...noSequence, first_at: at, last_at: at };
    const { outcome, sequence } = noteNumber(row, seq);
    if (outcome === 'new') {
      lost += sequence.lost - row.lost;
      dedupe.set(key, { ...row, ...sequence, last_at: Math.max(row.last_at, at) });
    }
    return outcome;
  });
  const fresh = reports.filter((_, i) => outcomes[i] === 'new');
  if (fresh.length === 0) return { outcomes, lost, crossed: 0 };

  const devices = await readDevices(tx, fresh);
  const stages = await readStages(tx, fresh);
  const deltas = new Map<string, { readonly series: number; readonly t_s: number; sum: Aggregate }>();
  let crossed = 0;
  for (const { report, at, windows } of fresh) {
    for (const { window, series } of windows) {
      const { dev, cls, consent } = report;
      const deviceKey = `${dev} ${window.m}`;
      const { row, isNew } = seeDevice(devices.get(deviceKey), report, window, series, at);
      devices.set(deviceKey, row);

      const t_s = Math.floor(window.t / 300) * 300;
      const deltaKey = `${series.id} ${t_s}`;
      const counts = aggregateOf(window, isNew, report.eps);
      const delta = deltas.get(deltaKey);
      if (delta) delta.sum = mergeAggregates(delta.sum, counts);
      else deltas.set(deltaKey, { series: series.id, t_s, sum: counts });

      const { rollout, stage, arm } = series;
      if (rollout === '') continue;
      const stageKey = `${rollout} ${stage} ${dev}`;
      const known = stages.get(stageKey);
      if (known && known.arm !== arm) crossed += 1;
      else stages.set(stageKey, addWindow(known, { rollout, stage, arm, dev, cls, consent, at }, window));
    }
  }

  const touched = new Set(fresh.map(({ report: { dev, epoch } }) => `${dev} ${epoch}`));
  await writeDedupe(
    tx,
    [...touched].flatMap((key) => dedupe.get(key) ?? []),
  );
  await writeDevices(tx, [...devices.values()]);
  await writeStages(tx, [...stages.values()]);
  const rows = [...deltas.values()].map(({ series, t_s, sum }) => ({
    series,
    t_s,
    body: JSON.stringify(sum),
  }));
  for (const piece of inPieces(rows)) await tx.insertInto('delta').values(piece).execute();
  return { outcomes, lost, crossed };
}

/** What is known of a device after a window, and where it is counted for the first time. */
function seeDevice(
  before: DeviceTable | undefined,
  { dev, cls, sdk, rt, app }: Report,
  { m, t }: ReportWindow,
  { id, version, rollout, stage, arm }: Series,
  at: number,
): { readonly row: DeviceTable; readonly isNew: Aggregate['dev'] } {
  const counted = before ? (JSON.parse(before.counted) as Record<string, number>) : {};
  const last = counted[id];
  const isNewIn = (res: number): number =>
    last === undefined || Math.floor(t / res) > Math.floor(last / res) ? 1 : 0;
  const isNew = [isNewIn(resolutions[0]), isNewIn(resolutions[1]), isNewIn(resolutions[2])] as const;
  counted[id] = Math.max(last ?? 0, t);
  const kept = Object.entries(counted)
    .sort(([, a], [, b]) => b - a)
    .slice(0, mostCounted);
  const isLatest = !before || t >= before.last_t_s;
  const place = isLatest
    ? { version, rollout, stage, arm, cls, sdk, runtime: rt, app, last_t_s: t }
    : undefined;
  const row = {
    ...(before ?? { dev, model: m, first_at: at }),
    ...place,
    last_at: Math.max(before?.last_at ?? 0, at),
    counted: JSON.stringify(Object.fromEntries(kept)),
  } as DeviceTable;
  return { row, isNew };
}

async function readDedupe(
  tx: Transaction<Schema>,
  reports: readonly CountableReport[],
): Promise<Map<string, DedupeTable>> {
  const rows = await tx
    .selectFrom('dedupe')
    .selectAll()
    // Epochs are random: two devices that have one in common are told apart below.
    .where(
      'epoch',
      'in',
      distinct(reports, ({ report }) => report.epoch),
    )
    .execute();
  return new Map(rows.map((row) => [`${row.dev} ${row.epoch}`, row]));
}

async function readDevices(
  tx: Transaction<Schema>,
  reports: readonly CountableReport[],
): Promise<Map<string, DeviceTable>> {
  const models = [...new Set(reports.flatMap(({ windows }) => windows.map(({ window }) => window.m)))];
  const rows = await tx
    .selectFrom('device')
    .selectAll()
    .where(
      'dev',
      'in',
      distinct(reports, ({ report }) => report.dev),
    )
    .where('model', 'in', models)
    .execute();
  // Only those that the reports speak of are written again.
  const spoken = new Set(
    reports.flatMap(({ report, windows }) => windows.map(({ window }) => `${report.dev} ${window.m}`)),
  );
  return new Map(
    rows.flatMap((row) => {
      const key = `${row.dev} ${row.model}`;
      return spoken.has(key) ? [[key, row]] : [];
    }),
  );
}

async function readStages(
  tx: Transaction<Schema>,
  reports: readonly CountableReport[],
): Promise<Map<string, StageDeviceTable>> {
  const spoken = new Set<string>();
  const rollouts = new Set<string>();
  const stages = new Set<number>();
  const devices = new Set<string>();
  for (const { report, windows } of reports) {
    for (const { series } of windows) {
      if (series.rollout === '') continue;
      spoken.add(`${series.rollout} ${series.stage} ${report.dev}`);
      rollouts.add(series.rollout);
      stages.add(series.stage);
      devices.add(report.dev);
    }
  }
  if (spoken.size === 0) return new Map();
  const rows = await tx
    .selectFrom('stage_device')
    .selectAll()
    .where('rollout', 'in', [...rollouts])
    .where('stage', 'in', [...stages])
    .where('dev', 'in', [...devices])
    .execute();
  return new Map(
    rows.flatMap((row) => {
      const key = `${row.rollout} ${row.stage} ${row.dev}`;
      return spoken.has(key) ? [[key, row]] : [];
    }),
  );
}

async function writeDedupe(tx: Transaction<Schema>, rows: readonly DedupeTable[]): Promise<void> {
  for (const piece of inPieces(inOrder(rows, ({ dev, epoch }) => `${epoch} ${dev}`))) {
    await tx
      .insertInto('dedupe')
      .values(piece)
      .onConflict((conflict) =>
        conflict.columns(['epoch', 'dev']).doUpdateSet((eb) => ({
          hi: eb.ref('excluded.hi'),
          seen: eb.ref('excluded.seen'),
          last_at: eb.ref('excluded.last_at'),
          lost: eb.ref('excluded.lost'),
        })),
      )
      .execute();
  }
}

async function writeDevices(tx: Transaction<Schema>, rows: readonly DeviceTable[]): Promise<void> {
  for (const piece of inPieces(inOrder(rows, ({ dev, model }) => `${dev} ${model}`))) {
    await tx
      .insertInto('device')
      .values(piece)
      .onConflict((conflict) =>
        conflict.columns(['dev', 'model']).doUpdateSet((eb) => ({
          version: eb.ref('excluded.version'),
          rollout: eb.ref('excluded.rollout'),
          stage: eb.ref('excluded.stage'),
          arm: eb.ref('excluded.arm'),
          cls: eb.ref('excluded.cls'),
          sdk: eb.ref('excluded.sdk'),
          runtime: eb.ref('excluded.runtime'),
          app: eb.ref('excluded.app'),
          last_at: eb.ref('excluded.last_at'),
          last_t_s: eb.ref('excluded.last_t_s'),
          counted: eb.ref('excluded.counted'),
        })),
      )
      .execute();
  }
}

async function writeStages(tx: Transaction<Schema>, rows: readonly StageDeviceTable[]): Promise<void> {
  for (const piece of inPieces(inOrder(rows, ({ rollout, stage, dev }) => `${rollout} ${stage} ${dev}`))) {
    await tx
      .insertInto('stage_device')
      .values(piece)
      .onConflict((conflict) =>
        // What the guards write (`judged_at`, `verdicts`) is left to them.
        conflict.columns(['rollout', 'stage', 'dev']).doUpdateSet((eb) => ({
          consent: eb.ref('excluded.consent'),
          n: eb.ref('excluded.n'),
          errors: eb.ref('excluded.errors'),
          fatals: eb.ref('excluded.fatals'),
          rejections: eb.ref('excluded.rejections'),
          activations: eb.ref('excluded.activations'),
          base_n: eb.ref('excluded.base_n'),
          base_errors: eb.ref('excluded.base_errors'),
          base_p95: eb.ref('excluded.base_p95'),
          base_load: eb.ref('excluded.base_load'),
          base_mem: eb.ref('excluded.base_mem'),
          mem: eb.ref('excluded.mem'),
          hist: eb.ref('excluded.hist'),
          load: eb.ref('excluded.load'),
          outputs: eb.ref('excluded.outputs'),
          biz: eb.ref('excluded.biz'),
          activated_at: eb.ref('excluded.activated_at'),
          last_at: eb.ref('excluded.last_at'),
          gap: eb.ref('excluded.gap'),
        })),
      )
      .execute();
  }
}

/** Everybody takes rows in one order, so that nobody waits for somebody who waits for him. */
function inOrder<Row>(rows: readonly Row[], keyOf: (row: Row) => string): Row[] {
  return rows
    .map((row) => [keyOf(row), row] as const)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, row]) => row);
}

function distinct(reports: readonly CountableReport[], read: (report: CountableReport) => string): string[] {
  return [...new Set(reports.map(read))];
}
