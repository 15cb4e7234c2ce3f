/** What guards judge: one device in one stage of a rollout, summed over its reports. */

import { mergeHistograms } from '../../telemetry/histogram.ts';
import type { HistogramCounts, Report, ReportWindow } from '../../telemetry/report.ts';
import type { StageDeviceTable } from '../db/schema.ts';
import { boundTimes, mergeEvents, mergeProfiles } from './merge.ts';

/** Where and when a window was counted. */
export interface Sighting {
  readonly rollout: string;
  readonly stage: number;
  readonly arm: string;
  readonly dev: string;
  readonly cls: number;
  readonly consent: Report['consent'];
  /** Server's clock, milliseconds since 1970. */
  readonly at: number;
}

/** Weight of the latest pause between reports. */
const latest = 0.25;
/** What comes closer together than this belongs to one report, milliseconds. */
const shortestPause = 1_000;

/** Adds a window to what is known of a device in a stage. */
export function addWindow(
  row: StageDeviceTable | undefined,
  { rollout, stage, arm, dev, cls, consent, at }: Sighting,
  window: ReportWindow,
): StageDeviceTable {
  const before = row ?? { ...blank, rollout, stage, arm, dev, cls, first_at: at, last_at: at };
  const { n, ok, fatal = 0, act = 0, rej = {}, bl, g, h, p, prof = '', biz } = window;
  return {
    ...before,
    consent: consent === 'full' ? 1 : 0,
    n: before.n + n,
    errors: before.errors + (n - ok),
    fatals: before.fatals + fatal,
    rejections: before.rejections + Object.values(rej).reduce((all, one) => all + one, 0),
    activations: before.activations + act,
    ...(bl &&
      before.base_n === 0 && {
        base_n: bl.n,
        base_errors: bl.e,
        base_p95: bl.p95 ?? 0,
        base_load: bl.load ?? 0,
        base_mem: bl.mem ?? 0,
      }),
    mem: Math.max(before.mem, g?.mem?.[0] ?? 0),
    hist: h?.lat ? addTimes(before.hist, boundTimes(h.lat)) : before.hist,
    load: h?.load ? addTimes(before.load, boundTimes(h.load)) : before.load,
    outputs: p ? JSON.stringify(mergeProfiles(read(before.outputs, {}), { [prof]: p })) : before.outputs,
    biz: biz ? JSON.stringify(mergeEvents(read(before.biz, {}), biz)) : before.biz,
    activated_at: before.activated_at === 0 && act > 0 ? at : before.activated_at,
    last_at: Math.max(before.last_at, at),
    gap: gapOf(before.gap, at - before.last_at),
  };
}

const blank = {
  consent: 0,
  n: 0,
  errors: 0,
  fatals: 0,
  rejections: 0,
  activations: 0,
  base_n: 0,
  base_errors: 0,
  base_p95: 0,
  base_load: 0,
  base_mem: 0,
  mem: 0,
  hist: '',
  load: '',
  outputs: '',
  biz: '',
  activated_at: 0,
  gap: 0,
  judged_at: 0,
  verdicts: '',
};

function addTimes(before: string, times: HistogramCounts): string {
  return JSON.stringify(
    before === '' ? times : mergeHistograms(JSON.parse(before) as HistogramCounts, times),
  );
}

function read<Value>(text: string, absent: Value): Value {
  return text === '' ? absent : (JSON.parse(text) as Value);
}

function gapOf(gap: number, pause: number): number {
  if (pause < shortestPause) return gap;
  return gap === 0 ? pause : gap + latest * (pause - gap);
}
