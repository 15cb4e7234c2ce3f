/** Models that are not quantized, and why. */

import { ModelError } from '../core/errors.ts';
import type { ModelProto, NodeProto } from '../onnx/messages.ts';
import { OLDEST_OPSET, opsetOf } from '../onnx/opset.ts';
import { isStandardOp, labelOf } from '../onnx/scope.ts';
import { allNodes } from '../onnx/walk.ts';
import type { TechniqueOptions } from './technique.ts';

/** Operators of quantized models, those of `com.microsoft` included. */
const QUANTIZED =
  /^(Dynamic)?(Quantize|Dequantize)Linear$|^QLinear|Integer|^MatMulNBits$|^MatMulBnb4$|^GatherBlockQuantized$|^DynamicQuantize|^QAttention$|^QGemm$|^QMoE$|^QEmbed|^QOrdered/;

/** Lowest opset whose operators the techniques emit: DynamicQuantizeLinear came with 11. */
const LOWEST_OPSET = 11;

/** Tells whether a node is what quantization leaves behind. */
export function isQuantizedOp(node: NodeProto): boolean {
  return (isStandardOp(node) || node.domain === 'com.microsoft') && QUANTIZED.test(node.opType ?? '');
}

/**
 * Refuses models that quantization would break: those of an opset below 11, with local functions, or quantized already
 * (unless `isForced`).
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED`
 */
export function assertQuantizable(model: ModelProto, { isForced = false }: TechniqueOptions = {}): void {
  const opset = opsetOf(model) ?? 0;
  if (opset < LOWEST_OPSET) {
    throw refusal(
      `The model uses opset ${opset}, and quantization needs ${LOWEST_OPSET} or later; ${opset < OLDEST_OPSET ? 'export it anew' : 'carry it over with raiseOpset of inlay/onnx, or export it anew'}.`,
      { opset },
    );
  }
  const [called] = model.functions ?? [];
  if (called !== undefined) {
    throw refusal(
      `The model defines the function "${called.name ?? ''}", and what is inside of functions is not quantized; prepare the model first, which puts their nodes into the graph.`,
      { function: called.name ?? '' },
    );
  }
  if (isForced) return;
  for (const node of allNodes(model)) {
    if (!isQuantizedOp(node)) continue;
    throw refusal(
      `The model is quantized already: node "${labelOf(node)}" is ${node.opType ?? ''}; start from the float model, or force it (isForced, --force).`,
      { node: labelOf(node), op: node.opType ?? '' },
    );
  }
}

function refusal(message: string, details: Readonly<Record<string, unknown>>): ModelError {
  return new ModelError('ERR_INLAY_MODEL_UNSUPPORTED', message, { details });
}
