/** Distillation: a smaller network learns to answer as a model does. */

import { assertNotAborted } from '../../core/abort.ts';
import type { TensorMap } from '../../core/backend.ts';
import { InputError } from '../../core/errors.ts';
import { sizeOf, Tensor } from '../../core/tensor.ts';
import type { ModelProto } from '../../onnx/messages.ts';
import { encodeModel } from '../../onnx/model.ts';
import { createRandom } from '../../stats/random.ts';
import { namesOf, readWeights, type TfLayersModel, type TfLibrary } from './library.ts';
import { guessTask, type Task } from './losses.ts';
import { collectRows, shuffle, type Rows, type RowSpec } from './rows.ts';
import type { StudentRecipe } from './students.ts';
import { openTargets, type Targets, type Teacher } from './teacher.ts';
import { toOnnxModel, type ToOnnxOptions } from './to-onnx.ts';
import { train, type EpochReport } from './train.ts';

/** What goes on. */
export type DistilProgress =
  /** The teacher has answered so many rows; absent where its answers are too large to keep. */
  | { readonly phase: 'teacher'; readonly done: number; readonly total: number }
  | ({ readonly phase: 'epoch'; readonly epochs: number } & EpochReport);

/** What {@link distil} takes. */
export interface DistilOptions {
  /**
   * `import * as tf from '@tensorflow/tfjs'`, or `@tensorflow/tfjs-node`; trains on the backend that is chosen there, and
   * pauses between steps with `tf.nextFrame()`: a page that is hidden goes on when it is seen again.
   */
  readonly tf: TfLibrary;
  readonly teacher: Teacher;
  /**
   * Feeds as the teacher takes them, one row or more along the first axis of each; no answers are needed. All are held
   * in memory, not copied.
   */
  readonly data: AsyncIterable<TensorMap> | Iterable<TensorMap>;
  /** True class of each row, in the order of the data, for the first output. Only for classes. */
  readonly labels?: ArrayLike<number>;
  /**
   * A network of TensorFlow.js, which is trained in place and stays the caller's, or a recipe such as `mlp` and `cnn`.
   * Its inputs are found by name, else by their order; its outputs are the teacher's in order.
   */
  readonly student: TfLayersModel | StudentRecipe;
  /** Outputs of the teacher that are learnt. Default: all of floats. */
  readonly outputs?: readonly string[];
  /** Default: probabilities if the teacher gives such, else logits where there are labels, else regression. */
  readonly task?: Task;
  /** Most epochs. Default 30. */
  readonly epochs?: number;
  /** Rows of a step. Default 32. */
  readonly batchSize?: number;
  /** Step size of Adam. Default 0.005. */
  readonly learningRate?: number;
  /** Softness of classes, above 0. Default 2. */
  readonly temperature?: number;
  /** Share of the labels in the loss, in [0, 1]. Default 0.1; without labels 0. */
  readonly alpha?: number;
  /** Share of the rows that are held back to judge by, in [0, 1). Default 0.1; 0 judges by the rows of training. */
  readonly validationShare?: number;
  /** Epochs without improvement on the validation rows after which training ends. Default 5. */
  readonly patience?: number;
  /** Integer for the first weights of recipes, the split and the order of rows. Default 1. */
  readonly seed?: number;
  /** Most bytes of the teacher's answers that are kept; beyond, it is asked again in each epoch. Default 256 MiB. */
  readonly cacheBytes?: number;
  readonly onProgress?: (progress: DistilProgress) => void;
  readonly signal?: AbortSignal;
}

