/** The loop that trains a student on batches. */

import { assertNotAborted } from '../../core/abort.ts';
import { ModelError } from '../../core/errors.ts';
import { sizeOf } from '../../core/tensor.ts';
import {
  applyModel,
  functionsOf,
  readWeights,
  type TfLayersModel,
  type TfLibrary,
  type TfTensor,
  type WeightArray,
} from './library.ts';
import { createAgreement, lossOf, type LossOptions } from './losses.ts';
import { shuffle, toBatches, toFloats, type Rows } from './rows.ts';
import type { Targets } from './teacher.ts';

/** What came of one epoch. */
export interface EpochReport {
  /** From 1. */
  readonly epoch: number;
  /** Mean over the batches, before each step. */
  readonly loss: number;
  /** Over the validation rows, or those of training where there are none. */
  readonly validationLoss: number;
  /** The same rows; see {@link Distilled.agreement}. */
  readonly agreement: number;
}

/** What {@link train} works with. */
export interface Training extends LossOptions {
  readonly tf: TfLibrary;
  readonly student: TfLayersModel;
  /** Name of the input of the data for each input of the student. */
  readonly feeds: readonly string[];
  readonly rows: Rows;
  readonly targets: Targets;
  /** True class of each row. */
  readonly labels?: ArrayLike<number> | undefined;
  readonly trainingRows: Int32Array;
  readonly validationRows: Int32Array;
  readonly epochs: number;
  readonly batchSize: number;
  readonly learningRate: number;
  /** Epochs without a smaller validation loss after which training ends. */
  readonly patience: number;
  readonly random: () => number;
  readonly signal?: AbortSignal | undefined;
  readonly onEpoch: (report: EpochReport) => void;
}

/** What came of training. */
export interface Trained {
  readonly curve: readonly EpochReport[];
  /** The epoch whose weights the student has now. */
  readonly best: EpochReport;
}

/** Longest time without a pause for others of the thread, milliseconds; a step that takes longer cannot be cut. */
const BREATH_MS = 8;

/**
 * Trains until the end, or until validation gets no better, and gives the student the weights of its best epoch.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` if no epoch ends with a finite loss.
 */
export async function train(training: Training): Promise<Trained> {
  const { student, trainingRows, validationRows, batchSize, epochs, patience } = training;
  const tf = functionsOf(training.tf);
  const variables = student.trainableWeights.map((weight) => weight.read());
  const optimizer = tf.train.adam(training.learningRate);
  const judged = validationRows.length > 0 ? validationRows : trainingRows;
  const order = Int32Array.from(trainingRows);
  const curve: EpochReport[] = [];
  let best: EpochReport | undefined;
  let bestWeights: readonly WeightArray[] = [];
  let rested = tf.util.now();
  const breathe = async (): Promise<void> => {
    assertNotAborted(training.signal);
    if (tf.util.now() - rested < BREATH_MS) return;
    await tf.nextFrame();
    rested = tf.util.now();
  };

  try {
    for (let epoch = 1; epoch <= epochs; epoch += 1) {
      shuffle(order, training.random);
      let loss = 0;
      for (const rows of toBatches(order, batchSize)) {
        await breathe();
        const cost = await withBatch(training, rows, (batch) =>
          tf.tidy(() => optimizer.minimize(() => lossOfBatch(training, batch, true).loss, true, variables)),
        );
        loss += (await numberOf(cost)) * (rows.length / order.length);
      }
      const report = { epoch, loss, ...(await judge(training, judged, breathe)) };
      curve.push(report);
      training.onEpoch(report);
      if (Number.isFinite(report.validationLoss) && !(best && best.validationLoss <= report.validationLoss)) {
        best = report;
        bestWeights = await readWeights(student);
      }
      if (validationRows.length > 0 && epoch - (best?.epoch ?? 0) >= patience) break;
    }
  } finally {
    optimizer.dispose();
  }
  if (best === undefined) {
    throw new ModelError(
      'ERR_INLAY_MODEL_INVALID',
      `The student diverges: its loss is ${curve.at(-1)?.validationLoss} after ${curve.length} epochs; use a learningRate below ${training.learningRate}.`,
    );
  }
  tf.tidy(() => {
    const weights = bestWeights.map(({ data, shape }) => tf.tensor(data, shape, 'float32'));
    student.setWeights(weights as never);
  });
  return { curve, best };
}

