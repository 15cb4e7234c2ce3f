/** Checks reports from outside against a list of what may be in them: what is not on the list is refused, not ignored. */

import {
  amount,
  formOf,
  integer,
  isObject,
  list,
  object,
  oneOf,
  problemOf,
  record,
  text,
  tuple,
  type Check,
  type Form,
} from './form.ts';
import { countOf, readHistogram } from './histogram.ts';
import { CALIBRATION_BINS, FEATURE_NAME, MAX_FEATURES } from './profile.ts';
import {
  DEVICE_CLASSES,
  EVENT_NAME,
  FULL_ONLY,
  MAX_CELLS,
  MAX_CODES,
  MAX_EVENTS,
  MAX_WINDOWS,
  REPORT_VERSION,
  type Report,
  type ReportWindow,
} from './report.ts';

/** Longest vector of counts. */
const MAX_VECTOR = 130;
/** Longest window, seconds: a week. Devices make none longer than six hours. */
const LONGEST_S = 604_800;
/** Counts above this are nobody's: sums of a million such ones are still exact. */
const MAX_COUNT = 2 ** 32;

/** What a report turns out to be. */
export type ReadReport =
  | { readonly report: Report; readonly problem?: undefined }
  | {
      readonly report?: undefined;
      /** Where it is wrong: `win[3].err`, say. Holds nothing that the sender has made up. */
      readonly problem: string;
    };

/**
 * Reads a report. Never throws, whatever parsed JSON it is given.
 * @returns the value itself, now known to be a report and nothing more, or where it is none.
 */
export function readReport(value: unknown): ReadReport {
  const problem = problemOf(value, reportForm, 'report');
  if (problem !== undefined) return { problem };
  const report = value as Report;
  for (const [i, window] of report.win.entries()) {
    const where = windowProblem(window, report.consent);
    if (where !== undefined) return { problem: `win[${i}]${where}` };
  }
  return { report };
}

function windowProblem(value: unknown, consent: Report['consent']): string | undefined {
  const problem = problemOf(value, windowForm, '');
  if (problem !== undefined) return problem;
  const window = value as ReportWindow;
  if (window.ok + sumOf(window.err) > window.n) return '.n';
  if (window.ro === undefined && (window.st !== undefined || window.arm !== undefined)) return '.ro';
  if (consent === 'full') return undefined;
  const unasked = FULL_ONLY.find((field) => window[field] !== undefined);
  return unasked && `.${unasked}`;
}

const count: Check = integer(0, MAX_COUNT);
const bytes: Check = integer(0, 2 ** 50);
const sum: Check = amount(-(2 ** 50), 2 ** 50);
const code = /^[a-z0-9][a-z0-9_]{0,39}$/;
const named = /^[a-z0-9][a-z0-9._-]{0,127}$/;
const printable: Check = text(/^[!-~]{1,128}$/);
const codes: Check = record(MAX_CODES, code, count);
const vectors: Check = record(MAX_FEATURES, FEATURE_NAME, list(3, MAX_VECTOR, count));
const histogram: Check = (value) => {
  const read = readHistogram(value);
  return read !== undefined && countOf(read) <= MAX_COUNT;
};

const windowForm: Form = /* @__PURE__ */ formOf(
  {
    t: (value) => integer(0, 2 ** 40)(value) && (value as number) % 60 === 0,
    d: integer(1, LONGEST_S),
    m: text(named),
    ver: printable,
    n: count,
    ok: count,
  },
  {
    ro: printable,
    st: integer(0, 10_000),
    arm: text(/^[a-z0-9][a-z0-9._-]{0,63}$/),
    prof: text(/^[0-9a-f]{16}$/),
    err: codes,
    cold: count,
    fatal: count,
    act: count,
    rej: codes,
    com: count,
    fall: codes,
    ch: tuple(count, count),
    ex: count,
    h: object(formOf({}, { lat: histogram, queue: histogram, load: histogram, shadow: histogram })),
    g: object(formOf({}, { mem: tuple(bytes, bytes), cpu: bytes, net: bytes })),
    cost: bytes,
    biz: record(MAX_EVENTS, EVENT_NAME, tuple(count, sum)),
    p: vectors,
    x: vectors,
    fb: object(
      formOf(
        { n: count, ok: count },
        {
          cm: list(0, MAX_CELLS, tuple(integer(0, MAX_VECTOR), integer(0, MAX_VECTOR), count)),
          cal: list(CALIBRATION_BINS, CALIBRATION_BINS, tuple(count, count, amount(0, MAX_COUNT))),
        },
      ),
    ),
    bl: object(
      formOf({ n: count, e: count }, { p95: amount(0, 2 ** 20), load: amount(0, 2 ** 20), mem: bytes }),
    ),
    sh: tuple(count, count, count, count),
  },
);

const reportForm: Form = /* @__PURE__ */ formOf(
  {
    v: oneOf(REPORT_VERSION),
    app: text(named),
    dev: text(/^[\w-]{16}$/),
    epoch: text(/^[\w-]{11}$/),
    seq: integer(0, Number.MAX_SAFE_INTEGER),
    sent: integer(0, 2 ** 50),
    sdk: text(/^inlay\/[\w.+-]{1,48}$/),
    rt: text(/^[a-z][A-Za-z0-9 -]{0,31}$/),
    cls: integer(0, DEVICE_CLASSES - 1),
    consent: oneOf('necessary', 'full'),
    win: list(1, MAX_WINDOWS, isObject),
  },
  {
    be: text(/^[A-Za-z0-9][\w.-]{0,31}$/),
    samp: (value) => amount(0, 1)(value) && value !== 0,
    eps: (value) => amount(0, 32)(value) && value !== 0,
    drop: codes,
  },
);

function sumOf(counts: Readonly<Record<string, number>> | undefined): number {
  return counts === undefined ? 0 : Object.values(counts).reduce((all, one) => all + one, 0);
}
