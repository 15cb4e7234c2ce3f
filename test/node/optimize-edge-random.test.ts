import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import type { TensorMap } from '../../src/core/backend.ts';
import { toFloat16Array } from '../../src/core/float.ts';
import type { Signature, TensorSpec } from '../../src/core/signature.ts';
import { Tensor } from '../../src/core/tensor.ts';
import type { ModelProto } from '../../src/onnx/messages.ts';
import { encodeModel, parseModel } from '../../src/onnx/model.ts';
import { labelOf } from '../../src/onnx/scope.ts';
import { signatureOf } from '../../src/onnx/signature.ts';
import { validateModel, type Problem } from '../../src/onnx/validate.ts';
import { applyTechnique } from '../../src/optimize/apply.ts';
import { calibrate } from '../../src/optimize/calibrate.ts';
import { compareOutputs } from '../../src/optimize/compare.ts';
import type { Technique } from '../../src/optimize/technique.ts';
import { inferTypes } from '../../src/optimize/types.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';
import { build, feedsOf, recipes } from './optimize-edge-models.ts';
import { gauss } from './optimize-golden.ts';

/** Each technique with the accuracy below which it must have broken something, dB. */
const techniques: readonly (readonly [string, Technique, number])[] = [
  ['dynamic by row', { kind: 'dynamic', convolutions: true }, 15],
  ['dynamic by tensor', { kind: 'dynamic', mode: 'tensor', perChannel: false, convolutions: true }, 15],
  ['dynamic uint8', { kind: 'dynamic', weights: 'uint8', mode: 'tensor', reduceRange: true }, 12],
  ['static', { kind: 'static' }, 15],
  ['static int8', { kind: 'static', activations: 'int8', perChannel: false }, 12],
  ['static uint8', { kind: 'static', weights: 'uint8', depthwise: false, reduceRange: true }, 12],
  ['blocks of 8 bits', { kind: 'nbits', bits: 8, blockSize: 16 }, 20],
  ['blocks of 4 bits', { kind: 'nbits', bits: 4, blockSize: 16 }, -20],
  ['float16', { kind: 'float16' }, 40],
  ['float16 at the edges, too', { kind: 'float16', keepsIo: false }, 40],
  ['pruned a little', { kind: 'prune', sparsity: 0.05 }, 15],
];

const isThorough = process.env['INLAY_TEST_THOROUGH'] === '1';
const RUNS = isThorough ? 2000 : 12;
const LIMIT_MS = isThorough ? 900_000 : 60_000;
const runtime = createNodeRuntime();
afterAll(() => runtime.close());

async function run(model: ModelProto, ...runs: readonly TensorMap[]): Promise<readonly TensorMap[]> {
  // What apps get is a file.
  const session = await runtime.open(encodeModel(parseModel(encodeModel(model))));
  try {
    const outputs: TensorMap[] = [];
    for (const feeds of runs) outputs.push(await session.run(feeds));
    return outputs;
  } finally {
    await session.release();
  }
}

/** Noise on inputs that a model of good condition turns into as little noise of its answers, dB. */
const NOISE_DB = 40;

function withNoise(tensors: TensorMap): TensorMap {
  return mapFloats(tensors, (tensor) => {
    const { shape, data } = tensor as Tensor<'float32'>;
    const norm = Math.hypot(...data) / Math.sqrt(data.length);
    // The sum of four uniform numbers has a variance of 1/3.
    const noise = gauss(data.length, 5).map((value) => value * Math.sqrt(3) * norm * 10 ** (-NOISE_DB / 20));
    return new Tensor(
      'float32',
      shape,
      data.map((value, i) => value + (noise[i] as number)),
    );
  });
}

function toHalf(tensors: TensorMap): TensorMap {
  return mapFloats(
    tensors,
    ({ shape, data }) => new Tensor('float16', shape, toFloat16Array(data as Float32Array)),
  );
}

function mapFloats(tensors: TensorMap, change: (tensor: Tensor) => Tensor): TensorMap {
  return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, change(tensor)]));
}

const errorsOf = (model: ModelProto): readonly Problem[] =>
  validateModel(model).filter(({ severity }) => severity === 'error');

function toHalfSignature(model: ModelProto): Signature {
  const { inputs, outputs } = signatureOf(model);
  const halve = (spec: TensorSpec): TensorSpec => ({ ...spec, dtype: 'float16' });
  return { inputs: inputs.map(halve), outputs: outputs.map(halve) };
}

const isQuantizing = ({ kind }: Technique): boolean => /^(dynamic|static|nbits)$/.test(kind);

/** Nodes that a technique is for: it did something to each, or says why not. */
function productsOf({ graph }: ModelProto, { kind }: Technique): readonly string[] {
  const products = kind === 'nbits' ? /^(MatMul|Gemm)$/ : /^(MatMul|Gemm|Conv)$/;
  return graph.node.filter(({ opType = '' }) => products.test(opType)).map(labelOf);
}

describe('any model', () => {
  it(
    'stays one that onnxruntime opens and that answers nearly the same, with the same inputs and outputs, by every technique',
    async () => {
      await fc.assert(
        fc.asyncProperty(recipes, async (recipe) => {
          const model = build(recipe);
          const before = encodeModel(model);
          const feeds = feedsOf(recipe);
          expect(errorsOf(model)).toEqual([]);
          const [expected = {}, disturbed = {}] = await run(model, feeds, withNoise(feeds));
          // What passes through one weak unit only multiplies every error; the technique is not to blame.
          const lossDb = Math.max(0, NOISE_DB - 5 - compareOutputs([expected], [disturbed]).sqnrDb);
          const types = await inferTypes(model, runtime);
          const { ranges } = await calibrate(model, runtime, [feeds], { types, method: 'minmax' });
          for (const [name, technique, floorDb] of techniques) {
            const isHalf = technique.kind === 'float16' && technique.keepsIo === false;
            const { model: small, changed, kept } = applyTechnique(model, technique, { types, ranges });
            expect(errorsOf(small), name).toEqual([]);
            expect(signatureOf(small), name).toEqual(isHalf ? toHalfSignature(model) : signatureOf(model));
            const told = new Set([...changed, ...kept].map(({ node }) => node));
            if (isQuantizing(technique)) {
              expect(
                productsOf(model, technique).filter((label) => !told.has(label)),
                name,
              ).toEqual([]);
            }
            const [actual = {}] = await run(small, isHalf ? toHalf(feeds) : feeds);
            expect(Object.keys(actual), name).toEqual(Object.keys(expected));
            const { sqnrDb, outputs, findings } = compareOutputs([expected], [actual]);
            expect(isHalf ? [] : findings, name).toEqual([]);
            if (sqnrDb < floorDb - lossDb)
              expect.fail(`${name}: ${JSON.stringify(outputs)} is below ${floorDb} dB, less ${lossDb} dB.`);
          }
          expect(Buffer.compare(encodeModel(model), before)).toBe(0);
        }),
        { numRuns: RUNS },
      );
    },
    LIMIT_MS,
  );
});
