import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BackendError, ScheduleError } from '../../../src/core/errors.ts';
import { tensorFrom } from '../../../src/core/tensor.ts';
import { createRecorder, type RecorderParts } from '../../../src/telemetry/create-recorder.ts';
import { countOf } from '../../../src/telemetry/histogram.ts';
import type { Profile } from '../../../src/telemetry/profile.ts';
import type { Recorder, RecordingContext } from '../../../src/telemetry/recorder.ts';
import type { Consent, ReportWindow } from '../../../src/telemetry/report.ts';
import { readReport } from '../../../src/telemetry/report-reader.ts';
import { createWindows, type Windows } from '../../../src/telemetry/windows.ts';
import { testPlatform, testStart, type TestPlatform } from '../platform.ts';

const profile: Profile = {
  v: 1,
  inputs: { x: { type: 'number', tensor: 'x', reading: 'elements', edges: [0, 1, 2], counts: [1, 1, 0, 0] } },
  outputs: {
    y: { type: 'category', tensor: 'y', reading: 'argmax', values: ['0', '1', '2'], counts: [1, 1, 1, 0, 0] },
    sure: { type: 'number', tensor: 'y', reading: 'max', edges: [0, 0.5, 1], counts: [1, 1, 0, 0] },
  },
  prediction: 'y',
  confidence: 'sure',
};
const hash = '0011223344556677';
const call = {
  feeds: { x: tensorFrom('float32', [0.5]) },
  outputs: { y: tensorFrom('float32', [[0.25, 0.75, 0]]) },
};
const base: RecordingContext = { version: '1', profile, profileHash: hash };
const candidate: RecordingContext = {
  version: '2',
  rollout: 'r1',
  stage: 3,
  arm: 't',
  baseline: { n: 120, e: 2, p95: 0.03 },
};

interface Rig {
  readonly platform: TestPlatform;
  readonly windows: Windows;
  readonly recorder: Recorder;
  consent: Consent;
}

function rig(parts: Partial<RecorderParts> = {}): Rig {
  const platform = testPlatform();
  const windows = createWindows(platform);
  const set = { consent: 'full' as Consent };
  const recorder = createRecorder({ model: 'm', windows, platform, consent: () => set.consent, ...parts });
  return Object.assign(set, { platform, windows, recorder });
}

