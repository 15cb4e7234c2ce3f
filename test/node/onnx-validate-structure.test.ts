import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph } from '../../src/onnx/build.ts';
import { parseStructure, type ByteSource } from '../../src/onnx/lazy.ts';
import type { ModelProto, TensorProto } from '../../src/onnx/messages.ts';
import { encodeModel, parseModel } from '../../src/onnx/model.ts';
import { validateModel, type Problem } from '../../src/onnx/validate.ts';
import { validateStructure } from '../../src/onnx/validate-structure.ts';
import { sourceResolver } from '../../src/onnx/external.ts';

const location = 'model.onnx';

/** Three constants of the sizes given, one of them inside of a node. */
function model(sizes: readonly number[]): ModelProto {
  const graph = createGraph({ name: 'g', opset: 17 });
  graph.input('x', 'float32', [1]);
  const names = sizes.map((size, i) =>
    graph.initializer(`w${i}`, new Tensor('float32', [size], new Float32Array(size).fill(i))),
  );
  const value = new Tensor('float32', [4], new Float32Array(4));
  graph.node('Sum', ['x', ...names, graph.node('Constant', [], { value })], {}, { outputs: 'y' });
  graph.output('y', 'float32', [1]);
  return graph.toModel();
}

/** The longest read, and everything that is wrong. */
async function judge(
  bytes: Uint8Array,
): Promise<{ readonly problems: readonly Problem[]; readonly longest: number }> {
  let longest = 0;
  const source: ByteSource = {
    sizeBytes: bytes.length,
    read: async (offset, length) => {
      longest = Math.max(longest, length);
      return bytes.slice(offset, offset + length);
    },
  };
  const structure = await parseStructure(source, { location, leaveFromBytes: 1 });
  const files = new Map([[location, bytes.length]]);
  const problems = await validateStructure(structure, { location, files, resolve: sourceResolver(source) });
  return { problems, longest };
}

const broken = (constant: TensorProto): fc.Arbitrary<TensorProto> =>
  fc.oneof(
    fc.constant(constant),
    fc.constant({ ...constant, dims: [-1] }),
    fc.constant({ ...constant, dataType: 99 }),
    fc.constant({ ...constant, dataType: 8 }),
    fc.constant({ ...constant, rawData: constant.rawData?.slice(1) ?? new Uint8Array(0) }),
    fc.constant({ ...constant, dims: [1 + (constant.dims[0] ?? 0)] }),
    fc.constant({ ...constant, rawData: new Uint8Array(constant.rawData?.length ?? 0).fill(255) }),
  );

describe('validateStructure', () => {
  it('finds what is found in a model that lies in memory whole, at the same bytes', async () => {
    const { graph, ...rest } = model([1, 3, 5000]);
    const constants = fc.tuple(...graph.initializer.map(broken));
    await fc.assert(
      fc.asyncProperty(constants, async (initializer) => {
        const bytes = encodeModel({ ...rest, graph: { ...graph, initializer } });
        const whole = validateModel(parseModel(bytes), { source: bytes });
        expect((await judge(bytes)).problems).toEqual(whole);
      }),
      { numRuns: 40, seed: 7 },
    );
  });

  it('has one constant in memory at a time', async () => {
    const size = 200_000;
    const { problems, longest } = await judge(encodeModel(model([size, size, size, size])));
    expect([problems, longest]).toEqual([[], 4 * size]);
  });
});
