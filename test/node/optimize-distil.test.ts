/** Students that learn from real models, on the real libraries. */
import * as tf from '@tensorflow/tfjs';
import { afterEach, beforeAll, beforeEach, describe, expect, expectTypeOf, it } from 'vitest';
import type { TensorMap } from '../../src/core/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import type { Model } from '../../src/engine/model.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';
import { encodeModel } from '../../src/onnx/model.ts';
import { compareOutputs } from '../../src/optimize/compare.ts';
import { quantizeDynamic } from '../../src/optimize/dynamic.ts';
import {
  cnn,
  distil,
  mlp,
  type DistilOptions,
  type DistilProgress,
  type Teacher,
} from '../../src/optimize/distil/index.ts';
import type { RuntimeSession } from '../../src/optimize/runtime.ts';
import { createRandom } from '../../src/stats/random.ts';

let tensors = 0;

beforeAll(async () => {
  tf.enableProdMode();
  await tf.setBackend('cpu');
});

beforeEach(() => {
  tensors = tf.memory().numTensors;
});

afterEach(() => {
  expect(tf.memory().numTensors).toBe(tensors);
});

/** Feeds of four rows each, numbers in [-1, 1). */
function* samplesOf(count: number, seed = 5): Generator<TensorMap> {
  const random = createRandom(seed);
  for (let at = 0; at < count; at += 1) {
    yield {
      x: new Tensor(
        'float32',
        [4, 3],
        Float32Array.from({ length: 12 }, () => 2 * random() - 1),
      ),
    };
  }
}

/** Answers each row by itself. */
const teacherOf = (
  answer: (row: readonly number[]) => readonly number[],
  more: Partial<Teacher> = {},
): Teacher & { readonly asked: number[] } => {
  const asked: number[] = [];
  return {
    asked,
    run: async ({ x }) => {
      const rows = x?.toArray() as number[][];
      asked.push(rows.length);
      const answers = rows.map(answer);
      return {
        y: new Tensor('float32', [rows.length, answers[0]?.length ?? 0], Float32Array.from(answers.flat())),
      };
    },
    ...more,
  };
};
const curved = ([a = 0, b = 0, c = 0]: readonly number[]): number[] => [a * b + c, Math.sin(2 * a) - c];
const sorted = (row: readonly number[]): number[] => row.map((value) => 6 * value);

const base = (more: Partial<DistilOptions> = {}): DistilOptions => ({
  tf,
  teacher: teacherOf(sorted),
  data: [...samplesOf(40)],
  student: mlp({ hidden: [8] }),
  task: 'logits',
  epochs: 3,
  ...more,
});

