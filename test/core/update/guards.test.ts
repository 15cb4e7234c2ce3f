import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { BackendError, InputError, ModelError, ScheduleError, StateError } from '../../../src/core/errors.ts';
import { toBfloat16Bits, toFloat16Bits } from '../../../src/core/float.ts';
import { Tensor, tensorFrom } from '../../../src/core/tensor.ts';
import { kindOfAnswer } from '../../../src/update/guards-outputs.ts';
import { chanceOfAtLeast } from '../../../src/stats/special.ts';
import { createTrialWatch, type TrialWatch } from '../../../src/update/guards.ts';
import { rules } from './slots-fixture.ts';

const failure = new BackendError('ERR_INLAY_RUN_FAILED', 'The run failed.');
const good: TensorMap = { y: tensorFrom('float32', [1, 2]) };
const bad: TensorMap = { y: tensorFrom('float32', [1, Number.NaN]) };
const nothing: TensorMap = { y: new Tensor('float32', [0, 4], new Float32Array()) };

const answer = (watch: TrialWatch, times: number, outputs: unknown = good, ms = 5): void => {
  for (let i = 0; i < times; i += 1) watch.answered(ms, outputs);
};
const fail = (watch: TrialWatch, times: number, error: unknown = failure): void => {
  for (let i = 0; i < times; i += 1) watch.failed(error);
};
const reasonOf = (watch: TrialWatch, nowMs = 0): string => {
  const verdict = watch.verdict(nowMs);
  return typeof verdict === 'string' ? verdict : verdict.reason;
};

