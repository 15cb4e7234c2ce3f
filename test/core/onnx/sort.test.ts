import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import type { GraphProto, NodeProto } from '../../../src/onnx/messages.ts';
import { sortGraph, sortNodes } from '../../../src/onnx/sort.ts';

const node = (input: readonly string[], ...output: readonly string[]): NodeProto => ({
  opType: 'Op',
  input,
  output,
  attribute: [],
});
const graphOf = (nodes: readonly NodeProto[], output: string): GraphProto => ({
  node: nodes,
  initializer: [],
  input: [],
  output: [{ name: output }],
});
const withBody = (body: GraphProto, ...output: readonly string[]): NodeProto => ({
  ...node([], ...output),
  attribute: [{ name: 'body', g: body }],
});

describe('sortNodes', () => {
  it('gives back a list that is in order, and none for a circle', () => {
    const list = [node(['x'], 'a'), node(['a', 'x'], 'b')];
    expect(sortNodes(list)).toBe(list);
    expect(sortNodes([node(['b'], 'a'), node(['a'], 'b')])).toBeUndefined();
    expect(sortNodes([node(['a'], 'a')])).toBeUndefined();
  });

  it('moves a node no further ahead than its first reader', () => {
    const [reader, late, other] = [node(['a'], 'b'), node(['x'], 'a'), node(['x'], 'c')] as const;
    expect(sortNodes([other, reader, late])).toEqual([other, late, reader]);
  });

  it('counts what bodies read, but not what they define themselves', () => {
    const body = graphOf([node(['a'], 'inner'), node(['inner'], 'late')], 'late');
    const [owner, a, late] = [withBody(body, 'y'), node(['x'], 'a'), node(['y'], 'late')] as const;
    expect(sortNodes([owner, late, a])).toEqual([a, owner, late]);
    expect(sortNodes([withBody(graphOf([], 'a'), 'y'), a])?.[0]).toBe(a);
  });

  it('follows chains that are longer than any stack', () => {
    const chain = Array.from({ length: 20_000 }, (_, i) => node([`v${i + 1}`], `v${i}`));
    expect(sortNodes(chain)?.[0]).toBe(chain.at(-1));
  });

  it('keeps every node, and puts makers before readers', () => {
    const edges = fc.array(fc.tuple(fc.nat({ max: 9 }), fc.nat({ max: 9 })), { maxLength: 20 });
    fc.assert(
      fc.property(edges, fc.integer({ min: 1, max: 9 }), (drawn, step) => {
        // Reads go from larger to smaller numbers, so that there is no circle; the order is any.
        const nodes = Array.from({ length: 10 }, (_, i) =>
          node(
            drawn.filter(([from, to]) => from === i && to < i).map(([, to]) => `v${to}`),
            `v${i}`,
          ),
        ).sort(
          (a, b) =>
            ((Number(a.output[0]?.slice(1)) * step) % 11) - ((Number(b.output[0]?.slice(1)) * step) % 11),
        );
        const sorted = sortNodes(nodes) ?? [];
        expect(new Set(sorted)).toEqual(new Set(nodes));
        const made = new Set<string>();
        for (const { input, output } of sorted) {
          expect(input.every((value) => made.has(value))).toBe(true);
          for (const value of output) made.add(value);
        }
      }),
      { numRuns: 50 },
    );
  });
});

describe('sortGraph', () => {
  it('sorts bodies too, and shares what is in order', () => {
    const ordered = graphOf([node(['x'], 'a'), withBody(graphOf([node(['a'], 'b')], 'b'), 'y')], 'y');
    expect(sortGraph(ordered)).toBe(ordered);
    const body = graphOf([node(['i'], 'b'), node(['x'], 'i')], 'b');
    const sorted = sortGraph(graphOf([withBody(body, 'y'), node(['x'], 'z')], 'y'));
    expect(sorted.node[0]?.attribute[0]?.g?.node.map(({ output }) => output[0])).toEqual(['i', 'b']);
  });
});
