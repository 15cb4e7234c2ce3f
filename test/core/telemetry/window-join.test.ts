import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createHistogram } from '../../../src/telemetry/histogram.ts';
import type { ReportWindow } from '../../../src/telemetry/report.ts';
import { readReport } from '../../../src/telemetry/report-reader.ts';
import { baselineOf, joinWindows, mergeWindows, necessaryOnly } from '../../../src/telemetry/window-join.ts';

function times(values: readonly number[]): NonNullable<NonNullable<ReportWindow['h']>['lat']> {
  const histogram = createHistogram();
  for (const value of values) histogram.record(value);
  return histogram.snapshot();
}

const few = fc.integer({ min: 0, max: 50 });
const codes = fc.dictionary(fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'other'), few, {
  maxKeys: 9,
});
const vector = fc.tuple(few, few, few).map((counts) => [...counts]);

/** Windows of two versions with anything in them, over a day. */
const windows: fc.Arbitrary<ReportWindow> = fc
  .record(
    {
      t: fc.integer({ min: 0, max: 1439 }).map((minute) => minute * 60),
      d: fc.integer({ min: 1, max: 400 }),
      ver: fc.constantFrom('1', '2'),
      ok: few,
      err: codes,
      cold: few,
      fatal: few,
      act: few,
      com: few,
      ex: few,
      ch: fc.tuple(few, few),
      h: fc
        .array(fc.integer({ min: 1, max: 100 }), { maxLength: 5 })
        .map((values) => ({ lat: times(values) })),
      g: fc.record({ mem: fc.tuple(few, few), net: few }, { requiredKeys: [] }),
      cost: few,
      biz: fc.dictionary(fc.constantFrom('sale', 'click'), fc.tuple(few, few)),
      p: fc.dictionary(fc.constantFrom('y', 'z'), vector),
      x: fc.dictionary(fc.constantFrom('y', 'z'), vector),
      fb: fc.record({
        n: few,
        ok: few,
        cm: fc.uniqueArray(fc.tuple(few, few, few), { selector: String, maxLength: 4 }),
      }),
      sh: fc.tuple(few, few, few, few),
    },
    { requiredKeys: ['t', 'd', 'ver', 'ok'] },
  )
  .map((window) => {
    const { err = {} } = window;
    const failed = Object.values(err).reduce((sum, count) => sum + count, 0);
    return { m: 'model', ...window, n: window.ok + failed };
  });

/** Everything that adds, as one number by name. */
function totalsOf(all: readonly ReportWindow[]): Record<string, number> {
  const totals: Record<string, number> = {};
  const add = (name: string, value: number): void => {
    if (value !== 0) totals[name] = (totals[name] ?? 0) + value;
  };
  const walk = (name: string, value: unknown): void => {
    if (typeof value === 'number') add(name, value);
    else if (typeof value === 'object' && value !== null)
      for (const [key, inner] of Object.entries(value)) walk(`${name}.${key}`, inner);
  };
  for (const { t: _, d: _d, m: _m, ver, h, g, fb, err, ...rest } of all) {
    walk(ver, rest);
    walk(`${ver}.net`, g?.net);
    // Names may become `other`, so only their sum is sure.
    for (const count of Object.values(err ?? {})) add(`${ver}.err`, count);
    if (fb) walk(`${ver}.fb`, { n: fb.n, ok: fb.ok });
    for (const [actual, predicted, count] of fb?.cm ?? []) add(`${ver}.${actual}-${predicted}`, count);
    let index = 0;
    for (const [i, run] of (h?.lat?.b ?? []).entries()) {
      if (i % 2 === 0) index += run;
      else add(`${ver}.lat${index}`, run);
    }
  }
  return totals;
}

