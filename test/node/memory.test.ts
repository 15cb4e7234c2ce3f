import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Tensor } from '../../src/core/tensor.ts';
import { createInlay } from '../../src/node.ts';
import { createGraph, encodeModel } from '../../src/onnx/index.ts';
import { createMemoryStore } from '../../src/stores/memory.ts';

const [ROWS, COLUMNS] = [256, 512];

/** `y = x · w` with half a MiB of weights, all of them `value`. */
function dense(value: number): Uint8Array {
  const graph = createGraph({ name: 'dense', opset: 17 });
  graph.input('x', 'float32', ['batch', ROWS]);
  graph.initializer(
    'w',
    new Tensor('float32', [ROWS, COLUMNS], new Float32Array(ROWS * COLUMNS).fill(value)),
  );
  graph.node('MatMul', ['x', 'w'], {}, { outputs: 'y' });
  graph.output('y', 'float32', ['batch', COLUMNS]);
  return encodeModel(graph.toModel());
}

describe('five models with memory for two', () => {
  const MODELS = [1, 2, 3, 4, 5];
  let folder: string;
  let sizeBytes = 0;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'inlay-memory-'));
    for (const value of MODELS) {
      const bytes = dense(value);
      sizeBytes = bytes.length;
      await writeFile(join(folder, `${value}.onnx`), bytes);
    }
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it('answer all calls rightly, stay within the budget, and do not grow', async () => {
    const memoryBudgetBytes = 2 * sizeBytes;
    const inlay = createInlay({
      placement: 'inline',
      store: createMemoryStore(),
      memoryBudgetBytes,
      device: 'cpu',
    });
    const models = await Promise.all(MODELS.map((value) => inlay.load(join(folder, `${value}.onnx`))));
    const x = new Float32Array(ROWS).fill(1);
    const cycle = async (): Promise<void> => {
      for (const [at, model] of models.entries()) {
        const { y } = await model.run({ x });
        expect(y?.data[0]).toBe(ROWS * (MODELS[at] as number));
        expect(inlay.info().memory.usedBytes).toBeLessThanOrEqual(memoryBudgetBytes);
      }
    };
    // What the allocator keeps for later is taken in the first cycles.
    for (let i = 0; i < 20; i += 1) await cycle();
    const before = process.memoryUsage.rss();
    for (let i = 0; i < 200; i += 1) await cycle();
    const grownBytes = process.memoryUsage.rss() - before;
    // Each cycle loads five models of half a MiB: one that kept its weights would add 100 MiB, all of them 500 MiB.
    expect(grownBytes / 2 ** 20).toBeLessThan(64);
    expect(inlay.info().models.filter(({ isLoaded }) => isLoaded)).toHaveLength(2);
    await inlay.close();
    expect(inlay.info().memory.usedBytes).toBe(0);
  });

  it('answer calls that come all at once', async () => {
    const inlay = createInlay({
      placement: 'inline',
      store: createMemoryStore(),
      memoryBudgetBytes: 2 * sizeBytes,
      device: 'cpu',
    });
    const models = await Promise.all(MODELS.map((value) => inlay.load(join(folder, `${value}.onnx`))));
    for (let wave = 0; wave < 5; wave += 1) {
      const answers = await Promise.all(
        Array.from({ length: 100 }, async (_, i) => {
          const x = new Float32Array(ROWS).fill(i);
          const { y } = await (models[i % models.length] as (typeof models)[0]).run({ x });
          return y?.data[COLUMNS - 1];
        }),
      );
      expect(answers).toEqual(answers.map((_, i) => ROWS * i * (MODELS[i % MODELS.length] as number)));
      expect(inlay.info().memory.usedBytes).toBeLessThanOrEqual(2 * sizeBytes);
    }
    await inlay.close();
  });
});
