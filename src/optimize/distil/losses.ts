/** What a student is trained to make small, and how near it comes to its teacher. */

import type { Tf, TfTensor } from './library.ts';

/**
 * What the outputs mean. `regression`: numbers. `logits` and `probabilities`: one entry for each class along the last
 * axis, before or after a softmax.
 */
export type Task = 'regression' | 'logits' | 'probabilities';

/** Weights of the parts of a loss. */
export interface LossOptions {
  readonly task: Task;
  /** Softens the classes of both: above 1, also unlikely ones count. */
  readonly temperature: number;
  /** Share of the true classes, in [0, 1]. */
  readonly alpha: number;
}

/** Probabilities below it count as that, so that their logarithm stays finite. */
const LEAST = 1e-7;

/**
 * Loss of one output, a scalar, averaged over the batch.
 *
 * Numbers: mean of the squared difference. Classes: `(1 − α)·T²·KL(teacher ‖ student)` with both softened by the
 * temperature T, plus `α` times the cross-entropy with the true classes (Hinton, Vinyals and Dean 2015, "Distilling the
 * Knowledge in a Neural Network", §2: T² keeps the two parts in proportion when T changes).
 * @param classes - int32 [batch], the true classes, if they are known.
 */
export function lossOf(
  tf: Tf,
  teacher: TfTensor,
  student: TfTensor,
  { task, temperature, alpha }: LossOptions,
  classes?: TfTensor,
): TfTensor {
  if (task === 'regression') return tf.mean(tf.square(tf.sub(student, teacher)));
  const toLogits = (x: TfTensor): TfTensor => (task === 'logits' ? x : tf.log(tf.maximum(x, LEAST)));
  const logits = toLogits(student);
  const wanted = tf.logSoftmax(tf.div(toLogits(teacher), temperature));
  const given = tf.logSoftmax(tf.div(logits, temperature));
  const divergence = tf.mean(tf.sum(tf.mul(tf.exp(wanted), tf.sub(wanted, given)), -1));
  const soft = tf.mul(divergence, temperature ** 2);
  if (classes === undefined || alpha === 0) return soft;
  const truth = tf.oneHot(classes, student.shape.at(-1) ?? 1);
  const hard = tf.mul(tf.mean(tf.sum(tf.mul(truth, tf.logSoftmax(logits)), -1)), -alpha);
  return tf.add(tf.mul(soft, 1 - alpha), hard);
}

/** Gathers how near a student comes to its teacher. */
export interface Agreement {
  add(teacher: Float32Array, student: Float32Array): void;
  /**
   * Classes: share of the rows whose likeliest class is the teacher's, in [0, 1]. Numbers: coefficient of determination,
   * `1 − Σ(s − t)² / Σ(t − mean t)²`, at most 1.
   */
  value(): number;
}

/** Starts to gather. `classes` is the length of the last axis. */
export function createAgreement(task: Task, classes: number): Agreement {
  if (task !== 'regression') {
    let [same, rows] = [0, 0];
    return {
      add: (teacher, student) => {
        for (let at = 0; at < teacher.length; at += classes, rows += 1) {
          if (likeliest(teacher, at, classes) === likeliest(student, at, classes)) same += 1;
        }
      },
      value: () => (rows === 0 ? Number.NaN : same / rows),
    };
  }
  let [count, mean, spread, error] = [0, 0, 0, 0];
  return {
    add: (teacher, student) => {
      for (let at = 0; at < teacher.length; at += 1) {
        const wanted = teacher[at] ?? 0;
        error += (wanted - (student[at] ?? 0)) ** 2;
        // Welford 1962: the spread without a second pass.
        count += 1;
        const away = wanted - mean;
        mean += away / count;
        spread += away * (wanted - mean);
      }
    },
    value: () => (spread > 0 ? 1 - error / spread : error === 0 ? 1 : Number.NEGATIVE_INFINITY),
  };
}

function likeliest(values: Float32Array, from: number, count: number): number {
  let best = 0;
  for (let at = 1; at < count; at += 1) {
    if ((values[from + at] ?? 0) > (values[from + best] ?? 0)) best = at;
  }
  return best;
}

/**
 * Guesses what outputs mean from answers of the teacher: probabilities if every row is one, else logits where true
 * classes are known, else numbers.
 */
export function guessTask(answers: Float32Array, classes: number, hasLabels: boolean): Task {
  let isProbable = classes > 1;
  for (let at = 0; at < answers.length && isProbable; at += classes) {
    const row = answers.subarray(at, at + classes);
    isProbable =
      row.every((value) => value >= 0) && Math.abs(row.reduce((sum, value) => sum + value, 0) - 1) < 1e-3;
  }
  if (isProbable) return 'probabilities';
  return hasLabels ? 'logits' : 'regression';
}
