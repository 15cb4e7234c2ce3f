/** Counts of one window while it is open. */

import { calibrate, openCalibration, type Calibration } from './calibration.ts';
import { createHistogram, type Histogram } from './histogram.ts';
import type { ProfileCounts } from './profile-counter.ts';
import { MAX_CODES, MAX_EVENTS, type HistogramCounts, type ReportWindow } from './report.ts';

/** What windows are kept apart by. */
export type WindowKey = Pick<ReportWindow, 'm' | 'ver' | 'ro' | 'st' | 'arm' | 'prof'>;

/** Text of a key; different keys have different texts. */
export function textOfKey({ m, ver, ro, st, arm, prof }: WindowKey): string {
  // None of them can hold a space.
  return [m, ver, ro, st, arm, prof].map((part) => part ?? '').join(' ');
}

type TimeName = 'lat' | 'queue' | 'load' | 'shadow';

/** Counters, for the recorder to count up. All start at zero. */
export interface Tally {
  ok: number;
  cold: number;
  fatal: number;
  act: number;
  com: number;
  hit: number;
  miss: number;
  ex: number;
  net: number;
  /** Milliseconds. */
  cpu: number;
  cost: number;
}

/** A window that is open. */
export interface OpenWindow {
  readonly key: WindowKey;
  /** Whether it was cut: counts go to the next one from then on. */
  readonly isClosed: boolean;
  readonly tally: Tally;
  failed(code: string): void;
  rejected(reason: string): void;
  fellBack(reason: string): void;
  time(name: TimeName, ms: number): void;
  memory(bytes: number): void;
  shadow(outcome: 'alike' | 'unlike' | 'failed'): void;
  event(name: string, value: number): void;
  /**
   * A label has come.
   * @param classes - slots of the right and of the predicted class.
   */
  labelled(
    isRight: boolean,
    classes?: readonly [actual: number, predicted: number],
    confidence?: number,
  ): void;
  /** Vectors of features; begins them by `open` where there are none yet. */
  features(open: () => ProfileCounts): ProfileCounts;
}

/** A window, for whoever cuts it. */
export interface CuttableWindow extends OpenWindow {
  /** What was counted so far; `undefined` for nothing. */
  snapshot(t: number, d: number): ReportWindow | undefined;
  close(): void;
}

/** Most cells of a confusion matrix that a device keeps in one window. */
const CELLS_KEPT = 256;

/**
 * Opens a window.
 * @param baseline - what the device did before the stage.
 */
