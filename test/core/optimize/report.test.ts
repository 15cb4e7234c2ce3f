import { describe, expect, it } from 'vitest';
import type { Attempt, Decision } from '../../../src/optimize/decision.ts';
import { completeGoal } from '../../../src/optimize/options.ts';
import { createReport } from '../../../src/optimize/report.ts';

const accuracy = { sqnrDb: 33.7, cosine: 0.999, maxAbs: 0.01, agreement: 0.995 };
const times = [
  { batch: 1, p10Ms: 0.5, p50Ms: 0.6, speedup: 3.2 },
  { batch: 8, p10Ms: 2, p50Ms: 2.1, speedup: 4 },
];
const hostile = '<script>alert(1)</script> | "quoted"';
const chosen: Attempt = {
  name: 'int8-row',
  outcome: 'chosen',
  reason: 'int8-row runs 3.58 times as fast',
  sizeBytes: 2500,
  sizeRatio: 0.25,
  accuracy,
  times,
  isBatchInvariant: true,
  layers: [
    { value: hostile, sqnrDb: 31 },
    { value: 'y', sqnrDb: null },
  ],
  kept: [{ node: hostile, op: 'Conv', reason: 'it is depthwise' }],
};
const decision: Decision = {
  target: 'node-cpu',
  runtime: 'onnxruntime-node 1.30.0',
  batches: [1, 8],
  threads: 1,
  goal: completeGoal({ minAgreement: 0.99 }, [1, 8]),
  samples: { count: 64, isMadeUp: false },
  calibration: { method: 'percentile', samples: 32 },
  workload: { matMul: 10, conv: 0, depthwise: 0, embedding: 0, lstm: 0 },
  original: {
    name: 'original',
    outcome: 'beaten',
    reason: '',
    sizeBytes: 10_000,
    sizeRatio: 1,
    times: times.map((time) => ({ ...time, p10Ms: time.p10Ms * time.speedup, speedup: 1 })),
  },
  attempts: [
    chosen,
    {
      name: 'int4-block32',
      outcome: 'rejected',
      reason: 'its answers have 12 dB, asked for are 25',
      sizeBytes: 1500,
    },
    { name: 'int8-static', outcome: 'dismissed', reason: 'ranges of activations are not known' },
  ],
  chosen: 'int8-row',
  reason: 'int8-row runs 3.58 times as fast in 25 % of the size',
  warnings: [`Of ${hostile}.`],
};
const report = createReport(decision);

describe('createReport', () => {
  it('says the same in every form', () => {
    const facts = [
      '3.2×',
      '33.7 dB',
      '25 %',
      '99.5 %',
      'its answers have 12 dB',
      'ranges of activations are not known',
    ];
    for (const fact of facts) {
      expect(report.toMarkdown()).toContain(fact);
      expect(report.toHtml().replaceAll('\u00a0', ' ')).toContain(fact);
    }
    expect(JSON.parse(JSON.stringify(report.toJSON()))).toEqual({ v: 1, ...decision });
  });

  it('draws sizes, latencies of each batch and layers without a script', () => {
    const html = report.toHtml();
    expect(html.match(/<figure>/g)).toHaveLength(4);
    for (const title of ['Size', 'Latency with 1 row', 'Latency with 8 rows', 'Signal-to-noise'])
      expect(html).toContain(title);
    expect(html).toContain('prefers-color-scheme: dark');
    expect(html).toContain('width=device-width');
    expect(html).not.toMatch(/<script|https?:|NaN|undefined/);
  });

  it('lets no name become markup', () => {
    expect(report.toHtml()).not.toContain('<script>');
    expect(report.toMarkdown()).not.toContain('<script>');
    const [row = ''] = report
      .toMarkdown()
      .split('\n')
      .filter((line) => line.includes('Conv'));
    expect(row.match(/(?<!\\)\|/g)).toHaveLength(4);
  });

  it('says that the original was kept', () => {
    const kept = createReport({
      ...decision,
      chosen: null,
      attempts: decision.attempts.slice(1),
      reason: 'no candidate holds the goal',
    });
    expect(kept.toMarkdown()).toMatch(
      /^# The original was kept\n\nThe original was kept: no candidate holds the goal\./,
    );
    expect(kept.toHtml()).toContain('no candidate holds the goal');
  });
});
