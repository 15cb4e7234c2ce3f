/** Rewriting of the nodes that use weights, and what to tell of it. */

import type { ModelProto, NodeProto } from '../onnx/messages.ts';
import { rewriteModel, type Edit, type RewriteOptions } from '../onnx/rewrite.ts';
import { isStandardOp, labelOf } from '../onnx/scope.ts';
import { allGraphs, allNodes } from '../onnx/walk.ts';
import { transposedSource, type WeightUse } from './products.ts';
import { isExcluded, type NodeNote, type Rewritten, type TechniqueOptions } from './technique.ts';
import { createWeightReader, type Weights } from './weights.ts';

/** What becomes of a node: others in its place, or the reason why it stays. `undefined`: the technique is not for it. */
export type Outcome =
  | { readonly nodes: readonly NodeProto[]; readonly reason: string }
  | { readonly kept: string }
  | undefined;

/** What a rewriter of weights may do. */
export interface WeightEdit extends Edit {
  /**
   * Carries out `make` once for weights and a form of them, however many nodes use them. It does not keep the floats:
   * their memory is used again.
   */
  once<Value>(use: WeightUse, form: string, make: (weights: Weights) => Value): Value;
}

/** Rewriters by standard operator. */
export type WeightRewriters = Readonly<
  Record<string, ((node: NodeProto, edit: WeightEdit) => Outcome) | undefined>
>;

/**
 * Rewrites the nodes of some operators, but for those that are excluded. Float weights that nobody reads any more go,
 * one tensor at a time.
 */
export function rewriteWeights(
  model: ModelProto,
  rewriters: WeightRewriters,
  options: TechniqueOptions,
  rewriteOptions: RewriteOptions = {},
): Rewritten {
  const read = createWeightReader();
  const changed: NodeNote[] = [];
  const kept: NodeNote[] = [];
  const forms = new Map<string, Set<string>>();
  const overridable = new Set<string>();
  const transposed = new Set<string>();

  const rewritten = rewriteModel(
    model,
    (node, edit) => {
      const { opType: op = '' } = node;
      const rewrite = isStandardOp(node) && Object.hasOwn(rewriters, op) ? rewriters[op] : undefined;
      if (rewrite === undefined) return undefined;
      const once: WeightEdit['once'] = (use, form, make) => {
        forms.set(use.value, (forms.get(use.value) ?? new Set()).add(form));
        if (edit.scope.isInput(use.value)) overridable.add(use.value);
        return edit.derive(`${form} ${use.value}`, () => make(read(use.proto, use.value)));
      };
      const outcome = isExcluded(node, options)
        ? { kept: 'it is excluded' }
        : rewrite(node, { ...edit, once });
      if (outcome === undefined) return undefined;
      const [notes, reason] =
        'kept' in outcome ? ([kept, outcome.kept] as const) : ([changed, outcome.reason] as const);
      notes.push({ node: labelOf(node), op, reason });
      if ('kept' in outcome) return undefined;
      for (const value of node.input) {
        if (transposedSource(value, edit.scope) !== undefined) transposed.add(value);
      }
      return outcome.nodes;
    },
    rewriteOptions,
  );
  const swept = withoutUnread(rewritten, transposed);
  return {
    model: swept,
    changed,
    kept,
    warnings: [
      ...Array.from(
        overridable,
        (name) => `The weights "${name}" were an input as well; callers can no longer override them.`,
      ),
      ...warnOfCopies(swept, forms),
    ],
  };
}

/** Drops the nodes that give these values if nobody reads them. */
function withoutUnread(model: ModelProto, values: ReadonlySet<string>): ModelProto {
  if (values.size === 0) return model;
  return rewriteModel(model, ({ output }, { scope }) => {
    const [value = ''] = output;
    return values.has(value) && scope.readers(value).length === 0 && !scope.isOutput(value) ? [] : undefined;
  });
}

function warnOfCopies(model: ModelProto, forms: ReadonlyMap<string, ReadonlySet<string>>): string[] {
  return [
    ...Array.from(
      keptConstants(model, forms),
      ([name, reader]) => `The weights "${name}" are stored twice: quantized, and as floats for ${reader}.`,
    ),
    ...[...forms]
      .filter(([, { size }]) => size > 1)
      .map(
        ([name, list]) =>
          `The weights "${name}" are stored in ${list.size} quantized forms: ${[...list].join(', ')}.`,
      ),
  ];
}

/** Which of some constants a model still has, and who reads each of them, in words. */
export function keptConstants(
  model: ModelProto,
  names: Pick<ReadonlySet<string>, 'has'>,
): ReadonlyMap<string, string> {
  const found = new Set<string>();
  const note = (value: string): void => void (names.has(value) && found.add(value));
  for (const { initializer, output } of allGraphs(model)) {
    for (const { name = '' } of [...initializer, ...output]) note(name);
  }
  const readers = new Map<string, string>();
  for (const node of allNodes(model)) {
    for (const value of node.input)
      if (names.has(value) && !readers.has(value)) readers.set(value, `node "${labelOf(node)}"`);
    if (node.opType === 'Constant') note(node.output[0] ?? '');
  }
  return new Map(Array.from(found, (name) => [name, readers.get(name) ?? 'an output']));
}
