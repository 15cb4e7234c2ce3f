import { describe, expect, it } from 'vitest';
import type { CallFacts } from '../../../src/schedule/job.ts';
import { openVirtual, sample, virtualTime, watch } from './virtual.ts';

describe('the facts of calls', () => {
  it('say how long each waited, and count a run that answers several once', async () => {
    const time = virtualTime();
    const { queue, session, metrics } = openVirtual(time, { compute: ({ x }) => ({ y: x as never }) });
    const facts = Array.from({ length: 9 }, (): CallFacts => ({ queueMs: undefined, runs: 0 }));
    const call = (fact: CallFacts, i: number) => watch(time, queue.run(sample(i), { facts: fact }));
    const calls = facts.slice(0, 6).map(call);
    await time.run(2);
    calls.push(...facts.slice(6).map(call));
    const uncounted = watch(time, queue.run(sample(9)));
    await time.run();
    for (const { outcome } of [...calls, uncounted]) expect(outcome?.kind).toBe('answered');
    const runs = facts.reduce((sum, fact) => sum + fact.runs, 0);
    const { verifications } = metrics.read();
    expect(runs).toBe(session.batches.length - verifications);
    expect(runs).toBeLessThan(facts.length);
    const waited = facts.map(({ queueMs }) => queueMs ?? Number.NaN);
    expect(Math.min(...waited)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...waited)).toBeGreaterThan(0);
    expect(Math.max(...waited)).toBe(metrics.read().queueMs.max);
  });
});