describe('a trial', () => {
  it('passes after enough answers and enough time', () => {
    const watch = createTrialWatch(rules);
    expect(watch.verdict(1000)).toBe('going-on');
    answer(watch, 19);
    expect(watch.verdict(61_000)).toBe('going-on');
    answer(watch, 1);
    expect(watch.verdict(60_999)).toBe('going-on');
    expect(watch.verdict(61_000)).toBe('passed');
  });

  it('goes on from where it stood when the app ended', () => {
    const watch = createTrialWatch(rules, undefined, { at: 5000, inferences: 18, errors: 0 });
    answer(watch, 1);
    expect(watch.takeCounts()).toEqual({ inferences: 1, errors: 0 });
    expect(watch.verdict(65_000)).toBe('going-on');
    answer(watch, 1);
    fail(watch, 1, new Error('A mistake of the app.'));
    expect(watch.takeCounts()).toEqual({ inferences: 1, errors: 0 });
    expect(watch.takeCounts()).toEqual({ inferences: 0, errors: 0 });
    expect(watch.verdict(64_999)).toBe('going-on');
    expect(watch.verdict(65_000)).toBe('passed');
  });

  it('begins its soak time anew when the clock is set back', () => {
    const watch = createTrialWatch({ ...rules, minInferences: 1 });
    answer(watch, 1);
    expect(watch.verdict(1e12)).toBe('going-on');
    expect(watch.verdict(1000)).toBe('going-on');
    expect(watch.verdict(60_999)).toBe('going-on');
    expect(watch.verdict(61_000)).toBe('passed');
  });

  it.each([
    [1, 0, 'going-on'],
    [2, 0, 'errors'],
    [2, 5, 'errors'],
    [2, 6, 'going-on'],
    [3, 19, 'errors'],
    [3, 20, 'going-on'],
    [4, 38, 'errors'],
    [4, 39, 'going-on'],
  ])('with %d errors among %d answers: %s', (errors, answers, expected) => {
    const watch = createTrialWatch(rules);
    answer(watch, answers);
    fail(watch, errors);
    expect(reasonOf(watch)).toBe(expected);
  });

  it('does not pass while more calls fail than is tolerated', () => {
    const watch = createTrialWatch(rules);
    watch.verdict(0);
    fail(watch, 1);
    answer(watch, 48);
    expect(reasonOf(watch, 1e6)).toBe('going-on');
    answer(watch, 1);
    expect(reasonOf(watch, 1e6)).toBe('passed');
  });

  it('bears no error where none is tolerated, and any where all are', () => {
    const strict = createTrialWatch({ ...rules, maxErrorBp: 0 });
    answer(strict, 1000);
    fail(strict, 1);
    expect(reasonOf(strict)).toBe('errors');
    const lax = createTrialWatch({ ...rules, maxErrorBp: 10_000 });
    fail(lax, 1000);
    expect(reasonOf(lax)).toBe('going-on');
  });

  it('does not count what callers did wrong', () => {
    const watch = createTrialWatch(rules);
    for (const error of [
      new InputError('ERR_INLAY_FEED_MISSING', 'A feed is missing.'),
      new ScheduleError('ERR_INLAY_DEADLINE', 'Too late.'),
      new StateError('ERR_INLAY_CLOSED', 'Closed.'),
      new DOMException('The user went away.', 'AbortError'),
      new TypeError('No such option.'),
      'a reason of the app',
      null,
    ])
      fail(watch, 10, error);
    expect(watch.takeCounts()).toEqual({ inferences: 0, errors: 0 });
    fail(watch, 1, new ModelError('ERR_INLAY_MODEL_INVALID', 'Broken.'));
    expect(watch.takeCounts()).toEqual({ inferences: 0, errors: 1 });
  });

  it('rejects answers that are no numbers from the second on', () => {
    const watch = createTrialWatch(rules);
    answer(watch, 1, bad);
    expect(reasonOf(watch)).toBe('going-on');
    answer(watch, 1, bad);
    expect(watch.verdict(0)).toEqual({
      reason: 'invalid-outputs',
      detail: '2 of 2 answers had no finite numbers or no outputs.',
    });
    const rare = createTrialWatch(rules);
    answer(rare, 99, good);
    answer(rare, 2, bad);
    expect(reasonOf(rare)).toBe('going-on');
    answer(rare, 1, bad);
    expect(reasonOf(rare)).toBe('invalid-outputs');
    const none = createTrialWatch(rules);
    answer(none, 2, {});
    expect(reasonOf(none)).toBe('invalid-outputs');
  });

  it('rejects outputs without elements only if there never was anything else', () => {
    const watch = createTrialWatch(rules);
    answer(watch, 19, nothing);
    expect(reasonOf(watch)).toBe('going-on');
    answer(watch, 1, nothing);
    expect(reasonOf(watch)).toBe('invalid-outputs');
    const detector = createTrialWatch(rules);
    detector.verdict(0);
    answer(detector, 1, good);
    answer(detector, 100, nothing);
    expect(reasonOf(detector, 1e6)).toBe('passed');
  });

  it('does not look at what is no table of tensors', () => {
    const watch = createTrialWatch(rules);
    watch.verdict(0);
    for (const outputs of [undefined, 'label', [1], { label: 'cat' }, { y: bad['y'], label: 1 }])
      answer(watch, 5, outputs);
    expect(reasonOf(watch, 1e6)).toBe('passed');
  });

  it.each([
    [110, 10, 20, 'going-on'],
    [110, 10, 20.1, 'latency'],
    [109, 10, 50, 'going-on'],
    [110, 0.1, 1.05, 'going-on'],
    [110, 0.1, 1.15, 'latency'],
  ])('with %d run times against %d ms before, %d ms: %s', (times, before, ms, expected) => {
    const watch = createTrialWatch(rules, { p95Ms: before, samples: 100 });
    answer(watch, times, good, ms);
    expect([reasonOf(watch, 0), reasonOf(watch, 9999)]).toEqual(['going-on', 'going-on']);
    expect(reasonOf(watch, 10_000)).toBe(expected);
  });

  it('judges run times by the 95th percentile of the last 512, and not without enough to compare with', () => {
    const one = createTrialWatch(rules, { p95Ms: 10 }, { at: 0, inferences: 0, errors: 0 });
    // What warms it up does not count.
    answer(one, 10, good, 5000);
    answer(one, 95, good, 5);
    answer(one, 5, good, 5000);
    expect(reasonOf(one, 10_000)).toBe('going-on');
    answer(one, 1, good, 5000);
    expect(reasonOf(one, 10_000)).toBe('latency');
    answer(one, 512, good, 5);
    expect(reasonOf(one, 10_000)).toBe('going-on');
    for (const baseline of [{}, { p95Ms: 10, samples: 99 }]) {
      const watch = createTrialWatch(rules, baseline, { at: 0, inferences: 0, errors: 0 });
      answer(watch, 200, good, 5000);
      expect(reasonOf(watch, 10_000)).toBe('going-on');
    }
  });

  it('rejects too much memory, where there is a limit', () => {
    const of = (maxMemoryMiB: number, memoryBytes: number | undefined): string => {
      const watch = createTrialWatch(
        { ...rules, maxMemoryMiB },
        memoryBytes === undefined ? {} : { memoryBytes },
      );
      watch.measured(200 * 2 ** 20 + 1);
      return reasonOf(watch);
    };
    expect(of(100, 100 * 2 ** 20)).toBe('memory');
    expect(of(101, 100 * 2 ** 20)).toBe('going-on');
    expect(of(0, 0)).toBe('going-on');
    expect(of(100, undefined)).toBe('going-on');
  });
});

