import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Report, ReportWindow } from '../../../src/telemetry/report.ts';
import { readReport } from '../../../src/telemetry/report-reader.ts';

/** A window with every field. */
const fullWindow: ReportWindow = {
  t: 1_763_668_500,
  d: 300,
  m: 'sentiment-small',
  ver: '1.5.0',
  ro: 'release-81',
  st: 2,
  arm: 't',
  prof: '9f2c00112233aabb',
  n: 150,
  ok: 148,
  err: { deadline: 1, other: 1 },
  cold: 1,
  fatal: 0,
  act: 1,
  rej: { golden: 1 },
  fall: { patch_failed: 1 },
  com: 1,
  ch: [90, 60],
  ex: 60,
  h: {
    lat: { s: 5, z: 0, sum: 4.61, min: 0.012, max: 0.21, b: [-205, 1, 3, 2, 1, 5] },
    queue: { s: 5, z: 0, sum: 0, b: [] },
  },
  g: { mem: [183_500_800, 171_966_464], cpu: 4650, net: 12 },
  cost: 1800,
  biz: { sale: [3, 59.9] },
  p: { y: [61, 70, 19, 0, 0] },
  x: { len: [12, 17, 15, 14, 0, 0] },
  fb: {
    n: 4,
    ok: 3,
    cm: [[0, 1, 1]],
    cal: Array.from({ length: 20 }, () => [1, 1, 0.9] as const),
  },
  bl: { n: 120, e: 1, p95: 0.02, mem: 170_000_000 },
  sh: [10, 8, 1, 1],
};
const full: Report = {
  v: 1,
  app: 'main',
  dev: 'kX3vAAAAAAAAAA16',
  epoch: 'q0ZfAAAAA11',
  seq: 412,
  sent: 1_763_668_812_345,
  sdk: 'inlay/0.3.0',
  rt: 'web on iOS',
  be: 'webgpu',
  cls: 4,
  consent: 'full',
  samp: 0.5,
  eps: 2,
  drop: { disk_full: 1 },
  win: [fullWindow],
};

/** The report as it comes over the wire, with one change. */
function changed(path: readonly (string | number)[], value: unknown): unknown {
  const copy: unknown = JSON.parse(JSON.stringify(full));
  let at = copy as Record<string | number, unknown>;
  for (const key of path.slice(0, -1)) at = at[key] as Record<string | number, unknown>;
  const last = path.at(-1) as string;
  if (value === undefined) delete at[last];
  else Object.defineProperty(at, last, { value, enumerable: true, configurable: true, writable: true });
  return copy;
}

