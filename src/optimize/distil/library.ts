/** The part of TensorFlow.js that distillation uses. */

/** Sizes of axes, the batch first; `null`: any size. */
export type TfShape = readonly (number | null)[];

/** The part of `tf.Tensor` that is used. */
export interface TfTensor {
  readonly shape: readonly number[];
  readonly dtype: string;
  data(): Promise<unknown>;
  dispose(): void;
}

/** The part of `tf.SymbolicTensor` that is used. */
export interface TfSymbolicTensor {
  readonly id: number;
  readonly shape: TfShape;
  readonly dtype: string;
  readonly sourceLayer: TfLayer;
  readonly nodeIndex: number;
  readonly tensorIndex: number;
}

/** The part of `tf.layers.Layer` that is used. */
export interface TfLayer {
  readonly name: string;
  readonly inboundNodes: readonly {
    readonly inputTensors: readonly TfSymbolicTensor[];
  }[];
  getClassName(): string;
  getConfig(): object;
  getWeights(): readonly TfTensor[];
}

/** The part of `tf.LayersModel` that is used. */
export interface TfLayersModel extends TfLayer {
  readonly inputs: readonly TfSymbolicTensor[];
  readonly outputs: readonly TfSymbolicTensor[];
  readonly weights: readonly { readonly name: string }[];
  readonly trainableWeights: readonly { read(): TfTensor }[];
  setWeights(weights: never): void;
  apply(inputs: never, options?: never): unknown;
  dispose(): unknown;
}

/** A TensorFlow.js module, as `import * as tf from '@tensorflow/tfjs'` gives it. The backend is the host's choice. */
export interface TfLibrary {
  readonly layers: object;
  readonly initializers: object;
  readonly train: object;
  readonly util: object;
  nextFrame(): Promise<void>;
  tensor(values: never, shape: never, dtype: never): TfTensor;
  tidy(task: never): unknown;
}

/** A layer that is not applied yet. */
interface TfUnapplied {
  apply(inputs: TfSymbolicTensor | readonly TfSymbolicTensor[]): TfSymbolicTensor;
}

type MakeLayer = (options: Readonly<Record<string, unknown>>) => TfUnapplied;
type Unary = (x: TfTensor) => TfTensor;
type Binary = (a: TfTensor, b: TfTensor | number) => TfTensor;

/** The functions of the module, as they are called here. */
export interface Tf {
  readonly layers: Readonly<
    Record<
      | 'activation'
      | 'concatenate'
      | 'conv2d'
      | 'dense'
      | 'flatten'
      | 'permute'
      | 'reshape'
      | 'separableConv2d',
      MakeLayer
    >
  >;
  readonly initializers: {
    varianceScaling(options: {
      readonly scale: number;
      readonly mode: 'fanIn' | 'fanAvg';
      readonly distribution: 'uniform';
      readonly seed: number;
    }): object;
  };
  readonly train: { adam(learningRate: number): TfOptimizer };
  readonly util: { now(): number };
  input(options: { readonly shape: readonly number[]; readonly dtype?: string }): TfSymbolicTensor;
  model(parts: {
    readonly name: string;
    readonly inputs: readonly TfSymbolicTensor[];
    readonly outputs: readonly TfSymbolicTensor[];
  }): TfLayersModel;
  tensor(values: Float32Array | Int32Array, shape: readonly number[], dtype: string): TfTensor;
  tidy<T>(task: () => T): T;
  nextFrame(): Promise<void>;
  oneHot(classes: TfTensor, depth: number): TfTensor;
  sum(x: TfTensor, axis?: number): TfTensor;
  readonly logSoftmax: Unary;
  readonly softmax: Unary;
  readonly log: Unary;
  readonly exp: Unary;
  readonly mean: Unary;
  readonly square: Unary;
  readonly add: Binary;
  readonly sub: Binary;
  readonly mul: Binary;
  readonly div: Binary;
  readonly maximum: Binary;
}

/** The part of `tf.Optimizer` that is used. */
export interface TfOptimizer {
  minimize(loss: () => TfTensor, returnCost: true, variables: readonly TfTensor[]): TfTensor;
  dispose(): void;
}

/** The module as it is called here; its own types do not fit together without its package. */
export function functionsOf(tf: TfLibrary): Tf {
  return tf as object as Tf;
}

/** Applies a model to a batch. @returns one tensor for each output. */
export function applyModel(model: TfLayersModel, inputs: readonly TfTensor[], training: boolean): TfTensor[] {
  const outputs = model.apply((inputs.length === 1 ? inputs[0] : inputs) as never, { training } as never) as
    | TfTensor
    | TfTensor[];
  return Array.isArray(outputs) ? outputs : [outputs];
}

/** Copies the weights of a layer or model out of the library. */
export async function readWeights(layer: TfLayer): Promise<readonly WeightArray[]> {
  return Promise.all(
    layer.getWeights().map(async (weight) => ({
      shape: [...weight.shape],
      data: Float32Array.from((await weight.data()) as Float32Array),
    })),
  );
}

/** A weight outside of the library. */
export interface WeightArray {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** Names of inputs or outputs: those of the layers that they come from, as the library has it. */
export function namesOf(tensors: readonly TfSymbolicTensor[]): readonly string[] {
  return tensors.map(({ sourceLayer }) => sourceLayer.name);
}
