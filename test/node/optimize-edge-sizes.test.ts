import { describe, expect, it } from 'vitest';
import type { GraphProto, ModelProto, NodeProto } from '../../src/onnx/messages.ts';
import { encodeModel, parseModel } from '../../src/onnx/model.ts';
import { validateModel } from '../../src/onnx/validate.ts';
import { all, isThorough, float32, typesOf, product, applyBlindly } from './optimize-edge-fixture.ts';

describe.each(Object.entries(all))('%s', (_, technique) => {
  it('keeps fields that nobody here knows', () => {
    const float = product();
    const unknown = [Uint8Array.of(0x98, 0x3f, 7)];
    const marked = {
      ...float,
      unknown,
      graph: { ...float.graph, unknown, input: float.graph.input.map((one) => ({ ...one, unknown })) },
    };
    const small = parseModel(encodeModel(applyBlindly(marked, technique).model));
    expect([small.unknown, small.graph.unknown, small.graph.input[0]?.unknown]).toEqual([
      unknown,
      unknown,
      unknown,
    ]);
  });

  // Work is linear; one of the techniques is enough to see that nothing overflows.
  it.each([technique.kind === 'nbits' || isThorough ? 100_000 : 3000])('takes %i nodes', (count) => {
    const node = Array.from({ length: count }, (_one, i): NodeProto => {
      const [from, to] = [i === 0 ? 'x' : `v${i}`, i === count - 1 ? 'y' : `v${i + 1}`];
      return i % 10 === 0
        ? { input: [from, 'w'], output: [to], opType: 'MatMul', attribute: [] }
        : { input: [from], output: [to], opType: 'Tanh', attribute: [] };
    });
    const { graph, ...rest } = product(float32([32, 32]));
    const long = { ...rest, graph: { ...graph, node } };
    const { model: small } = applyBlindly(long, technique, { types: typesOf('x', 'y') });
    expect(small.graph.node.length).toBeGreaterThanOrEqual(count);
    expect(small.graph.initializer.length).toBeLessThan(count / 2);
  });

  it.each([technique.kind === 'float16' || isThorough ? 10_000 : 1000])(
    'takes a Concat of %i values',
    (count) => {
      const values = Array.from({ length: count }, (_one, i) => `v${i}`);
      const { graph, ...rest } = product(float32([32, 32]));
      const node: readonly NodeProto[] = [
        ...values.map((value) => ({ input: ['x', 'w'], output: [value], opType: 'MatMul', attribute: [] })),
        { input: values, output: ['y'], opType: 'Concat', attribute: [] },
      ];
      const { model: small } = applyBlindly({ ...rest, graph: { ...graph, node } }, technique);
      expect(validateModel(small).filter(({ severity }) => severity === 'error')).toEqual([]);
    },
  );

  it('takes bodies in bodies as deep as files have them, and refuses to write deeper ones', () => {
    const nest = (depth: number): ModelProto => {
      const float = product();
      let body: GraphProto = { ...float.graph, input: [], initializer: [], output: [{ name: 'y' }] };
      for (let i = 0; i < depth; i += 1) {
        const node: NodeProto = {
          input: ['flag'],
          output: [`y${i}`],
          opType: 'If',
          attribute: ['then_branch', 'else_branch'].slice(0, 1).map((name) => ({ name, type: 5, g: body })),
        };
        body = { node: [node], initializer: [], input: [], output: [{ name: `y${i}` }] };
      }
      return { ...float, graph: { ...body, input: float.graph.input, initializer: float.graph.initializer } };
    };
    expect(
      parseModel(encodeModel(applyBlindly(nest(25), technique).model)).graph.node.length,
    ).toBeGreaterThan(0);
    expect(() => encodeModel(applyBlindly(nest(210), technique).model)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^ERR_INLAY_MODEL_/) as string }),
    );
  });
});
