/** Constants as floats of 16 bits. */

import { toFloat16Array } from '../core/float.ts';
import { Tensor } from '../core/tensor.ts';
import type { TensorProto } from '../onnx/messages.ts';
import { fromTensorProto, toTensorProto } from '../onnx/tensors.ts';

/** A constant in 16 bits. */
export interface HalfConstant {
  readonly constant: TensorProto;
  /** Elements beyond 65504 that became 65504. */
  readonly clamped: number;
}

const SIGN = 0x8000;
const INFINITY = 0x7c00;
/** 65504 and 2^-24. */
const LARGEST = 0x7bff;
const SMALLEST = 0x0001;

/**
 * Rounds a float32 constant to float16. What would become infinite becomes ±65504, what would become zero ±2^-24, as
 * `convert_np_to_float16` of onnxruntime's transformers tools has it; zero, infinity and NaN stay.
 */
export function toHalfConstant(constant: TensorProto): HalfConstant {
  const { shape, data } = fromTensorProto(constant);
  const values = data as Float32Array;
  const halves = toFloat16Array(values);
  let clamped = 0;
  for (let i = 0; i < halves.length; i += 1) {
    const half = halves[i] as number;
    const magnitude = half & ~SIGN;
    if (magnitude === 0 && values[i] !== 0) halves[i] = (half & SIGN) | SMALLEST;
    else if (magnitude === INFINITY && Number.isFinite(values[i])) {
      halves[i] = (half & SIGN) | LARGEST;
      clamped += 1;
    }
  }
  const { docString, metadataProps } = constant;
  return {
    clamped,
    constant: {
      ...toTensorProto(constant.name ?? '', new Tensor('float16', shape, halves)),
      ...(docString !== undefined && { docString }),
      ...(metadataProps !== undefined && { metadataProps }),
    },
  };
}