describe('createRecorder', () => {
  it('counts answers with their times, and failures with their codes', () => {
    const { recorder, windows, platform } = rig();
    recorder.enter({ version: '1' });
    recorder.answered(12, { ...call, queueMs: 2, runs: 1, cache: 'miss', costMicros: 7 });
    recorder.answered(1, { ...call, cache: 'hit' });
    recorder.failed(new ScheduleError('ERR_INLAY_DEADLINE', 'Too late.'), 5);
    recorder.failed(new BackendError('ERR_INLAY_RUN_FAILED', 'No.'), 5);
    recorder.failed(new Error('secret text'), 5);
    recorder.failed('text', 5);
    recorder.failed(Object.assign(new Error('late'), { name: 'TimeoutError' }), 5);
    recorder.opened(900);
    recorder.processor(4.4);
    recorder.received(1234.5);
    recorder.memory(100);
    recorder.memory(300);
    platform.advance(300_000);
    const [window, ...others] = windows.cut();
    expect(others).toEqual([]);
    expect(window).toMatchObject({
      t: testStart / 1000,
      d: 300,
      m: 'm',
      ver: '1',
      n: 7,
      ok: 2,
      err: { deadline: 1, run_failed: 1, unknown: 2, timeout: 1 },
      cold: 1,
      ch: [1, 1],
      ex: 1,
      g: { mem: [300, 200], cpu: 4, net: 1235 },
      cost: 7,
    });
    expect(window?.h?.lat).toMatchObject({ sum: 0.013, min: 0.001, max: 0.012 });
    expect(window?.h?.queue).toMatchObject({ sum: 0.002 });
    expect(window?.h?.load).toMatchObject({ sum: 0.9 });
    expect(JSON.stringify(window)).not.toContain('secret');
  });

  it('does not count a call that its caller gave up', () => {
    const { recorder, windows } = rig();
    recorder.enter(base);
    recorder.failed(new DOMException('gone', 'AbortError'), 3);
    recorder.failed(Object.assign(new Error('gone'), { name: 'AbortError' }), 3);
    expect(windows.cut()).toEqual([]);
  });

  it('keeps the ninth code and all beyond as other', () => {
    const { recorder, windows } = rig();
    recorder.enter(base);
    for (let i = 0; i < 12; i += 1) recorder.rejected(`reason ${i}`);
    recorder.rejected('Reason 0');
    recorder.rejected('__proto__');
    const [window] = windows.cut();
    expect(window?.rej).toMatchObject({ reason_0: 2, reason_7: 1, other: 5 });
    expect(Object.keys(window?.rej ?? {})).toHaveLength(9);
  });

  it('begins a window for each version and place in a rollout, with the baseline in each', () => {
    const { recorder, windows } = rig();
    recorder.enter(base);
    recorder.answered(1, call);
    recorder.enter(candidate);
    recorder.activated();
    recorder.answered(1, { ...call, context: base });
    recorder.answered(1, call);
    recorder.committed();
    recorder.crashed(base);
    recorder.shadow('unlike', 4, { version: '3', rollout: 'r2' });
    recorder.shadow('failed', 4, { version: '3', rollout: 'r2' });
    expect(windows.cut()).toMatchObject([
      { ver: '1', prof: hash, n: 2, fatal: 1 },
      { ver: '2', ro: 'r1', st: 3, arm: 't', n: 1, act: 1, com: 1, bl: candidate.baseline },
      { ver: '3', ro: 'r2', st: 0, n: 0, sh: [2, 0, 1, 1], h: { shadow: { b: [-255, 1] } } },
    ]);
    recorder.answered(1, call);
    expect(windows.cut()).toMatchObject([{ ver: '2', bl: candidate.baseline }]);
  });

  it('counts features where there is a profile, through the noise where there is ε', () => {
    const exact = rig();
    exact.recorder.enter(base);
    exact.recorder.answered(1, call);
    expect(exact.windows.cut()).toMatchObject([
      { x: { x: [1, 0, 0, 0] }, p: { y: [0, 1, 0, 0, 0], sure: [0, 1, 0, 0] } },
    ]);
    const noisy = rig({ epsilon: () => 0.5 });
    noisy.recorder.enter(base);
    for (let i = 0; i < 500; i += 1) noisy.recorder.answered(1, call);
    const [window] = noisy.windows.cut();
    expect(window?.x?.['x']?.every((count) => count > 50)).toBe(true);
    expect(window?.p?.['y']).toEqual([0, 500, 0, 0, 0]);
    expect(window?.ok).toBe(500);
  });

  it('samples features, and never calls', () => {
    const { recorder, windows } = rig({ sample: () => 0.25 });
    recorder.enter(base);
    for (let i = 0; i < 2000; i += 1) recorder.answered(1, call);
    const [window] = windows.cut();
    expect(window?.ok).toBe(2000);
    expect(countOf(window?.h?.lat ?? { s: 5, z: 0, sum: 0, b: [] })).toBe(2000);
    expect(window?.x?.['x']?.[0]).toBeGreaterThan(400);
    expect(window?.x?.['x']?.[0]).toBeLessThan(600);
  });

  it.each(['unset', 'necessary'] as const)(
    'counts nothing under consent %s but what guards need',
    (consent) => {
      const set = rig();
      const { recorder, windows } = set;
      set.consent = consent;
      recorder.enter(base);
      recorder.answered(1, { ...call, id: 'a', costMicros: 5 });
      recorder.event('sale', 10);
      expect(recorder.feedback('a', { label: 1, events: { sale: 1 } })).toBe(false);
      const [window] = windows.cut();
      expect(Object.keys(window ?? {}).sort()).toEqual(['d', 'h', 'm', 'n', 'ok', 'prof', 't', 'ver']);
    },
  );

  it('loses calls before it knows what they count for, and nothing else', () => {
    const { recorder, windows } = rig();
    recorder.answered(1, call);
    recorder.failed(new Error('no'), 1);
    recorder.event('sale', 1);
    expect(windows.cut()).toEqual([]);
    recorder.enter(base);
    recorder.answered(1, call);
    expect(windows.cut()).toMatchObject([{ n: 1 }]);
  });
});

