/** Activations of TensorFlow.js as ONNX operators. */

import { toValue, axisIn, type Emitter, type Layout, type Value } from './onnx-emitter.ts';

/** Writes an activation of one value. `axis` is the last one, as the layout has it. */
type Activation = (emit: Emitter, x: string, axis: number) => string;

const simple =
  (op: string, attributes: Readonly<Record<string, { float: number }>> = {}): Activation =>
  (emit, x) =>
    emit.node(op, [x], attributes);

/** By the name under which layers are configured. */
const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  linear: (_, x) => x,
  relu: simple('Relu'),
  relu6: (emit, x) => emit.node('Clip', [x, emit.scalar(0), emit.scalar(6)]),
  sigmoid: simple('Sigmoid'),
  tanh: simple('Tanh'),
  elu: simple('Elu'),
  selu: simple('Selu'),
  hardSigmoid: simple('HardSigmoid', { alpha: { float: 0.2 }, beta: { float: 0.5 } }),
  softplus: simple('Softplus'),
  softsign: simple('Softsign'),
  softmax: (emit, x, axis) => emit.node('Softmax', [x], { axis }),
  logSoftmax: (emit, x, axis) => emit.node('LogSoftmax', [x], { axis }),
  swish: (emit, x) => emit.node('Mul', [x, emit.node('Sigmoid', [x])]),
  mish: (emit, x) => emit.node('Mul', [x, emit.node('Tanh', [emit.node('Softplus', [x])])]),
  // Hendrycks and Gimpel 2016: x·Φ(x), in the order that onnxruntime fuses.
  gelu: (emit, x) => {
    const erf = emit.node('Erf', [emit.node('Div', [x, emit.scalar(Math.SQRT2)])]);
    const sum = emit.node('Add', [erf, emit.scalar(1)]);
    return emit.node('Mul', [emit.node('Mul', [x, sum]), emit.scalar(0.5)]);
  },
  gelu_new: (emit, x) => {
    const cube = emit.node('Mul', [emit.node('Pow', [x, emit.scalar(3)]), emit.scalar(0.044715)]);
    const inner = emit.node('Mul', [emit.node('Add', [x, cube]), emit.scalar(Math.sqrt(2 / Math.PI))]);
    const sum = emit.node('Add', [emit.node('Tanh', [inner]), emit.scalar(1)]);
    return emit.node('Mul', [emit.node('Mul', [x, sum]), emit.scalar(0.5)]);
  },
};

/** Tells whether an activation has an ONNX form. */
export function isActivation(name: string): boolean {
  return Object.hasOwn(ACTIVATIONS, name);
}

/** Applies an activation that has a form, in the layout that the value is in. */
export function activate(emit: Emitter, name: string, value: Value): Value {
  return mapValue(value, (x, layout) => {
    const last = layout === 'flat' ? 1 : axisIn(layout, value.shape.length - 1);
    return ACTIVATIONS[name]?.(emit, x, last) ?? x;
  });
}

/** Applies something in the layout that the value is in. `shape` is that of the result. */
export function mapValue(
  value: Value,
  apply: (x: string, layout: Layout) => string,
  shape: Value['shape'] = value.shape,
): Value {
  const [layout, name] = soleLayout(value);
  return toValue(shape, layout, apply(name, layout), value.image);
}

/** One layout that the value is in: channels first if it is, which is where images come from and go. */
export function soleLayout({ names }: Value): readonly [Layout, string] {
  for (const layout of ['first', 'flat', 'last'] as const) {
    const name = names.get(layout);
    if (name !== undefined) return [layout, name];
  }
  throw new RangeError('A value has a name in at least one layout.');
}
