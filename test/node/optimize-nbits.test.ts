import { describe, expect, it } from 'vitest';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph } from '../../src/onnx/build.ts';
import { encodeModel } from '../../src/onnx/model.ts';
import { quantizeBlocks } from '../../src/optimize/nbits.ts';
import type { BlockQuantized } from '../../src/optimize/technique.ts';
import {
  constantsOf,
  evaluationInputs,
  floats,
  gauss,
  goldenModel,
  goldenSqnr,
  hasGolden,
  opsOf,
  runOnce,
  sqnrDb,
} from './optimize-golden.ts';

const reference: Readonly<Record<string, Omit<BlockQuantized, 'kind'>>> = {
  'mlp.q4.block32.sym': { bits: 4, isSymmetric: true },
  'mlp.q4.block32.asym': { bits: 4 },
  'mlp.q8.block128.asym': { bits: 8 },
};

describe.skipIf(!hasGolden)('blocks beside the Python reference', () => {
  it.each(Object.entries(reference))('give the constants and the answers of %s', async (name, how) => {
    const float = goldenModel('mlp');
    const { model } = quantizeBlocks(float, { kind: 'nbits', ...how });
    const ours = constantsOf(model);
    expect(constantsOf(goldenModel(name)).filter((text) => !ours.includes(text))).toEqual([]);
    expect(opsOf(model)).toEqual(opsOf(goldenModel(name)));
    const feeds = evaluationInputs('mlp');
    const sqnr = sqnrDb(await runOnce(float, feeds), await runOnce(model, feeds));
    expect(Math.abs(sqnr - goldenSqnr(name))).toBeLessThan(0.2);
    const ratio = encodeModel(model).length / encodeModel(float).length;
    expect(ratio).toBeLessThan(how.bits === 4 ? 0.17 : 0.27);
  });
});

describe('blocks in onnxruntime', () => {
  // 70 inputs leave the last block of each size partly empty.
  it.each([
    [4, 16, true, 13],
    [4, 16, false, 13],
    [4, 64, false, 10],
    [8, 32, true, 36],
    [8, 32, false, 36],
  ] as const)(
    'of %s bits and %s elements (symmetric: %s) are read as they were meant',
    async (bits, blockSize, isSymmetric, db) => {
      const graph = createGraph({ name: 'odd', opset: 17 });
      graph.input('x', 'float32', ['n', 70]);
      graph.initializer('w', new Tensor('float32', [70, 21], gauss(70 * 21)));
      graph.node('MatMul', ['x', 'w'], {}, { outputs: 'y' });
      graph.output('y', 'float32');
      const float = graph.toModel();
      const { model, changed } = quantizeBlocks(float, { kind: 'nbits', bits, blockSize, isSymmetric });
      expect(changed).toHaveLength(1);
      const feeds = { x: floats([6, 70]) };
      expect(sqnrDb(await runOnce(float, feeds), await runOnce(model, feeds))).toBeGreaterThan(db);
    },
  );
});
