import { describe, expect, it } from 'vitest';
import { fastest, missedBeforeTiming, missedByTiming, speedupOf } from '../../../src/optimize/choose.ts';
import type { Accuracy, Attempt } from '../../../src/optimize/decision.ts';
import { completeGoal } from '../../../src/optimize/options.ts';
import { rankSensitive } from '../../../src/optimize/sensitivity.ts';
import { createGraph } from '../../../src/onnx/build.ts';

const accuracy = (sqnrDb: number | null, agreement = 1): Accuracy => ({
  sqnrDb,
  agreement,
  cosine: 1,
  maxAbs: 0,
});
function attempt(name: string, speedups: readonly number[], sqnrDb: number | null = 30): Attempt {
  const times = speedups.map((speedup, i) => ({ batch: 8 ** i, p10Ms: 1 / speedup, p50Ms: 1, speedup }));
  return { name, outcome: 'beaten', reason: '', times, accuracy: accuracy(sqnrDb) };
}
const original = attempt('original', [1, 1], null);

describe('fastest', () => {
  it('takes the fastest over all batches', () => {
    expect(fastest([original, attempt('a', [4, 1]), attempt('b', [3, 3])])?.name).toBe('b');
  });

  it('takes the more accurate of two that are as fast within 5 %', () => {
    expect(fastest([original, attempt('a', [3], 20), attempt('b', [2.9], 40)])?.name).toBe('b');
    expect(fastest([original, attempt('a', [3], 20), attempt('b', [2.8], 40)])?.name).toBe('a');
  });

  it('keeps the original where nothing is more than 5 % faster', () => {
    expect(fastest([original, attempt('a', [1.04, 1.04])])?.name).toBe('original');
  });

  it('takes the smaller of two that answer alike', () => {
    const [large, small] = [attempt('a', [2]), { ...attempt('b', [2]), sizeRatio: 0.2 }];
    expect(fastest([original, large, small])?.name).toBe('b');
  });

  it('finds nothing among nothing', () => {
    expect(fastest([])).toBeUndefined();
  });
});

describe('goals', () => {
  const goal = {
    ...completeGoal({ minAgreement: 0.9, maxSizeRatio: 0.5, minSpeedup: 1 }, [1, 8]),
    minScore: 0.8,
  };

  it('are all named that are missed', () => {
    const missed = missedBeforeTiming(
      { accuracy: accuracy(12.3, 0.5), sizeRatio: 0.6, isBatchInvariant: false, score: 0.7 },
      goal,
    );
    expect(missed.join('\n')).toBe(
      'its answers have 12.3 dB, asked for are 25\n' +
        'it decides 50 % of the rows as the original, asked for are 90 %\n' +
        'it scores 0.7, asked for are 0.8\n' +
        'a row does not get alone what it gets in a batch\n' +
        'it has 60 % of the size, asked for are 50 %',
    );
  });

  it('are missed by answers that are no numbers', () => {
    expect(missedBeforeTiming({ accuracy: accuracy(Number.NaN) }, goal)).toHaveLength(1);
    expect(missedBeforeTiming({ accuracy: accuracy(-Infinity) }, goal)).toHaveLength(1);
  });

  it('are not missed by what is exactly enough, the same, or not known', () => {
    expect(missedBeforeTiming({ accuracy: accuracy(25, 0.9), sizeRatio: 0.5, score: 0.8 }, goal)).toEqual([]);
    expect(missedBeforeTiming({ accuracy: accuracy(null) }, goal)).toEqual([]);
    expect(missedBeforeTiming({}, goal)).toEqual([]);
  });

  it('count each batch', () => {
    expect(missedByTiming(attempt('a', [0.5, 9]), goal)).toEqual([
      'it runs 0.5 times as fast with 1 row, asked for are 1',
    ]);
    expect(missedByTiming(attempt('a', [Number.NaN]), goal)).toHaveLength(1);
    expect(speedupOf(attempt('a', [0.5, 2]))).toBeCloseTo(1);
    expect(speedupOf({})).toBeUndefined();
  });

  it('ask for no speed where size is asked for', () => {
    expect(completeGoal({ maxSizeRatio: 0.5 }).minSpeedup).toBe(0);
    expect(completeGoal({}).minSpeedup).toBe(0.97);
    expect(completeGoal({}, [1]).isBatchInvariant).toBe(false);
    expect(completeGoal({}, [1, 4]).isBatchInvariant).toBe(true);
  });
});

describe('rankSensitive', () => {
  it('puts the ends first, then the layers at which accuracy falls most', () => {
    const graph = createGraph({ name: 'test', opset: 17 });
    let value = graph.input('x', 'float32', ['batch', 4]);
    for (const name of ['a', 'b', 'c', 'd', 'e'])
      value = graph.node('MatMul', [value, value], {}, { name, outputs: `${name}-out` });
    const changed = ['a', 'b', 'c', 'd', 'e'].map((node) => ({ node, op: 'MatMul', reason: '' }));
    const layers = [40, 38, 25, 24, 23].map((sqnrDb, i) => ({ value: `${'abcde'[i]}-out`, sqnrDb }));
    expect(rankSensitive(graph.toModel(), changed, layers)).toEqual(['a', 'e', 'c', 'b', 'd']);
  });
});