describe('feedback', () => {
  it('joins labels with predictions, and counts them for the version that predicted', () => {
    const { recorder, windows } = rig();
    recorder.enter(base);
    recorder.answered(1, { ...call, id: 'a' });
    recorder.answered(1, { ...call, id: 'b' });
    windows.cut();
    recorder.enter(candidate);
    expect(recorder.feedback('a', { label: 1 })).toBe(true);
    expect(recorder.feedback('b', { label: '2' })).toBe(true);
    const [window, ...others] = windows.cut();
    expect(others).toEqual([]);
    expect(window).toMatchObject({
      ver: '1',
      prof: hash,
      n: 0,
      fb: {
        n: 2,
        ok: 1,
        cm: [
          [1, 1, 1],
          [2, 1, 1],
        ],
      },
    });
    expect(window?.fb?.cal?.[15]).toEqual([2, 1, 1.5]);
    expect(window?.fb?.cal).toHaveLength(20);
  });

  it('counts one label for a prediction, and events as often as they come', () => {
    const { recorder, windows } = rig();
    recorder.enter(base);
    recorder.answered(1, { ...call, id: 'a' });
    recorder.feedback('a', { label: 1, events: { sale: 9.5 } });
    recorder.feedback('a', { label: 0, events: { sale: 0.5 } });
    expect(windows.cut()).toMatchObject([{ fb: { n: 1, ok: 1 }, biz: { sale: [2, 10] } }]);
  });

  it('takes whether it was right where there is no class', () => {
    const { recorder, windows } = rig();
    recorder.enter(candidate);
    recorder.answered(1, { ...call, id: 'a' });
    expect(recorder.feedback('a', { label: 1 })).toBe(true);
    expect(recorder.feedback('a', { correct: false })).toBe(true);
    expect(windows.cut()).toMatchObject([{ ver: '2', fb: { n: 1, ok: 0 } }]);
  });

  it('knows a prediction for a week, and the last 4096', () => {
    const { recorder, platform } = rig();
    recorder.enter(base);
    recorder.answered(1, { ...call, id: 'old' });
    platform.advance(7 * 86_400_000);
    expect(recorder.feedback('old', { label: 1 })).toBe(true);
    platform.advance(1);
    expect(recorder.feedback('old', { label: 1 })).toBe(false);
    for (let i = 0; i <= 4096; i += 1) recorder.answered(1, { ...call, id: `${i}` });
    expect(recorder.feedback('0', { label: 1 })).toBe(false);
    expect(recorder.feedback('1', { label: 1 })).toBe(true);
    expect(recorder.feedback('never', {})).toBe(false);
  });

  it('takes events of sound names and values only, eight names at most', () => {
    const { recorder, windows } = rig();
    recorder.enter(base);
    for (const name of ['Sale', 'a b', '', 'constructor', '__proto__', 'x'.repeat(41)])
      recorder.event(name, 1);
    for (const value of [Number.NaN, Infinity, 1e300]) recorder.event('sale', value);
    expect(windows.cut()).toEqual([]);
    for (let i = 0; i < 10; i += 1) recorder.event(`e${i}`, -1);
    expect(Object.keys(windows.cut()[0]?.biz ?? {})).toHaveLength(8);
  });
});

describe('createWindows', () => {
  it('begins at a full minute and lasts to its end, whatever the wall clock does', () => {
    const { recorder, windows, platform } = rig();
    platform.advance(90_500);
    recorder.enter(base);
    recorder.answered(1, call);
    platform.setNow(testStart - 86_400_000);
    platform.advance(30_000);
    expect(windows.cut()).toMatchObject([{ t: testStart / 1000 + 60, d: 61 }]);
    platform.setNow(-5);
    recorder.answered(1, call);
    expect(windows.cut()).toMatchObject([{ t: 0, d: 1 }]);
  });

  it('cuts nothing where nothing was counted', () => {
    const { recorder, windows } = rig();
    recorder.enter(base);
    expect(windows.cut()).toEqual([]);
  });
});

describe('any sequence of events', () => {
  it('gives windows that the server takes, with every call in one of them', () => {
    const contexts = [base, candidate, { version: '2', rollout: 'r1', stage: 3, arm: 'c' }];
    const steps: fc.Arbitrary<(rig: Rig, id: string) => { answered?: number; failed?: number }> = fc.oneof(
      fc.constantFrom(...contexts).map(
        (context) =>
          ({ recorder }: Rig) => (recorder.enter(context), {}),
      ),
      fc
        .record({ ms: fc.double({ min: -10, max: 1e9 }), cost: fc.double() })
        .map(({ ms, cost }) => ({ recorder }: Rig, id: string) => {
          recorder.answered(ms, {
            ...call,
            id,
            costMicros: cost,
            queueMs: ms,
            cache: 'hit',
          });
          return { answered: 1 };
        }),
      fc.string().map((text) => ({ recorder }: Rig) => {
        recorder.failed(Object.assign(new Error(text), { code: text }), 1);
        return { failed: 1 };
      }),
      fc.string().map(
        (reason) =>
          ({ recorder }: Rig) => (recorder.rejected(reason), {}),
      ),
      fc.nat({ max: 20 }).map(
        (label) =>
          ({ recorder }: Rig) => (recorder.feedback(`${label}`, { label }), {}),
      ),
      fc.tuple(fc.string(), fc.double()).map(
        ([name, value]) =>
          ({ recorder }: Rig) => (recorder.event(name, value), {}),
      ),
      fc.nat({ max: 1e6 }).map(
        (ms) =>
          ({ platform }: Rig) => (platform.advance(ms), {}),
      ),
    );
    fc.assert(
      fc.property(fc.array(steps, { maxLength: 60 }), fc.integer({ min: 1, max: 20 }), (list, every) => {
        const set = rig();
        set.recorder.enter(base);
        const cut: ReportWindow[] = [];
        const truth = { answered: 0, failed: 0 };
        for (const [i, step] of list.entries()) {
          const { answered = 0, failed = 0 } = step(set, `${i}`);
          truth.answered += answered;
          truth.failed += failed;
          if (i % every === 0) cut.push(...set.windows.cut());
        }
        cut.push(...set.windows.cut());
        expect(cut.reduce((sum, { ok }) => sum + ok, 0)).toBe(truth.answered);
        expect(cut.reduce((sum, { n, ok }) => sum + n - ok, 0)).toBe(truth.failed);
        for (const window of cut) {
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
            win: [window],
          };
          expect(readReport(JSON.parse(JSON.stringify(report))).problem).toBeUndefined();
        }
      }),
      { numRuns: 300 },
    );
  });
});