/** A student that has learnt. */
export interface Distilled {
  /** Its weights in the order of the network's, copied: float32. */
  readonly weights: readonly { readonly name: string; readonly tensor: Tensor<'float32'> }[];
  /** Number of elements of the weights. */
  readonly parameters: number;
  readonly task: Task;
  readonly curve: readonly EpochReport[];
  /** Epoch of which the weights are. */
  readonly bestEpoch: number;
  /**
   * How near it is to its teacher on the validation rows, the worst output. Classes: share of the rows with the same
   * likeliest class, in [0, 1]. Numbers: coefficient of determination, at most 1.
   */
  readonly agreement: number;
  /** How many rows were trained on, and judged by. */
  readonly rows: { readonly training: number; readonly validation: number };
  /** The student with the names, shapes and input dtypes of the teacher, for `optimize` and `compare`; outputs are float32. */
  readonly model: ModelProto;
  /** The same as a file. */
  toOnnx(): Uint8Array;
}

/**
 * Trains a student on what a teacher answers to the user's data, with or without true classes.
 *
 * Equal options give equal weights on one backend of TensorFlow.js, except in layers that draw random numbers without a
 * seed. No tensor of TensorFlow.js stays behind, also after an abort or error, but those of a network that was passed in.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` before training, for a student that has no ONNX form or a
 * teacher that nothing can be learnt from, `_INVALID` if answers or losses are no numbers; {@link InputError} for samples that do not fit together; `RangeError` for an
 * option out of range or a student of other shapes; `signal.reason`.
 */
export async function distil(options: DistilOptions): Promise<Distilled> {
  const { tf, teacher, labels, signal, onProgress = () => {}, seed = 1 } = options;
  const { epochs = 30, batchSize = 32, patience = 5, learningRate = 0.005, temperature = 2 } = options;
  const { validationShare = 0.1, cacheBytes = 2 ** 28 } = options;
  const alpha = labels === undefined ? 0 : (options.alpha ?? 0.1);
  assertOptions(
    { epochs, batchSize, patience },
    { learningRate, temperature },
    { alpha, validationShare },
    seed,
  );
  assertNotAborted(signal);

  const rows = await collectRows(options.data);
  const random = createRandom(seed);
  const order = Int32Array.from({ length: rows.count }, (_, row) => row);
  shuffle(order, random);
  const held = validationShare === 0 ? 0 : Math.max(1, Math.round(rows.count * validationShare));
  if (rows.count - held < 1) {
    throw new InputError(
      'ERR_INLAY_FEED_SHAPE',
      `The data has ${rows.count} rows, of which ${held} are held back; pass more.`,
    );
  }
  const targets = await openTargets(teacher, rows, {
    outputs: options.outputs,
    batchSize,
    cacheBytes,
    signal,
    onProgress: (done, total) => onProgress({ phase: 'teacher', done, total }),
  });
  const task = options.task ?? (await taskOf(targets, order.subarray(0, 256), labels !== undefined));
  if (labels !== undefined) assertLabels(labels, rows.count, task, targets.specs[0]);

  const needs = { tf, inputs: rows.specs, outputs: targets.specs, task, seed };
  const student = typeof options.student === 'function' ? options.student(needs) : options.student;
  try {
    const inputs = inputsOf(student, rows);
    assertShapes(student, inputs, targets.specs);
    const names: ToOnnxOptions = { inputs, outputs: targets.specs.map(({ name }) => name) };
    // A layer without a form is told now, not after hours of training.
    await toOnnxModel(student, names);
    const { curve, best } = await train({
      ...{ tf, student, rows, targets, labels, epochs, batchSize, learningRate, patience, random, signal },
      ...{ task, temperature, alpha },
      feeds: inputs.map(({ name }) => name),
      trainingRows: order.subarray(held),
      validationRows: order.subarray(0, held),
      onEpoch: (report) => onProgress({ phase: 'epoch', epochs, ...report }),
    });
    const model = await toOnnxModel(student, names);
    const weights = (await readWeights(student)).map(({ shape, data }, at) => ({
      name: student.weights[at]?.name ?? '',
      tensor: new Tensor('float32', shape, data),
    }));
    return {
      weights,
      parameters: weights.reduce((sum, { tensor }) => sum + tensor.size, 0),
      task,
      curve,
      bestEpoch: best.epoch,
      agreement: best.agreement,
      rows: { training: rows.count - held, validation: held },
      model,
      toOnnx: () => encodeModel(model),
    };
  } finally {
    if (student !== options.student) student.dispose();
  }
}

