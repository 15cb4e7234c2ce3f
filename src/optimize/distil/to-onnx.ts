/** Networks of TensorFlow.js as ONNX models. */

import type { DType } from '../../core/dtype.ts';
import { ModelError } from '../../core/errors.ts';
import type { Dimension } from '../../core/signature.ts';
import { createGraph } from '../../onnx/build.ts';
import type { ModelProto } from '../../onnx/messages.ts';
import { createEmitter, toValue, type Value } from './onnx-emitter.ts';
import { refusal } from './onnx-layer.ts';
import { writeLayer } from './onnx-layers.ts';
import {
  namesOf,
  readWeights,
  type TfLayer,
  type TfLayersModel,
  type TfShape,
  type TfSymbolicTensor,
  type WeightArray,
} from './library.ts';

/** How {@link toOnnxModel} names things. */
export interface ToOnnxOptions {
  /** Names of the inputs in the order of the model's, and dtypes if they differ. Default: as in the model. */
  readonly inputs?: readonly { readonly name: string; readonly dtype?: DType }[];
  /** Names of the outputs in the order of the model's. Default: as in the model. */
  readonly outputs?: readonly string[];
}

/** Has LayerNormalization (17), and runs in every onnxruntime of these years. */
const OPSET = 17;

/**
 * Writes a network of TensorFlow.js, sequential or functional, as an ONNX model that computes the same: images stay
 * channels last at inputs and outputs, the batch stays any size, weights are copied.
 *
 * In between, images are channels first, as ONNX has them; they are turned round where they have to be, not at each
 * layer. Layers that act in training only vanish.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` for a layer that has no form, by name; `RangeError` for too few
 * names, or the same one twice.
 */
export async function toOnnxModel(model: TfLayersModel, options: ToOnnxOptions = {}): Promise<ModelProto> {
  const weights = new Map<TfLayer, readonly WeightArray[]>();
  for (const layer of layersOf(model)) weights.set(layer, await readWeights(layer));
  return write(model, weights, options);
}

function write(
  model: TfLayersModel,
  weights: ReadonlyMap<TfLayer, readonly WeightArray[]>,
  options: ToOnnxOptions,
): ModelProto {
  const inputs = options.inputs ?? namesOf(model.inputs).map((name) => ({ name, dtype: undefined }));
  const outputs = options.outputs ?? namesOf(model.outputs);
  assertCount(model, 'inputs', inputs.length, model.inputs.length);
  assertCount(model, 'outputs', outputs.length, model.outputs.length);
  const names = [...inputs.map(({ name }) => name), ...outputs];
  if (new Set(names).size < names.length) {
    throw new RangeError(
      `Inputs and outputs need names of their own, but they are ${names.join(', ')}; pass others.`,
    );
  }
  const graph = createGraph({ name: model.name, opset: OPSET });
  const emit = createEmitter(graph, names);

  const fed = model.inputs.map((tensor, at): Value => {
    const { name = '', dtype = dtypeOf(tensor) } = inputs[at] ?? {};
    graph.input(name, dtype, toDimensions(tensor.shape));
    return { ...toValue(tensor.shape, 'last', name), dtype };
  });
  const compute = (container: TfLayersModel, given: readonly Value[]): Value[] => {
    const known = new Map(container.inputs.map(({ id }, at) => [id, given[at]]));
    const valueOf = (tensor: TfSymbolicTensor): Value => {
      const value = known.get(tensor.id) ?? apply(tensor);
      known.set(tensor.id, value);
      return value;
    };
    const apply = ({ sourceLayer: layer, nodeIndex, tensorIndex, shape }: TfSymbolicTensor): Value => {
      const from = (layer.inboundNodes[nodeIndex]?.inputTensors ?? []).map(valueOf);
      if (isContainer(layer)) return compute(layer, from)[tensorIndex] ?? fail(layer);
      const type = layer.getClassName();
      const view = { name: layer.name, type, config: { ...layer.getConfig() }, outputShape: shape };
      return writeLayer({ ...view, weights: weights.get(layer) ?? [] }, from, emit);
    };
    return container.outputs.map(valueOf);
  };

  const values = compute(model, fed);
  emit.enter('output');
  const renamed = new Map<string, string>();
  for (const [at, value] of values.entries()) {
    const name = emit.as(emit.cast(value, 'float32'), 'last');
    const isFree = !renamed.has(name) && !inputs.some((input) => input.name === name);
    renamed.set(isFree ? name : emit.node('Identity', [name]), outputs[at] ?? '');
  }
  for (const [at, name] of [...renamed.keys()].entries()) {
    graph.output(name, 'float32', toDimensions(values[at]?.shape ?? []));
  }
  return withNames(graph.toModel(), renamed);
}

/** Gives values other names, which nothing else has. */
function withNames(model: ModelProto, names: ReadonlyMap<string, string>): ModelProto {
  const rename = (name: string): string => names.get(name) ?? name;
  const node = model.graph.node.map((one) => ({
    ...one,
    input: one.input.map(rename),
    output: one.output.map(rename),
  }));
  const output = model.graph.output.map((one) => ({ ...one, name: rename(one.name ?? '') }));
  return { ...model, graph: { ...model.graph, node, output } };
}

function assertCount(model: TfLayersModel, what: string, names: number, count: number): void {
  if (names !== count) {
    throw new RangeError(`The network "${model.name}" has ${count} ${what}, but ${names} names are given.`);
  }
}

function fail(layer: TfLayer): never {
  throw refusal({ name: layer.name, type: layer.getClassName() }, 'it lacks an output that is used');
}

/** The layers that outputs come from, those of networks inside of the network as well. */
function layersOf(model: TfLayersModel): Set<TfLayer> {
  const found = new Set<TfLayer>();
  const seen = new Set<number>();
  const visit = ({ id, sourceLayer: layer, nodeIndex }: TfSymbolicTensor): void => {
    if (seen.has(id)) return;
    seen.add(id);
    if (isContainer(layer)) for (const inner of layersOf(layer)) found.add(inner);
    else found.add(layer);
    layer.inboundNodes[nodeIndex]?.inputTensors.forEach(visit);
  };
  model.outputs.forEach(visit);
  return found;
}

function isContainer(layer: TfLayer): layer is TfLayersModel {
  return 'inputs' in layer && 'outputs' in layer;
}

function toDimensions(shape: TfShape): Dimension[] {
  return shape.map((length, axis) => length ?? (axis === 0 ? 'batch' : null));
}

function dtypeOf({ dtype }: TfSymbolicTensor): DType {
  if (dtype === 'float32' || dtype === 'int32') return dtype;
  throw new ModelError(
    'ERR_INLAY_MODEL_UNSUPPORTED',
    `An input of the dtype ${dtype} cannot be written as ONNX; use float32 or int32.`,
  );
}