describe('joinWindows', () => {
  it('loses and adds no count, whatever is joined', () => {
    fc.assert(
      fc.property(
        fc.array(windows, { maxLength: 12 }),
        fc.constantFrom(300, 900, 3600, 21_600),
        (all, spanS) => {
          const joined = joinWindows(all, spanS);
          expect(totalsOf(joined)).toEqual(totalsOf(all));
          expect(new Set(joined.map(({ t, ver }) => `${Math.floor(t / spanS)} ${ver}`)).size).toBe(
            joined.length,
          );
          expect(totalsOf(joinWindows(joined, 21_600))).toEqual(totalsOf(all));
        },
      ),
    );
  });

  it('gives windows that reports take', () => {
    fc.assert(
      fc.property(fc.array(windows, { minLength: 1, maxLength: 12 }), (all) => {
        const win = joinWindows(all, 21_600).slice(0, 12);
        const report = {
          v: 1,
          app: 'main',
          dev: 'kX3vAAAAAAAAAA16',
          epoch: 'q0ZfAAAAA11',
          seq: 0,
          sent: 0,
          sdk: 'inlay/0.0.0',
          rt: 'node',
          cls: 0,
          consent: 'full',
          win,
        };
        expect(readReport(JSON.parse(JSON.stringify(report))).problem).toBeUndefined();
      }),
    );
  });

  it('covers the time of all that it joins', () => {
    fc.assert(
      fc.property(fc.array(windows, { minLength: 2, maxLength: 6 }), (all) => {
        const [joined] = joinWindows(
          all.map((window) => ({ ...window, ver: '1' })),
          86_400,
        );
        expect(joined?.t).toBe(Math.min(...all.map(({ t }) => t)));
        expect((joined?.t ?? 0) + (joined?.d ?? 0)).toBe(Math.max(...all.map(({ t, d }) => t + d)));
      }),
    );
  });

  it('keeps arms, stages, rollouts, profiles and models apart', () => {
    const base: ReportWindow = { t: 0, d: 1, m: 'm', ver: '1', n: 1, ok: 1 };
    const apart = [base, { ...base, m: 'm2' }, { ...base, ro: 'r', st: 0 }, { ...base, ro: 'r', st: 1 }];
    const more = [
      { ...base, ro: 'r', st: 1, arm: 't' },
      { ...base, ro: 'r', st: 1, arm: 'c' },
      { ...base, prof: '00' },
    ];
    expect(joinWindows([...apart, ...more], 300)).toHaveLength(7);
  });
});

describe('mergeWindows', () => {
  const base: ReportWindow = { t: 600, d: 300, m: 'm', ver: '1', n: 0, ok: 0 };

  it('keeps the first baseline, the highest memory, and the mean by time', () => {
    const merged = mergeWindows(
      { ...base, bl: { n: 100, e: 1 }, g: { mem: [500, 400] } },
      { ...base, t: 900, d: 100, bl: { n: 200, e: 9 }, g: { mem: [700, 600], net: 3 } },
    );
    expect(merged).toEqual({ ...base, d: 400, bl: { n: 100, e: 1 }, g: { mem: [700, 450], net: 3 } });
  });

  it('counts names beyond the ninth as other', () => {
    const err = (names: string): Record<string, number> =>
      Object.fromEntries([...names].map((name) => [name, 1]));
    const merged = mergeWindows(
      { ...base, err: err('abcdefgh') },
      { ...base, err: { ...err('aij'), other: 2 } },
    );
    expect(merged.err).toEqual({ ...err('abcdefgh'), a: 2, other: 4 });
  });
});

describe('necessaryOnly', () => {
  it('takes off what leaves the device under full consent only', () => {
    fc.assert(
      fc.property(windows, (window) => {
        const { p: _p, x: _x, fb: _fb, biz: _biz, cost: _cost, ...rest } = window;
        expect(necessaryOnly(window)).toEqual(rest);
      }),
    );
  });
});

describe('baselineOf', () => {
  const window: ReportWindow = { t: 0, d: 60, m: 'm', ver: '1', n: 60, ok: 57, err: { deadline: 3 } };

  it('sums up calls, failures, the 95th percentile and the highest memory', () => {
    const slow = {
      ...window,
      h: { lat: times(Array.from({ length: 57 }, (_, i) => (i + 1) / 100)) },
      g: { mem: [9, 5] as const },
    };
    const baseline = baselineOf([slow, { ...slow, g: { mem: [7, 7] } }]);
    expect(baseline).toEqual({ n: 120, e: 6, p95: expect.closeTo(0.55, 2), mem: 9 });
  });

  it('says nothing of fewer than a hundred calls', () => {
    expect(baselineOf([window])).toBeUndefined();
    expect(baselineOf([])).toBeUndefined();
    expect(baselineOf([window, { ...window, n: 40, ok: 40 }])).toEqual({ n: 100, e: 3 });
  });
});