describe('distillation', () => {
  it('makes a student of numbers that its teacher explains, and gives it the weights of the best epoch', async () => {
    const { curve, bestEpoch, agreement, task, rows } = await distil(
      base({
        teacher: teacherOf(curved),
        student: mlp({ hidden: [24], activation: 'tanh' }),
        task: 'regression',
        data: samplesOf(150),
        epochs: 25,
        learningRate: 0.02,
      }),
    );
    expect(task).toBe('regression');
    expect(rows).toEqual({ training: 540, validation: 60 });
    expect(agreement).toBeGreaterThan(0.97);
    const best = curve.reduce((least, one) => (one.validationLoss < least.validationLoss ? one : least));
    expect([bestEpoch, agreement]).toEqual([best.epoch, best.agreement]);
  });

  it('gives equal bytes for equal seeds, and others for others', async () => {
    const [one, same, other] = [await distil(base()), await distil(base()), await distil(base({ seed: 2 }))];
    expect(same.toOnnx()).toEqual(one.toOnnx());
    expect(other.toOnnx()).not.toEqual(one.toOnnx());
  });

  it('asks the teacher once about each row, and each epoch anew where memory is short', async () => {
    const rich = teacherOf(sorted);
    await distil(base({ teacher: rich }));
    expect(rich.asked.reduce((sum, count) => sum + count)).toBe(160);
    const poor = teacherOf(sorted);
    const { toOnnx } = await distil(base({ teacher: poor, cacheBytes: 160 * 3 * 4 - 1 }));
    expect(poor.asked.reduce((sum, count) => sum + count)).toBeGreaterThan(3 * 160);
    expect(toOnnx()).toEqual((await distil(base())).toOnnx());
  });

  it('asks a teacher of a fixed batch in such batches', async () => {
    const teacher = teacherOf(sorted, { inputs: [{ shape: [7, 3] }] });
    const { toOnnx } = await distil(base({ teacher }));
    expect(new Set(teacher.asked)).toEqual(new Set([7]));
    expect(toOnnx()).toEqual((await distil(base())).toOnnx());
  });

  it('learns from probabilities, and mixes in labels', async () => {
    const softmax = (row: readonly number[]): number[] => {
      const parts = sorted(row).map(Math.exp);
      const sum = parts.reduce((a, b) => a + b);
      return parts.map((part) => part / sum);
    };
    const options = base({ teacher: teacherOf(softmax), epochs: 12, learningRate: 0.02 });
    const { task: _, ...guessed } = options;
    const soft = await distil(guessed);
    expect(soft.task).toBe('probabilities');
    expect(soft.agreement).toBeGreaterThan(0.85);
    expect(soft.model.graph.node.at(-1)?.opType).toBe('Softmax');
    // Only the labels are learnt: all rows are of the last class.
    const hard = await distil({ ...guessed, labels: new Int32Array(160).fill(2), alpha: 1 });
    expect(hard.agreement).toBeLessThan(0.6);
  });

  it('ends when validation gets no better', async () => {
    const noise = createRandom(3);
    const { curve, bestEpoch } = await distil(
      base({
        teacher: teacherOf(() => [noise(), noise()]),
        task: 'regression',
        epochs: 60,
        patience: 2,
        learningRate: 0.05,
      }),
    );
    expect(curve.length).toBe(bestEpoch + 2);
    expect(curve.length).toBeLessThan(60);
  });

  it('tells how far it is, and stops for a signal with its reason', async () => {
    const seen: DistilProgress[] = [];
    await distil(base({ onProgress: (progress) => seen.push(progress) }));
    expect(seen.filter(({ phase }) => phase === 'teacher').at(-1)).toEqual({
      phase: 'teacher',
      done: 160,
      total: 160,
    });
    expect(seen.flatMap((one) => (one.phase === 'epoch' ? [one.epoch] : []))).toEqual([1, 2, 3]);
    const controller = new AbortController();
    const reason = new Error('enough');
    const run = distil(
      base({
        signal: controller.signal,
        onProgress: ({ phase }) => phase === 'epoch' && controller.abort(reason),
      }),
    );
    await expect(run).rejects.toBe(reason);
  });

  it('trains a network of the caller in place, normalization and all, under the names of the teacher', async () => {
    const student = tf.sequential({
      layers: [
        tf.layers.dense({
          units: 8,
          inputShape: [3],
          kernelInitializer: tf.initializers.glorotNormal({ seed: 4 }),
        }),
        tf.layers.batchNormalization(),
        tf.layers.reLU(),
        tf.layers.dense({ units: 3, kernelInitializer: tf.initializers.glorotNormal({ seed: 5 }) }),
      ],
    });
    const { model, agreement, weights } = await distil(base({ student, epochs: 20, learningRate: 0.02 }));
    expect(agreement).toBeGreaterThan(0.8);
    expect([model.graph.input[0]?.name, model.graph.output[0]?.name]).toEqual(['x', 'y']);
    expect(weights.map(({ tensor }) => tensor.data)).toEqual(
      student.getWeights().map((weight) => weight.dataSync()),
    );
    student.dispose();
  });

  it('takes a model of Inlay or an open session as a teacher', () => {
    expectTypeOf<Model>().toExtend<Teacher>();
    expectTypeOf<RuntimeSession>().toExtend<Teacher>();
  });
});

describe('distillation of what does not fit', () => {
  const wide = (): tf.LayersModel =>
    tf.sequential({ layers: [tf.layers.dense({ units: 5, inputShape: [3] })] });

  it.each([
    ['an option out of range', { temperature: 0 }, RangeError],
    ['labels for some rows only', { labels: [1, 2] }, /2 labels for 160 rows/],
    ['labels of no class', { labels: new Int32Array(160).fill(3) }, /row 0 .* 0 to 2/],
    ['too few rows', { data: [{ x: new Tensor('float32', [1, 3], new Float32Array(3)) }] }, /1 rows/],
    ['no rows', { data: [] }, /0 rows/],
    ['an unknown output', { outputs: ['z'] }, /no output "z"/],
    ['answers that are no numbers', { teacher: teacherOf(() => [Number.NaN]) }, /"y" holds NaN/],
    [
      'rows of different shapes',
      { data: [...samplesOf(1), { x: new Tensor('float32', [2], new Float32Array(2)) }] },
      /sample 1/,
    ],
    ['a network of convolutions for rows', { student: cnn({ filters: [4] }) }, /x \[3\].*mlp/],
  ] as const)('is refused: %s', async (_, more, message) => {
    await expect(distil(base(more as Partial<DistilOptions>))).rejects.toThrow(message);
  });

  it('is refused before training: a student of another shape, or without an ONNX form', async () => {
    const student = wide();
    await expect(distil(base({ student }))).rejects.toThrow(/output for "y".*\[5\].*\[3\]/);
    student.dispose();
    const recurrent = tf.sequential({
      layers: [
        tf.layers.reshape({ targetShape: [3, 1], inputShape: [3] }),
        tf.layers.simpleRNN({ units: 3, name: 'memory' }),
      ],
    });
    const seen: string[] = [];
    await expect(
      distil(base({ student: recurrent, onProgress: ({ phase }) => seen.push(phase) })),
    ).rejects.toMatchObject({
      code: 'ERR_INLAY_MODEL_UNSUPPORTED',
      message: expect.stringMatching(/"memory"/),
    });
    expect(seen).not.toContain('epoch');
    recurrent.dispose();
  });
});

