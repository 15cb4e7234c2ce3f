import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isInlayError } from '../../src/core/errors.ts';
import { Tensor, tensorFrom } from '../../src/core/tensor.ts';
import { createGraph, type ModelBuilder } from '../../src/onnx/build.ts';
import { costsOf } from '../../src/onnx/costs.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { encodeModel, parseModel } from '../../src/onnx/model.ts';
import { encodedSizeBytes } from '../../src/onnx/pieces.ts';
import { raiseOpset } from '../../src/onnx/opset.ts';
import { applyTechnique } from '../../src/optimize/apply.ts';
import { auditGraph } from '../../src/optimize/audit.ts';
import { workloadOf } from '../../src/optimize/candidates.ts';
import { activationsOf } from '../../src/optimize/qdq-rules.ts';
import type { Technique } from '../../src/optimize/technique.ts';
import { gauss } from './optimize-golden.ts';

const isThorough = process.env['INLAY_TEST_THOROUGH'] === '1';
const MUTATIONS = isThorough ? 200_000 : 6000;
const LIMIT_MS = isThorough ? 900_000 : 60_000;
const SEED = isThorough ? Math.floor(Math.random() * 2 ** 31) : 1;

const techniques: readonly Technique[] = [
  { kind: 'dynamic', convolutions: true },
  { kind: 'dynamic', mode: 'tensor', weights: 'uint8', perChannel: false },
  { kind: 'static' },
  { kind: 'static', activations: 'int8', perChannel: false },
  { kind: 'nbits', bits: 4, blockSize: 16 },
  { kind: 'nbits', bits: 8, blockSize: 16, isSymmetric: true },
  { kind: 'float16' },
  { kind: 'float16', keepsIo: false },
  { kind: 'prune', sparsity: 0.5 },
];

type Weights = (...shape: readonly number[]) => string;

/** The operators that techniques look into, a few at a time, with weights as small as they may be. */
const graphs: readonly ((graph: ModelBuilder, weights: Weights) => string)[] = [
  (graph, weights) => {
    graph.input('ids', 'int64', ['n']);
    const table = weights(4, 16);
    graph.node('Gather', [table, 'ids'], {}, { outputs: 'rows' });
    const turned = graph.node('Transpose', [table], { perm: [1, 0] });
    return graph.node('Softmax', [graph.node('MatMul', ['rows', turned])], { axis: -1 });
  },
  (graph, weights) => {
    graph.input('x', 'float32', [1, 2, 4, 4]);
    const conv = graph.node('Conv', ['x', weights(2, 2, 3, 3), weights(2)], { pads: [1, 1, 1, 1] });
    const clipped = graph.node('Clip', [conv, graph.constant('low', tensorFrom('float32', 0))]);
    const pads = graph.initializer('pads', tensorFrom('int64', [0, 0, 1, 1, 0, 0, 1, 1]));
    const padded = graph.node('Pad', [clipped, pads]);
    return graph.node('Conv', [
      graph.node('MaxPool', [padded], { kernel_shape: [2, 2] }),
      weights(1, 2, 1, 1),
    ]);
  },
  (graph, weights) => {
    graph.input('x', 'float32', ['n', 4]);
    const gemm = graph.node('Gemm', ['x', weights(3, 4), weights(3)], { transB: 1, alpha: 0.5, beta: 2 });
    const joined = graph.node('Concat', [graph.node('Relu', [gemm]), 'x'], { axis: -1 });
    const deep = graph.node('Reshape', [joined, graph.initializer('shape', tensorFrom('int64', [-1, 1, 7]))]);
    const [first = ''] = graph.node('Split', [deep], { axis: -1 }, { outputs: 2 });
    return graph.node('Add', [graph.node('MatMul', [first, weights(1, 4, 2)]), weights(2)]);
  },
  (graph, weights) => {
    graph.input('x', 'float32', ['n', 4]);
    const flag = graph.initializer('flag', tensorFrom('bool', true));
    const outer = weights(4, 2);
    const [then_branch, else_branch] = ['a', 'b'].map((name) => {
      const body = graph.subgraph(name);
      const inner = body.constant(`${name}_w`, tensorFrom('float32', [[1], [2]]));
      body.output(body.node('MatMul', [body.node('MatMul', ['x', outer]), inner]), 'float32');
      return body;
    });
    return graph.node('If', [flag], { then_branch, else_branch });
  },
  (graph, weights) => {
    graph.input('x', 'float32', ['n', 1, 7]);
    const lstm = ['x', weights(1, 4, 7), weights(1, 4, 1)];
    const [y = ''] = graph.node('LSTM', lstm, { hidden_size: 1 }, { outputs: 2 });
    const half = graph.node('Cast', [graph.node('Resize', [y, '', weights(4)])], { to: 10 });
    return graph.node('Cast', [half], { to: 1 });
  },
];

