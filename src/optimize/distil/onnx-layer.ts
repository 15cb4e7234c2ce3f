/** What the writers of layers are given, and how they refuse. */

import { ModelError } from '../../core/errors.ts';
import { isActivation, activate } from './onnx-activations.ts';
import type { Emitter, Value } from './onnx-emitter.ts';
import type { TfShape, WeightArray } from './library.ts';

/** A layer that is applied once. */
export interface LayerView {
  readonly name: string;
  /** Name of its class. */
  readonly type: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly weights: readonly WeightArray[];
  readonly outputShape: TfShape;
}

/** Writes one layer. */
export type LayerWriter = (layer: LayerView, inputs: readonly Value[], emit: Emitter) => Value;

/** The error of a layer that cannot be written. `reason` is a clause: what is in the way, or what to use instead. */
export function refusal({ name, type }: Pick<LayerView, 'name' | 'type'>, reason: string): ModelError {
  return new ModelError(
    'ERR_INLAY_MODEL_UNSUPPORTED',
    `Layer "${name}" (${type}) cannot be written as ONNX: ${reason}.`,
    { details: { layer: name, type } },
  );
}

/** The only input of a layer. */
export function sole(layer: LayerView, inputs: readonly Value[]): Value {
  const [value, ...others] = inputs;
  if (value === undefined || others.length > 0)
    throw refusal(layer, `it takes ${inputs.length} inputs, not one`);
  return value;
}

/** A weight by its place. */
export function weightOf(layer: LayerView, index: number): WeightArray {
  const weight = layer.weights[index];
  if (weight === undefined) throw refusal(layer, `it has ${layer.weights.length} weights only`);
  return weight;
}

/** A setting of two integers, of which one may stand for both. */
export function pairOf(layer: LayerView, key: string): readonly [number, number] {
  const value = layer.config[key];
  const [first, second] = Array.isArray(value) ? (value as unknown[]) : [value, value];
  if (typeof first === 'number' && typeof second === 'number') return [first, second];
  throw refusal(layer, `its ${key} is ${JSON.stringify(value)}, not two integers`);
}

/** A setting that is an axis, counted from the first one. */
export function axisOf(layer: LayerView, key: string, rank: number): number {
  const value = layer.config[key];
  const axis: unknown = Array.isArray(value) && value.length === 1 ? value[0] : value;
  if (typeof axis !== 'number')
    throw refusal(layer, `its ${key} is ${JSON.stringify(value)}, not one integer`);
  return axis < 0 ? axis + rank : axis;
}

/** @throws the refusal of a layer whose images are channels first. */
export function assertChannelsLast(layer: LayerView): void {
  if (layer.config['dataFormat'] === 'channelsFirst') {
    throw refusal(layer, 'its dataFormat is channelsFirst; use a permute layer and channelsLast');
  }
}

/** Applies the activation that a layer is configured with. */
export function activated(layer: LayerView, value: Value, emit: Emitter): Value {
  const name = layer.config['activation'] ?? 'linear';
  if (typeof name !== 'string' || !isActivation(name)) {
    throw refusal(layer, `its activation ${JSON.stringify(name)} has no ONNX form`);
  }
  return activate(emit, name, value);
}
