/** Tidying a model before techniques see it. */

import { isInlayError, ModelError } from '../core/errors.ts';
import type { ModelProto, NodeProto, ValueInfoProto } from '../onnx/messages.ts';
import { encodeModel, parseModel } from '../onnx/model.ts';
import { raiseOpset } from '../onnx/opset.ts';
import { isExternal } from '../onnx/tensors.ts';
import { feedsOf } from '../onnx/types.ts';
import { allGraphs, allNodes } from '../onnx/walk.ts';
import { shareConstants } from './prepare-constants.ts';
import type { OptimizeRuntime } from './runtime.ts';

/**
 * Carries a model over to an operator set that techniques know, and rewrites it as the library does at the level `basic`,
 * which holds for every processor: batch normalization is folded into convolutions, `Constant` nodes become constants,
 * local functions become nodes.
 *
 * Names and order of inputs and outputs, metadata and the IR version stay. Where the runtime cannot say what it makes
 * of a model, or makes something that cannot be used elsewhere, the model comes back as it was.
 * @param warn hears what could not be done and why, one sentence each.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` if the model has its weights in other files; what the runtime
 * throws if it does not take the model.
 */
export async function prepareModel(
  given: ModelProto,
  runtime: Pick<OptimizeRuntime, 'description' | 'optimized'>,
  warn: (note: string) => void = () => {},
): Promise<ModelProto> {
  if (hasExternal(given)) {
    throw new ModelError(
      'ERR_INLAY_MODEL_UNSUPPORTED',
      'The model has weights in other files; load them into it with inlineExternal before it is prepared.',
    );
  }
  const model = carriedOver(given, warn);
  if (runtime.optimized === undefined) {
    warn(`The model is not prepared, since ${runtime.description} does not say how it rewrites models.`);
    return model;
  }
  const tidy = parseModel(await runtime.optimized(encodeModel(model), 'basic'));
  const fault = faultOf(model, tidy);
  if (fault !== undefined) {
    warn(`The model is not prepared, since what ${runtime.description} makes of it ${fault}.`);
    return model;
  }
  const { graph, opsetImport } = tidy;
  const used = new Set(Array.from(allNodes(tidy), domainOf));
  const before = new Set(model.opsetImport.map(domainOf));
  const { functions: _, ...rest } = model;
  return shareConstants({
    ...rest,
    graph: {
      ...graph,
      ...(model.graph.name !== undefined && { name: model.graph.name }),
      // The library leaves out what it knows by itself, such as names of axes.
      input: withDeclared(graph.input, model.graph.input),
      output: withDeclared(graph.output, model.graph.output),
    },
    opsetImport: opsetImport.filter((opset) => used.has(domainOf(opset)) || before.has(domainOf(opset))),
  });
}

/** Techniques take older models as well, as far as they go. */
function carriedOver(model: ModelProto, warn: (note: string) => void): ModelProto {
  try {
    return raiseOpset(model);
  } catch (error) {
    if (!isInlayError(error)) throw error;
    warn(error.message);
    return model;
  }
}

/** Why a rewritten model cannot stand in for the original. */
function faultOf(model: ModelProto, tidy: ModelProto): string | undefined {
  const names = (values: readonly ValueInfoProto[]): string => values.map(({ name }) => name).join('\n');
  if (names(feedsOf(model.graph)) !== names(feedsOf(tidy.graph))) return 'takes other inputs';
  if (names(model.graph.output) !== names(tidy.graph.output)) return 'gives other outputs';
  if (tidy.functions !== undefined && tidy.functions.length > 0) return 'still has local functions';
  if (hasExternal(tidy)) return 'has its weights in other files';
  for (const node of allNodes(tidy)) {
    if (domainOf(node).endsWith('.nchwc')) return 'is meant for this processor only';
  }
  return undefined;
}

function withDeclared(
  values: readonly ValueInfoProto[],
  declared: readonly ValueInfoProto[],
): readonly ValueInfoProto[] {
  const byName = new Map(declared.map((value) => [value.name, value]));
  return values.map((value) => byName.get(value.name) ?? value);
}

function hasExternal(model: ModelProto): boolean {
  for (const { initializer } of allGraphs(model)) if (initializer.some(isExternal)) return true;
  return false;
}

function domainOf({ domain = '' }: Pick<NodeProto, 'domain'>): string {
  return domain === 'ai.onnx' ? '' : domain;
}