const samples = graphs.flatMap((build) =>
  [12, 21].map((opset, at) => {
    const graph = createGraph({ name: 'g', opset });
    let seed = at;
    graph.output(
      build(graph, (...shape) => {
        const size = shape.reduce((product, length) => product * length, 1);
        return graph.initializer(`w${(seed += 1)}`, new Tensor('float32', shape, gauss(size, seed)));
      }),
      'float32',
    );
    return encodeModel(graph.toModel());
  }),
);

/** Numbers in [0, 2^32) that are the same at each run. */
function createRandom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Damages a file: other bytes, or bytes of another place, mostly where they change what is said and not the weights. */
function mutate(bytes: Uint8Array, random: (below: number) => number): Uint8Array {
  for (let i = random(3); i >= 0; i -= 1) {
    const at = random(bytes.length);
    if (random(4) === 0) bytes.copyWithin(at, random(bytes.length), random(12));
    else bytes[at] = random(3) === 0 ? random(256) : (bytes[at] ?? 0) ^ (1 << random(8));
  }
  return bytes;
}

/** What the library documents to throw. */
function attempt<Value>(work: () => Value): Value | undefined {
  try {
    return work();
  } catch (error) {
    if (isInlayError(error) && error.code.startsWith('ERR_INLAY_MODEL_')) return undefined;
    throw error;
  }
}

describe('a damaged model that can still be read', () => {
  const { stackTraceLimit } = Error;
  beforeAll(() => {
    // Most of the time would go into stacks that nobody reads.
    Error.stackTraceLimit = 0;
  });
  afterAll(() => {
    Error.stackTraceLimit = stackTraceLimit;
  });

  it(
    'is rewritten by each technique or refused with a typed error, and can be written',
    () => {
      const random = createRandom(SEED);
      const seen = { rewritten: 0, refused: 0, unread: 0 };
      for (let run = 0; run < MUTATIONS; run += 1) {
        const bytes = mutate((samples[run % samples.length] as Uint8Array).slice(), random);
        const model = attempt(() => parseModel(bytes));
        if (model === undefined) {
          seen.unread += 1;
          continue;
        }
        const technique = techniques[random(techniques.length)] as Technique;
        try {
          const small = attempt(() => rewrite(model, technique));
          seen[small === undefined ? 'refused' : 'rewritten'] += 1;
          if (run % 5 === 0) {
            attempt(() => auditGraph(model));
            attempt(() => costsOf(model));
            attempt(() => workloadOf(model));
          }
          if (small !== undefined && encodedSizeBytes(small) > 4 * bytes.length + 20_000)
            throw new Error('grew');
        } catch (error) {
          throw new Error(`Seed ${SEED}, run ${run}, ${JSON.stringify(technique)}: ${String(error)}`, {
            cause: error,
          });
        }
      }
      expect(seen.rewritten).toBeGreaterThan(MUTATIONS / 10);
      expect(seen.refused).toBeGreaterThan(MUTATIONS / 200);
    },
    LIMIT_MS,
  );
});

function rewrite(given: ModelProto, technique: Technique): ModelProto {
  const model = attempt(() => raiseOpset(given)) ?? given;
  const names = technique.kind === 'static' ? activationsOf(model) : [];
  const ranges = new Map(names.map((name) => [name, { min: -1, max: 2 }]));
  return applyTechnique(model, technique, { ranges }).model;
}
