/** Which operators static quantization is for, and in which part. */

import type { ModelProto, NodeProto } from '../onnx/messages.ts';
import { intOf, intsOf, isStandardOp, openScope } from '../onnx/scope.ts';

/**
 * - `product`: sums of products with constant weights, which is where the time goes.
 * - `table`: rows that are looked up in a constant.
 * - `elementwise`: computes with integers of any scales; worth it next to something quantized only.
 * - `joiner`: puts values side by side.
 * - `follower`: moves elements of its first input; its outputs have the same scale.
 * - `clamp`: what rounding to integers does by itself where the range ends there.
 * - `share`: gives shares of 1.
 */
export type Role = 'product' | 'table' | 'elementwise' | 'joiner' | 'follower' | 'clamp' | 'share';

const ROLES: Readonly<Record<Role, readonly string[]>> = {
  product: ['Conv', 'ConvTranspose', 'MatMul', 'Gemm'],
  table: ['Gather'],
  elementwise: ['Add', 'Mul', 'Sigmoid', 'HardSwish', 'LeakyRelu', 'AveragePool', 'GlobalAveragePool'],
  joiner: ['Concat'],
  follower: [
    'Reshape',
    'Flatten',
    'Transpose',
    'Squeeze',
    'Unsqueeze',
    'MaxPool',
    'Slice',
    'Split',
    'Pad',
    'Resize',
    'DepthToSpace',
  ],
  clamp: ['Relu', 'Clip'],
  share: ['Softmax'],
};

const ROLE_OF: ReadonlyMap<string, Role> = /* @__PURE__ */ new Map(
  (Object.keys(ROLES) as Role[]).flatMap((role) => ROLES[role].map((op): [string, Role] => [op, role])),
);

/** The part that a node plays; `undefined`: it stays as it is, and nobody expects otherwise. */
export function roleOf(node: NodeProto): Role | undefined {
  return isStandardOp(node) ? ROLE_OF.get(node.opType ?? '') : undefined;
}

/**
 * Why the answers of a pool would be others with integers, one clause: what `com.microsoft::QLinearAveragePool` of
 * onnxruntime does not know, or does otherwise.
 */
export function poolFault(node: NodeProto): string | undefined {
  if (node.opType !== 'AveragePool') return undefined;
  if (intsOf(node, 'dilations')?.some((step) => step !== 1))
    return 'its kernel with 8 bits knows no dilations';
  const isRoundedUp = intOf(node, 'ceil_mode', 0) !== 0 && intOf(node, 'count_include_pad', 0) !== 0;
  return isRoundedUp ? 'its kernel with 8 bits counts windows at the border otherwise' : undefined;
}

/** Values of the graph that are not constant and that nodes with a part read or give: those whose ranges count. */
export function activationsOf(model: ModelProto): readonly string[] {
  const scope = openScope(model);
  const names = new Set<string>();
  for (const node of model.graph.node) {
    if (roleOf(node) === undefined) continue;
    for (const name of [...node.input, ...node.output]) {
      if (name !== '' && scope.constant(name) === undefined) names.add(name);
    }
  }
  return [...names];
}