async function taskOf({ specs, at }: Targets, rows: Int32Array, hasLabels: boolean): Promise<Task> {
  const answers = await at(rows);
  const tasks = specs.map(({ shape }, output) =>
    guessTask(answers[output] ?? new Float32Array(0), shape.at(-1) ?? 1, hasLabels),
  );
  return tasks.every((task) => task === tasks[0]) ? (tasks[0] ?? 'regression') : 'regression';
}

/** The input of the data for each input of the student: by name, else by order. */
function inputsOf({ inputs }: TfLayersModel, { specs }: Rows): readonly RowSpec[] {
  const inputNames = namesOf(inputs);
  const byName = inputNames.flatMap((name) => specs.filter((spec) => spec.name === name));
  if (byName.length === inputNames.length) return byName;
  if (specs.length === inputNames.length) return specs;
  throw new RangeError(
    `The student takes ${inputNames.join(', ')}, but the data has ${specs.map(({ name }) => name).join(', ')}.`,
  );
}

function assertShapes(student: TfLayersModel, inputs: readonly RowSpec[], outputs: readonly RowSpec[]): void {
  const assertAll = (what: string, have: TfLayersModel['inputs'], want: readonly RowSpec[]): void => {
    if (have.length !== want.length) {
      throw new RangeError(
        `The student has ${have.length} ${what}s, and the teacher ${want.length} that are learnt.`,
      );
    }
    for (const [at, { name, shape }] of want.entries()) {
      const own = have[at]?.shape ?? [];
      const isFit =
        own.length === shape.length + 1 &&
        shape.every((length, axis) => own[axis + 1] === null || own[axis + 1] === length);
      if (!isFit) {
        throw new RangeError(
          `The student's ${what} for "${name}" has rows of shape [${own.slice(1).join(', ')}], but the teacher's are [${shape.join(', ')}].`,
        );
      }
    }
  };
  assertAll('input', student.inputs, inputs);
  assertAll('output', student.outputs, outputs);
}

function assertLabels(
  labels: ArrayLike<number>,
  count: number,
  task: Task,
  output: RowSpec | undefined,
): void {
  const { shape = [] } = output ?? {};
  const classes = sizeOf(shape);
  if (task === 'regression')
    throw new RangeError('Labels are for classes, but the task is regression; leave them out.');
  if (shape.length !== 1)
    throw new RangeError(`Labels need one class for a row, but rows are [${shape.join(', ')}].`);
  if (labels.length !== count) {
    throw new RangeError(`There are ${labels.length} labels for ${count} rows; each row needs one.`);
  }
  for (let row = 0; row < count; row += 1) {
    const label = labels[row] ?? -1;
    if (!Number.isInteger(label) || label < 0 || label >= classes) {
      throw new RangeError(`The label of row ${row} is no integer from 0 to ${classes - 1}.`);
    }
  }
}

function assertOptions(
  counts: Readonly<Record<string, number>>,
  positives: Readonly<Record<string, number>>,
  shares: Readonly<Record<string, number>>,
  seed: number,
): void {
  for (const [name, value] of Object.entries(counts)) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new RangeError(`The option ${name} is a positive integer, got ${value}.`);
    }
  }
  for (const [name, value] of Object.entries(positives)) {
    if (!(value > 0 && value < Infinity))
      throw new RangeError(`The option ${name} is above 0, got ${value}.`);
  }
  for (const [name, value] of Object.entries(shares)) {
    if (!(value >= 0 && value <= 1)) throw new RangeError(`The option ${name} is in [0, 1], got ${value}.`);
  }
  if (!Number.isSafeInteger(seed)) throw new RangeError(`The seed is an integer, got ${seed}.`);
}
