/** QuantizeLinear and DequantizeLinear in pairs, and constants with the latter alone. */

import { Tensor, tensorFrom } from '../core/tensor.ts';
import { toAttribute } from '../onnx/attributes.ts';
import type { NodeProto, TensorProto } from '../onnx/messages.ts';
import type { Edit } from '../onnx/rewrite.ts';
import { affineOf, INT8_RANGES } from './arithmetic.ts';
import { extentOf, type Mark } from './qdq-plan.ts';
import type { QuantizedBias } from './qdq-products.ts';
import type { Int8 } from './technique.ts';
import { applyScales, readWeights, type QuantizedWeights } from './weights.ts';

/** A constant that is dequantized. Each reader has a node of its own: kernels are made of whole groups. */
export interface Dequantized {
  readonly node: NodeProto;
  readonly output: string;
}

/** Makes the nodes of one graph. */
export interface Pairs {
  /**
   * Rounds a value to integers and back.
   * @param raw - name of the value before, if the value itself is what comes back.
   */
  around(value: string, mark: Mark, raw?: string): { nodes: readonly NodeProto[]; output: string };
  /** Weights; `key` tells which forms of them are the same. */
  weights(name: string, key: string, make: () => QuantizedWeights, axis: number | undefined): Dequantized;
  bias(name: string, key: string, make: () => QuantizedBias): Dequantized;
  /** A constant that is read like an activation. */
  operand(name: string, constant: TensorProto): Dequantized;
}

/** Names of the constants of a quantized constant, in the order in which DequantizeLinear takes them. */
type Triple = readonly [values: string, scale: string, zeroPoint: string];

/** @param isMicrosoft - takes the operators of Microsoft instead of the standard ones. */
export function createPairs(edit: Edit, activations: Int8, isMicrosoft: boolean): Pairs {
  const integers = INT8_RANGES[activations];
  const make = (
    stem: string,
    opType: 'QuantizeLinear' | 'DequantizeLinear',
    input: readonly string[],
    {
      output = edit.fresh(`${stem}_${opType}_Output`),
      axis,
    }: { output?: string; axis?: number | undefined } = {},
  ): Dequantized => ({
    output,
    node: {
      input,
      output: [output],
      name: edit.fresh(`${stem}_${opType}`),
      opType,
      attribute: axis === undefined ? [] : [toAttribute('axis', axis)],
      ...(isMicrosoft && { domain: 'com.microsoft' }),
    },
  });
  const addTriple = (
    stem: string,
    scaleStem: string,
    { values, scale, zeroPoint }: QuantizedWeights | QuantizedBias,
  ): Triple => [
    edit.constant(`${stem}_quantized`, values),
    edit.constant(`${scaleStem}_scale`, scale),
    edit.constant(`${scaleStem}_zero_point`, zeroPoint),
  ];

  return {
    around: (value, mark, raw) => {
      const [scale, zeroPoint] = edit.derive<[string, string]>(`scale of ${mark.root}`, () => [
        edit.constant(`${mark.root}_scale`, tensorFrom('float32', mark.scale)),
        edit.constant(`${mark.root}_zero_point`, tensorFrom(activations, mark.zeroPoint)),
      ]);
      const down = make(value, 'QuantizeLinear', [raw ?? value, scale, zeroPoint]);
      const up = make(
        value,
        'DequantizeLinear',
        [down.output, scale, zeroPoint],
        raw === undefined ? {} : { output: value },
      );
      return { nodes: [down.node, up.node], output: up.output };
    },
    weights: (name, key, quantize, axis) => {
      const triple = edit.derive(`weights ${key}`, () => {
        const { values, scale, zeroPoint } = quantize();
        // The standard asks for as many zero points as scales.
        const zeroPoints = scale.shape.length === 0 ? zeroPoint : repeated(zeroPoint, scale.size);
        return addTriple(name, name, { values, scale, zeroPoint: zeroPoints });
      });
      return make(name, 'DequantizeLinear', triple, { axis });
    },
    bias: (name, key, quantize) => {
      const triple = edit.derive(`bias ${key}`, () => addTriple(name, `${name}_quantized`, quantize()));
      return make(name, 'DequantizeLinear', triple, {
        axis: edit.scope.constant(name)?.dims.length === 1 ? 0 : undefined,
      });
    },
    operand: (name, constant) => {
      const triple = edit.derive(`operand ${name}`, () => {
        const floats = readWeights(constant);
        const { scale, zeroPoint } = affineOf(extentOf(floats.data), integers, false);
        const scales = { scales: Float32Array.of(scale), zeroPoint };
        return addTriple(name, name, applyScales(floats, scales, { dtype: activations }));
      });
      return make(name, 'DequantizeLinear', triple);
    },
  };
}

function repeated({ dtype, data }: Tensor<Int8>, length: number): Tensor<Int8> {
  const value = data[0] as number;
  return dtype === 'int8'
    ? new Tensor(dtype, [length], new Int8Array(length).fill(value))
    : new Tensor(dtype, [length], new Uint8Array(length).fill(value));
}