describe('a student of a model that was trained', () => {
  /** Which of three curved regions of eight numbers a row is in. */
  const region = (row: readonly number[]): number => {
    const [a = 0, b = 0, c = 0, d = 0, e = 0] = row;
    const score = Math.sin(2 * a) + b * c + 0.5 * d - e * e;
    return score > 0.25 ? 2 : score > -0.35 ? 1 : 0;
  };
  const rowsOf = (count: number, seed: number): Tensor<'float32'> => {
    const random = createRandom(seed);
    return new Tensor(
      'float32',
      [count, 8],
      Float32Array.from({ length: 8 * count }, () => 3 * random() - 1.5),
    );
  };

  it('is a fraction of its size, answers as it does, and takes its place', async () => {
    const rule: Teacher = {
      run: async ({ signs }) => {
        const rows = signs?.toArray() as number[][];
        const classes = rows.flatMap((row) => [0, 1, 2].map((one) => (region(row) === one ? 5 : -5)));
        return { class: new Tensor('float32', [rows.length, 3], Float32Array.from(classes)) };
      },
    };
    const data = [{ signs: rowsOf(1800, 11) }];
    const shared = { tf, data, task: 'logits', batchSize: 64, learningRate: 0.01 } as const;
    const large = await distil({ ...shared, teacher: rule, student: mlp({ hidden: [80, 48] }), epochs: 4 });
    const runtime = createNodeRuntime();
    const teacher = await runtime.open(large.toOnnx());
    const small = await distil({ ...shared, teacher, student: mlp({ hidden: [24] }), epochs: 15 });
    const student = await runtime.open(small.toOnnx());
    expect(small.agreement).toBeGreaterThan(0.9);
    expect(small.toOnnx().length).toBeLessThan(0.12 * large.toOnnx().length);
    expect([student.inputs, student.outputs]).toEqual([teacher.inputs, teacher.outputs]);

    const fresh = { signs: rowsOf(1000, 12) };
    const { agreement, findings } = compareOutputs([await teacher.run(fresh)], [await student.run(fresh)]);
    expect(findings).toEqual([]);
    expect(agreement).toBeGreaterThan(0.9);

    // It is optimised like any other model.
    const { model } = quantizeDynamic(small.model, { kind: 'dynamic' });
    const quantized = await runtime.open(encodeModel(model));
    const lossy = compareOutputs([await student.run(fresh)], [await quantized.run(fresh)]);
    expect(lossy.sqnrDb).toBeGreaterThan(25);
    await Promise.all([teacher.release(), student.release(), quantized.release()]);
    await runtime.close();
  });
});

it('makes convolutional students for images in either order', async () => {
  const random = createRandom(2);
  const image = (shape: number[]): TensorMap => ({
    image: new Tensor('float32', [40, ...shape], Float32Array.from({ length: 40 * 108 }, random)),
  });
  const teacher: Teacher = {
    run: async ({ image: { shape } = { shape: [0] } }) => ({
      y: new Tensor('float32', [shape[0] ?? 0, 2], new Float32Array(2 * (shape[0] ?? 0))),
    }),
  };
  for (const shape of [
    [3, 6, 6],
    [6, 6, 3],
  ]) {
    const { model } = await distil({
      ...{ tf, teacher, data: [image(shape)], epochs: 1 },
      student: cnn({ filters: [4, 4], isSeparable: shape[0] === 3, hidden: [5] }),
    });
    const transposes = model.graph.node.filter(({ opType }) => opType === 'Transpose');
    expect(transposes).toHaveLength(shape[0] === 3 ? 0 : 1);
  }
});