interface Batch {
  readonly inputs: readonly TfTensor[];
  readonly targets: readonly TfTensor[];
  readonly answers: readonly Float32Array[];
  readonly classes?: TfTensor | undefined;
}

/** Hands rows to a task as tensors, which are gone afterwards. */
async function withBatch<Result>(
  { tf: library, student, feeds, rows, targets, labels }: Training,
  wanted: Int32Array,
  task: (batch: Batch) => Result,
): Promise<Result> {
  const answers = await targets.at(wanted);
  const tf = functionsOf(library);
  const given = rows.gather(wanted);
  const made: TfTensor[] = [];
  const make = (values: Float32Array | Int32Array, shape: readonly number[], dtype: string): TfTensor => {
    const tensor = tf.tensor(values, shape, dtype);
    made.push(tensor);
    return tensor;
  };
  try {
    const inputs = feeds.flatMap((name, at) => {
      const tensor = given[name];
      if (tensor === undefined) return [];
      const floats = toFloats(tensor);
      return student.inputs[at]?.dtype === 'int32'
        ? [make(Int32Array.from(floats), tensor.shape, 'int32')]
        : [make(floats, tensor.shape, 'float32')];
    });
    const wantedOutputs = answers.map((answer, at) =>
      make(answer, [wanted.length, ...(targets.specs[at]?.shape ?? [])], 'float32'),
    );
    const classes =
      labels &&
      make(
        Int32Array.from(wanted, (row) => labels[row] ?? 0),
        [wanted.length],
        'int32',
      );
    return task({ inputs, targets: wantedOutputs, answers, classes });
  } finally {
    for (const tensor of made) tensor.dispose();
  }
}

/** Loss of a batch, summed over the outputs, within `tf.tidy`. True classes belong to the first output. */
function lossOfBatch(
  training: Training,
  { inputs, targets, classes }: Batch,
  isTraining: boolean,
): { readonly loss: TfTensor; readonly outputs: readonly TfTensor[] } {
  const tf = functionsOf(training.tf);
  const outputs = applyModel(training.student, inputs, isTraining);
  const losses = outputs.map((output, at) => {
    const target = targets[at];
    if (target === undefined) throw new RangeError('A student has an output for each of the teacher.');
    return lossOf(tf, target, output, training, at === 0 ? classes : undefined);
  });
  return { loss: losses.reduce((sum, loss) => tf.add(sum, loss)), outputs };
}

async function judge(
  training: Training,
  rows: Int32Array,
  breathe: () => Promise<void>,
): Promise<Pick<EpochReport, 'validationLoss' | 'agreement'>> {
  const tf = functionsOf(training.tf);
  const agreements = training.targets.specs.map(({ shape }) =>
    createAgreement(training.task, shape.length === 0 ? 1 : (shape.at(-1) ?? 1)),
  );
  let validationLoss = 0;
  for (const batch of toBatches(rows, training.batchSize)) {
    await breathe();
    const { made, answers } = await withBatch(training, batch, (parts) => ({
      made: tf.tidy(() => {
        const { loss, outputs } = lossOfBatch(training, parts, false);
        return [loss, ...outputs] as const;
      }),
      answers: parts.answers,
    }));
    const [loss, ...outputs] = made;
    validationLoss += (await numberOf(loss)) * (batch.length / rows.length);
    for (const [at, output] of outputs.entries()) {
      const answer = answers[at];
      const size = sizeOf(output.shape);
      const given = (await output.data()) as Float32Array;
      if (answer !== undefined && size === answer.length) agreements[at]?.add(answer, given);
      output.dispose();
    }
  }
  return { validationLoss, agreement: Math.min(...agreements.map((agreement) => agreement.value())) };
}

async function numberOf(scalar: TfTensor): Promise<number> {
  const [value = Number.NaN] = (await scalar.data()) as Float32Array;
  scalar.dispose();
  return value;
}