export function openWindow(key: WindowKey, baseline?: ReportWindow['bl']): CuttableWindow {
  const tally: Tally = {
    ok: 0,
    cold: 0,
    fatal: 0,
    act: 0,
    com: 0,
    hit: 0,
    miss: 0,
    ex: 0,
    net: 0,
    cpu: 0,
    cost: 0,
  };
  const errors = new Map<string, number>();
  const rejections = new Map<string, number>();
  const fallbacks = new Map<string, number>();
  const times = new Map<TimeName, Histogram>();
  const memory = { peak: 0, sum: 0, n: 0 };
  const events = new Map<string, [n: number, sum: number]>();
  const shadows = { alike: 0, unlike: 0, failed: 0 };
  const labels = { n: 0, ok: 0 };
  const cells = new Map<string, [actual: number, predicted: number, n: number]>();
  let calibration: Calibration | undefined;
  let features: ProfileCounts | undefined;
  let isClosed = false;

  const contents = (): Partial<ReportWindow> => {
    const { ok, hit, miss, cost, net, cpu, cold, fatal, act, com, ex } = tally;
    const failed = sumOf(errors);
    const ran = shadows.alike + shadows.unlike + shadows.failed;
    const mem = [Math.round(memory.peak), Math.round(memory.sum / memory.n)] as const;
    return {
      ...(ok + failed > 0 && { n: ok + failed, ok }),
      ...(errors.size > 0 && { err: Object.fromEntries(errors) }),
      ...aboveZero({ cold, fatal, act }),
      ...(rejections.size > 0 && { rej: Object.fromEntries(rejections) }),
      ...aboveZero({ com }),
      ...(fallbacks.size > 0 && { fall: Object.fromEntries(fallbacks) }),
      ...(hit + miss > 0 && { ch: [hit, miss] }),
      ...aboveZero({ ex }),
      ...(times.size > 0 && { h: snapshotsOf(times) }),
      ...((memory.n > 0 || net > 0 || cpu > 0) && {
        g: {
          ...(memory.n > 0 && { mem }),
          ...aboveZero({ cpu: Math.round(cpu), net: Math.round(net) }),
        },
      }),
      ...aboveZero({ cost: Math.round(cost) }),
      ...(events.size > 0 && { biz: Object.fromEntries(events) }),
      ...features?.snapshot(),
      ...(labels.n > 0 && {
        fb: {
          ...labels,
          ...(cells.size > 0 && { cm: [...cells.values()] }),
          ...(calibration && {
            cal: calibration.map(([n, right, sure]) => [n, right, toFourDigits(sure)] as const),
          }),
        },
      }),
      ...(ran > 0 && { sh: [ran, shadows.alike, shadows.unlike, shadows.failed] }),
    };
  };

  return {
    key,
    get isClosed() {
      return isClosed;
    },
    tally,
    failed: (code) => {
      addTo(errors, code);
    },
    rejected: (reason) => {
      addTo(rejections, reason);
    },
    fellBack: (reason) => {
      addTo(fallbacks, reason);
    },
    time: (name, ms) => {
      let histogram = times.get(name);
      if (histogram === undefined) times.set(name, (histogram = createHistogram()));
      histogram.record(ms / 1000);
    },
    memory: (bytes) => {
      memory.peak = Math.max(memory.peak, bytes);
      memory.sum += bytes;
      memory.n += 1;
    },
    shadow: (outcome) => {
      shadows[outcome] += 1;
    },
    event: (name, value) => {
      const known = events.get(name);
      if (known !== undefined) {
        known[0] += 1;
        known[1] += value;
      } else if (events.size < MAX_EVENTS) events.set(name, [1, value]);
    },
    labelled: (isRight, classes, confidence) => {
      labels.n += 1;
      labels.ok += isRight ? 1 : 0;
      if (classes !== undefined) {
        const cell = cells.get(classes.join());
        if (cell !== undefined) cell[2] += 1;
        else if (cells.size < CELLS_KEPT) cells.set(classes.join(), [...classes, 1]);
      }
      if (confidence !== undefined) calibrate((calibration ??= openCalibration()), confidence, isRight);
    },
    features: (open) => (features ??= open()),
    snapshot: (t, d) => {
      const counted = contents();
      if (Object.keys(counted).length === 0) return undefined;
      return { t, d, ...key, n: 0, ok: 0, ...counted, ...(baseline && { bl: baseline }) };
    },
    close: () => {
      isClosed = true;
    },
  };
}

/** Counts a code; names are few, and the ones beyond are `other`. */
function addTo(counts: Map<string, number>, code: string): void {
  const as = counts.has(code) || counts.size < MAX_CODES - 1 ? code : 'other';
  counts.set(as, (counts.get(as) ?? 0) + 1);
}

/** Four digits after the point are more than the bins tell. */
function toFourDigits(sum: number): number {
  return Math.round(sum * 1e4) / 1e4;
}

function sumOf(counts: ReadonlyMap<string, number>): number {
  let sum = 0;
  for (const count of counts.values()) sum += count;
  return sum;
}

function aboveZero<Name extends string>(
  counts: Readonly<Record<Name, number>>,
): Partial<Record<Name, number>> {
  const kept: Partial<Record<Name, number>> = {};
  for (const name of Object.keys(counts) as Name[]) if (counts[name] > 0) kept[name] = counts[name];
  return kept;
}

function snapshotsOf(
  times: ReadonlyMap<TimeName, Histogram>,
): Readonly<Partial<Record<TimeName, HistogramCounts>>> {
  return Object.fromEntries([...times].map(([name, histogram]) => [name, histogram.snapshot()]));
}
