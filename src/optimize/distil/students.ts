/** Small networks by a short description, with inputs and outputs like the teacher's. */

import { ModelError } from '../../core/errors.ts';
import { sizeOf } from '../../core/tensor.ts';
import {
  functionsOf,
  type Tf,
  type TfLayersModel,
  type TfLibrary,
  type TfSymbolicTensor,
} from './library.ts';
import type { Task } from './losses.ts';
import type { RowSpec } from './rows.ts';

/** What a student has to be like. */
export interface StudentNeeds {
  readonly tf: TfLibrary;
  /** What a row consists of. */
  readonly inputs: readonly RowSpec[];
  readonly outputs: readonly RowSpec[];
  /** Outputs that are probabilities end in a softmax. */
  readonly task: Task;
  /** For first weights. */
  readonly seed: number;
}

/** Makes a student that fits. Whoever calls it disposes of the student. */
export type StudentRecipe = (needs: StudentNeeds) => TfLayersModel;

/** Activation of hidden layers, in the names of TensorFlow.js. */
export type HiddenActivation = 'elu' | 'relu' | 'relu6' | 'selu' | 'swish' | 'tanh';

/** Description for {@link mlp}. */
export interface MlpOptions {
  /** Units of each hidden layer; none make a linear student. */
  readonly hidden: readonly number[];
  /** Default `relu`. */
  readonly activation?: HiddenActivation;
}

/** Description for {@link cnn}. */
export interface CnnOptions {
  /** Filters of each convolution; each halves rows and columns. */
  readonly filters: readonly number[];
  /** Rows and columns of the filters. Default 3. */
  readonly kernelSize?: number;
  /** Takes a filter for each channel and mixes channels afterwards: fewer weights. Default false. */
  readonly isSeparable?: boolean;
  /** Units of each hidden layer behind the convolutions. Default: none. */
  readonly hidden?: readonly number[];
  /** Default `relu`. */
  readonly activation?: HiddenActivation;
  /** Where the channels of a row are. Default: in front if that axis is the shorter one. */
  readonly channels?: 'first' | 'last';
}

/** Describes a network of dense layers, into which all inputs go as one row. */
export function mlp({ hidden, activation = 'relu' }: MlpOptions): StudentRecipe {
  assertSizes('hidden', hidden);
  return (needs) => {
    const { tf, fed, name, finish } = start(needs);
    const rows = fed.map((input, at) =>
      needs.inputs[at]?.shape.length === 1
        ? input
        : (needs.inputs[at]?.shape.length === 0
            ? tf.layers.reshape({ name: name('column'), targetShape: [1] })
            : tf.layers.flatten({ name: name('flatten') })
          ).apply(input),
    );
    const [first] = rows;
    const row =
      rows.length === 1 && first !== undefined
        ? first
        : tf.layers.concatenate({ name: name('inputs') }).apply(rows);
    return finish(row, hidden, activation);
  };
}

/**
 * Describes a network of convolutions for one image, float [rows, columns, channels] or [channels, rows, columns].
 * The recipe throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` if the teacher takes something else.
 */
export function cnn(options: CnnOptions): StudentRecipe {
  const { filters, kernelSize = 3, isSeparable = false, hidden = [], activation = 'relu' } = options;
  assertSizes('filters', filters);
  assertSizes('hidden', hidden);
  assertSizes('kernelSize', [kernelSize]);
  return (needs) => {
    const [spec, ...others] = needs.inputs;
    if (spec?.shape.length !== 3 || others.length > 0) {
      const shapes = needs.inputs.map(({ name, shape }) => `${name} [${shape.join(', ')}]`).join(' and ');
      throw new ModelError(
        'ERR_INLAY_MODEL_UNSUPPORTED',
        `A student of convolutions takes one image, but rows are ${shapes}; use mlp, or pass a network of your own.`,
      );
    }
    const { tf, fed, dice, name, finish } = start(needs);
    const [one = 0, , three = 0] = spec.shape;
    const isFirst = options.channels === undefined ? one < three : options.channels === 'first';
    const [input] = fed as [TfSymbolicTensor];
    let image = isFirst ? tf.layers.permute({ name: name('image'), dims: [2, 3, 1] }).apply(input) : input;
    for (const count of filters) {
      const settings = {
        name: name('convolution'),
        filters: count,
        kernelSize,
        strides: 2,
        padding: 'same',
        activation,
      };
      image = isSeparable
        ? tf.layers
            .separableConv2d({ ...settings, depthwiseInitializer: dice(2), pointwiseInitializer: dice(2) })
            .apply(image)
        : tf.layers.conv2d({ ...settings, kernelInitializer: dice(2) }).apply(image);
    }
    return finish(tf.layers.flatten({ name: name('flatten') }).apply(image), hidden, activation);
  };
}

interface Started {
  readonly tf: Tf;
  readonly fed: readonly TfSymbolicTensor[];
  /** First weights: uniform, of the variance that keeps that of values (He et al. 2015: scale 2 before ReLU). */
  dice(scale: number): object;
  /** Numbers layers; the library would count on from one student to the next. */
  name(kind: string): string;
  /** Adds hidden layers and one head for each output. */
  finish(row: TfSymbolicTensor, hidden: readonly number[], activation: HiddenActivation): TfLayersModel;
}

function start(needs: StudentNeeds): Started {
  const tf = functionsOf(needs.tf);
  const fed = needs.inputs.map(({ shape }) => tf.input({ shape }));
  let { seed } = needs;
  const dice = (scale: number): object => {
    seed += 1;
    return tf.initializers.varianceScaling({ scale, mode: 'fanIn', distribution: 'uniform', seed });
  };
  const counts = new Map<string, number>();
  const name = (kind: string): string => {
    const count = (counts.get(kind) ?? 0) + 1;
    counts.set(kind, count);
    return `${kind}_${count}`;
  };
  const finish: Started['finish'] = (row, hidden, activation) => {
    let value = row;
    for (const units of hidden) {
      value = tf.layers
        .dense({ name: name('hidden'), units, activation, kernelInitializer: dice(2) })
        .apply(value);
    }
    const activationAtEnd = needs.task === 'probabilities' ? 'softmax' : 'linear';
    const outputs = needs.outputs.map(({ shape }) => {
      const units = sizeOf(shape);
      const isRow = shape.length === 1;
      const head = tf.layers.dense({
        name: name('head'),
        units,
        kernelInitializer: dice(1),
        activation: isRow ? activationAtEnd : 'linear',
      });
      if (isRow) return head.apply(value);
      const shaped = tf.layers.reshape({ name: name('shape'), targetShape: shape }).apply(head.apply(value));
      return activationAtEnd === 'linear'
        ? shaped
        : tf.layers.activation({ name: name('activation'), activation: activationAtEnd }).apply(shaped);
    });
    return tf.model({ name: 'student', inputs: fed, outputs });
  };
  return { tf, fed, dice, name, finish };
}

function assertSizes(what: string, sizes: readonly number[]): void {
  const wrong = sizes.find((size) => !Number.isSafeInteger(size) || size < 1);
  if (wrong !== undefined)
    throw new RangeError(`The ${what} of a student are positive integers, got ${wrong}.`);
}
