import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { FunctionStep } from '../../../src/engine/pipeline-definition.ts';
import { createPipeline } from '../../../src/engine/pipeline.ts';
import { testPlatform } from '../platform.ts';
import { watchRejections } from './pipeline-fakes.ts';

const platform = testPlatform();

/** A step of a random graph: it needs inputs and earlier steps, and takes some turns. */
const step = fc.record({
  needs: fc.array(fc.nat(30), { maxLength: 4 }),
  turns: fc.nat(4),
  isSync: fc.boolean(),
  maxInFlight: fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
});
const graph = fc.record({
  steps: fc.array(step, { minLength: 1, maxLength: 10 }),
  calls: fc.array(fc.nat(1000), { minLength: 1, maxLength: 6 }),
  outputs: fc.array(fc.nat(30), { minLength: 1, maxLength: 3 }),
  failing: fc.option(fc.nat(9), { nil: -1 }),
  shuffle: fc.infiniteStream(fc.nat(1000)),
});

describe('any pipeline', () => {
  it('gives what its steps give one after the other, within its bounds, and fails as they do', async () => {
    watchRejections();
    await fc.assert(
      fc.asyncProperty(graph, async ({ steps, calls, outputs, failing, shuffle }) => {
        const needs = steps.map((each, at) => [...new Set(each.needs.map((need) => need % (at + 1)))]);
        const wanted = [...new Set(outputs.map((output) => (output % steps.length) + 1))];
        const combine = (at: number, taken: readonly number[]): number => {
          if (at === failing) throw new Error(`step ${at}`);
          return taken.reduce((sum, value) => (sum * 31 + value) % 1_000_003, at + 1);
        };

        const needed = new Set<number>(wanted);
        for (let at = steps.length; at > 0; at -= 1) {
          if (needed.has(at)) for (const need of needs[at - 1] ?? []) needed.add(need);
        }
        const sequential = (input: number): Record<string, number> => {
          const values: number[] = [input];
          for (let at = 0; at < steps.length; at += 1) {
            if (!needed.has(at + 1)) continue;
            values[at + 1] = combine(
              at,
              (needs[at] ?? []).map((need) => values[need] as number),
            );
          }
          return Object.fromEntries(wanted.map((at) => [`v${at}`, values[at] as number]));
        };

        const ran: number[] = [];
        const entries = steps.map(({ turns, isSync, maxInFlight }, at): [string, FunctionStep] => {
          let inFlight = 0;
          const run: FunctionStep['run'] = (values) => {
            ran.push(at + 1);
            const taken = (needs[at] ?? []).map((need) => Number(values[`v${need}`]));
            if (isSync) return combine(at, taken);
            inFlight += 1;
            expect(inFlight).toBeLessThanOrEqual(maxInFlight ?? Infinity);
            return (async () => {
              for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
              inFlight -= 1;
              return combine(at, taken);
            })();
          };
          const bound = maxInFlight === undefined ? {} : { maxInFlight };
          return [`v${at + 1}`, { inputs: (needs[at] ?? []).map((need) => `v${need}`), run, ...bound }];
        });
        const order = entries.map((entry) => ({ entry, key: shuffle.next().value }));
        const pipeline = createPipeline(platform, {
          inputs: ['v0'],
          steps: Object.fromEntries(order.sort((a, b) => a.key - b.key).map(({ entry }) => entry)),
          outputs: wanted.map((at) => `v${at}`),
        });

        const results = await Promise.allSettled(calls.map((input) => pipeline.run({ v0: input })));
        const expected = await Promise.allSettled(calls.map(async (input) => sequential(input)));
        expect(results).toEqual(expected);
        expect(ran.every((at) => needed.has(at))).toBe(true);
        if (expected[0]?.status === 'fulfilled') expect(ran).toHaveLength(calls.length * new Set(ran).size);
      }),
      { numRuns: 300 },
    );
  });
});