describe('the bound of errors', () => {
  it('is the tail of the binomial distribution', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 60 }),
        fc.nat(60),
        fc.integer({ min: 1, max: 9999 }),
        (n, k, bp) => {
          const p = bp / 10_000;
          let tail = 0;
          let ways = 1;
          for (let i = 0; i <= n; i += 1) {
            if (i >= k) tail += ways * p ** i * (1 - p) ** (n - i);
            ways = (ways * (n - i)) / (i + 1);
          }
          expect(chanceOfAtLeast(k, n, p)).toBeCloseTo(Math.min(1, tail), 9);
        },
      ),
    );
  });

  it('holds for very many calls', () => {
    expect(chanceOfAtLeast(20_000, 1_000_000, 0.02)).toBeCloseTo(0.5, 2);
    expect(chanceOfAtLeast(21_000, 1_000_000, 0.02)).toBeLessThan(1e-9);
    expect(chanceOfAtLeast(0, 10, 0.5)).toBe(1);
    expect(chanceOfAtLeast(11, 10, 0.5)).toBe(0);
    expect(chanceOfAtLeast(1, 10, 0)).toBe(0);
    expect(chanceOfAtLeast(10, 10, 1)).toBe(1);
  });
});

describe('kindOfAnswer', () => {
  const infinite = [
    new Tensor('float16', [1], Uint16Array.of(toFloat16Bits(-Infinity))),
    new Tensor('bfloat16', [1], Uint16Array.of(toBfloat16Bits(Number.NaN))),
    new Tensor('float64', [1], Float64Array.of(Infinity)),
    new Tensor('complex64', [1], Float32Array.of(0, Number.NaN)),
  ];
  const finite = [
    new Tensor('float16', [1], Uint16Array.of(toFloat16Bits(65_504))),
    new Tensor('bfloat16', [1], Uint16Array.of(toBfloat16Bits(3e38))),
    tensorFrom('int64', [1n]),
    tensorFrom('string', ['NaN']),
    new Tensor('uint16', [1], Uint16Array.of(0xff_ff)),
  ];

  it('knows what is no number in each dtype of floats', () => {
    for (const y of infinite) expect(kindOfAnswer({ x: tensorFrom('int8', 1), y }, 0)).toBe('non-finite');
    for (const y of finite) expect(kindOfAnswer({ y }, 0)).toBe('good');
  });

  it('sees the first and the last element in every call, and every other one within some calls', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 700 }), fc.nat(), (length, at) => {
        const data = new Float32Array(length);
        const i = at % length;
        data[i] = Number.NaN;
        const y = new Tensor('float32', [length], data);
        const turns = length <= 64 || i === 0 || i === length - 1 ? 1 : Math.ceil(length / 62);
        const kinds = Array.from({ length: turns }, (_, turn) => kindOfAnswer({ y }, turn));
        expect(kinds).toContain('non-finite');
      }),
    );
  });

  it('looks at 64 elements at most', () => {
    let reads = 0;
    const data = new Proxy(new Float32Array(1_000_000), {
      get: (target, name) => {
        if (typeof name === 'string' && /^\d+$/.test(name)) reads += 1;
        const value: unknown = Reflect.get(target, name, target);
        return value;
      },
    });
    for (const turn of [0, 1, 12_345]) {
      reads = 0;
      expect(kindOfAnswer({ y: new Tensor('float32', [1_000_000], data) }, turn)).toBe('good');
      expect(reads).toBeGreaterThan(32);
      expect(reads).toBeLessThanOrEqual(64);
    }
  });
});
