import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cheapestPath, type Edge } from '../../../src/update/cheapest-path.ts';

/** The least that a path costs: all paths that meet no file twice are tried. */
function bruteForce(edges: readonly Edge[], present: readonly string[], target: string): number {
  const from = (name: string | undefined, seen: readonly (string | undefined)[]): number =>
    name === target
      ? 0
      : Math.min(
          Infinity,
          ...edges
            .filter((edge) => edge.from === name && !seen.includes(edge.to))
            .map((edge) => edge.cost + from(edge.to, [...seen, edge.to])),
        );
  return Math.min(...[undefined, ...present].map((name) => from(name, [name])));
}

const file = fc.constantFrom('a', 'b', 'c', 'd', 'e');
const edge = fc.record({
  from: fc.option(file, { nil: undefined, freq: 8 }),
  to: file,
  cost: fc.integer({ min: 1, max: 30 }),
});

describe('cheapestPath', () => {
  it('costs no more than any other path, begins at what is there, and ends at the target', () => {
    fc.assert(
      fc.property(
        fc.array(edge, { maxLength: 9 }),
        fc.uniqueArray(file, { maxLength: 2 }),
        (edges, present) => {
          const path = cheapestPath(edges, present, 'e');
          const { cost = Infinity, steps = [] } = path ?? {};
          expect(cost).toBe(bruteForce(edges, present, 'e'));
          expect(path === undefined || steps.reduce((sum, step) => sum + step.cost, 0) === cost).toBe(true);
          for (const [i, { from }] of steps.entries())
            expect(i === 0 ? from === undefined || present.includes(from) : from === steps[i - 1]?.to).toBe(
              true,
            );
          expect(steps.at(-1)?.to ?? 'e').toBe('e');
        },
      ),
      { numRuns: 60, seed: 1 },
    );
  });

  it('is the one that was named first of two that cost the same, and none where nothing leads there', () => {
    const edges = [
      { from: 'a', to: 'c', cost: 2, id: 1 },
      { from: 'b', to: 'c', cost: 2, id: 2 },
    ];
    expect(cheapestPath(edges, ['b', 'a'], 'c')).toMatchObject({ cost: 2, steps: [edges[0]] });
    expect(cheapestPath(edges, ['c'], 'c')).toEqual({ cost: 0, steps: [] });
    expect(cheapestPath(edges, [], 'c')).toBeUndefined();
  });
});