describe('readReport', () => {
  it('takes a report with every field, and one with those that must be', () => {
    expect(readReport(full).report).toBe(full);
    const { be: _, samp: _s, eps: _e, drop: _d, ...least } = full;
    const { t, d, m, ver, n, ok } = fullWindow;
    expect(readReport({ ...least, win: [{ t, d, m, ver, n, ok }] }).problem).toBeUndefined();
  });

  it.each<[string, readonly (string | number)[], unknown]>([
    ['report.v', ['v'], 2],
    ['report.app', ['app'], 'Main'],
    ['report.dev', ['dev'], 'short'],
    ['report.epoch', ['epoch'], 'q0ZfAAAAA1='],
    ['report.seq', ['seq'], -1],
    ['report.seq', ['seq'], 1.5],
    ['report.sent', ['sent'], '1763668812345'],
    ['report.sdk', ['sdk'], 'inlay/<script>'],
    ['report.rt', ['rt'], 'Mozilla/5.0 (X11)'],
    ['report.cls', ['cls'], 12],
    ['report.consent', ['consent'], 'unset'],
    ['report.samp', ['samp'], 0],
    ['report.eps', ['eps'], -1],
    ['report.drop', ['drop'], { 'a sentence': 1 }],
    ['report.win', ['win'], []],
    ['report.win', ['win'], Array.from({ length: 13 }, () => fullWindow)],
    ['report has an unknown key', ['ip'], '10.0.0.1'],
    ['report.dev', ['dev'], undefined],
    ['win[0].n', ['win', 0, 'n'], undefined],
    ['win[0] has an unknown key', ['win', 0, 'url'], 'https://example.com'],
    ['win[0].t', ['win', 0, 't'], 1_763_668_501],
    ['win[0].d', ['win', 0, 'd'], 0],
    ['win[0].m', ['win', 0, 'm'], '../model'],
    ['win[0].ver', ['win', 0, 'ver'], 'a b'],
    ['win[0].prof', ['win', 0, 'prof'], '9F2C00112233AABB'],
    ['win[0].n', ['win', 0, 'n'], 149],
    ['win[0].n', ['win', 0, 'n'], 2 ** 33],
    ['win[0].ro', ['win', 0, 'ro'], undefined],
    ['win[0].err', ['win', 0, 'err'], { __proto__x: 1 }],
    ['win[0].err', ['win', 0, 'err'], { constructor: 1 }],
    ['win[0].err', ['win', 0, 'err'], Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`e${i}`, 0]))],
    ['win[0].ch', ['win', 0, 'ch'], [1]],
    ['win[0].h', ['win', 0, 'h', 'lat', 's'], 4],
    ['win[0].h', ['win', 0, 'h', 'other'], fullWindow.h?.queue],
    ['win[0].g', ['win', 0, 'g', 'battery'], 1],
    ['win[0].biz', ['win', 0, 'biz', 'toString'], [1, 1]],
    ['win[0].biz', ['win', 0, 'biz', 'sale'], [1, null]],
    ['win[0].p', ['win', 0, 'p', 'valueOf'], [1, 2, 3]],
    ['win[0].p', ['win', 0, 'p', 'y'], [1, 2]],
    ['win[0].x', ['win', 0, 'x', 'len'], Array.from({ length: 131 }, () => 1)],
    ['win[0].fb', ['win', 0, 'fb', 'cm'], [[0, 1]]],
    ['win[0].fb', ['win', 0, 'fb', 'cal'], [[1, 1, 1]]],
    ['win[0].bl', ['win', 0, 'bl', 'e'], undefined],
    ['win[0].sh', ['win', 0, 'sh'], [1, 2, 3]],
  ])('says %s of a change at %j to %j', (problem, path, value) => {
    expect(readReport(changed(path, value))).toEqual({ problem });
  });

  it('refuses a prototype in disguise, and leaves no trace of it', () => {
    for (const path of [[], ['win', 0], ['win', 0, 'err'], ['win', 0, 'p'], ['win', 0, 'biz'], ['drop']]) {
      const value: unknown = changed([...path, '__proto__'], { polluted: 1 });
      expect(readReport(JSON.parse(JSON.stringify(value))).report).toBeUndefined();
    }
    expect(Object.hasOwn(Object.prototype, 'polluted')).toBe(false);
  });

  it.each(['p', 'x', 'fb', 'biz', 'cost'] as const)('refuses %s without full consent', (field) => {
    const { t, d, m, ver, n, ok } = fullWindow;
    const necessary = { ...full, consent: 'necessary', win: [{ t, d, m, ver, n, ok }] };
    expect(readReport(necessary).problem).toBeUndefined();
    const win = [{ t, d, m, ver, n, ok, [field]: fullWindow[field] }];
    expect(readReport({ ...necessary, win })).toEqual({ problem: `win[0].${field}` });
  });

  it('repeats nothing that the sender has made up', () => {
    const named = readReport({ ...full, 'a secret': 1 });
    expect(named.problem).not.toContain('secret');
    expect(readReport({ ...full, win: [{ ...fullWindow, err: { 'a secret': 1 } }] }).problem).not.toContain(
      'secret',
    );
  });

  it('never throws, whatever JSON comes', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(readReport(value).report).toBeUndefined();
      }),
    );
  });

  it('takes nothing that a random change has broken, and never throws', () => {
    const paths: (string | number)[][] = [];
    const collect = (value: unknown, path: (string | number)[]): void => {
      if (path.length > 0) paths.push(path);
      if (typeof value !== 'object' || value === null) return;
      for (const [key, inner] of Object.entries(value)) {
        collect(inner, [...path, Array.isArray(value) ? Number(key) : key]);
      }
    };
    collect(full, []);
    const broken = fc.oneof(
      fc.string(),
      fc.constantFrom(null, true, -1, 0.5, 1e300, [], {}, [[]], { s: 5 }),
      fc.jsonValue(),
    );
    fc.assert(
      fc.property(fc.constantFrom(...paths), broken, (path, value) => {
        const { report, problem } = readReport(changed(path, value));
        // What is taken is bounded, and all of its numbers are finite.
        if (problem !== undefined) return;
        const text = JSON.stringify(report);
        expect(text).not.toContain('null');
        expect(text.length).toBeLessThan(4000);
      }),
      { numRuns: 3000 },
    );
  });
});
