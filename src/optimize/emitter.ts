/** Nodes that take the place of one. */

import { toAttribute, type AttributeValue } from '../onnx/attributes.ts';
import type { NodeProto } from '../onnx/messages.ts';
import type { Edit } from '../onnx/rewrite.ts';

/** Collects nodes in order, with names made up from that of the node that they replace. */
export interface Emitter {
  readonly nodes: NodeProto[];
  /** Adds a node with one output. @returns The output: `output`, or a name that is made up. */
  add(op: string, inputs: readonly string[], options?: EmitOptions): string;
  /** Adds a node with several outputs. @returns Their names, made up. */
  addMany(op: string, inputs: readonly string[], outputs: number): string[];
}

/** One node of a row of them: takes a value, and gives one of that name if it has one. */
export type Step = (value: string, output: string | undefined) => string;

/** Optional parts of a node. */
export interface EmitOptions {
  readonly attributes?: Readonly<Record<string, AttributeValue>>;
  readonly output?: string | undefined;
  readonly domain?: string;
}

/** Starts a list of nodes that are named after `label`. */
export function createEmitter({ fresh }: Pick<Edit, 'fresh'>, label: string): Emitter {
  const nodes: NodeProto[] = [];
  const push = (
    op: string,
    input: readonly string[],
    output: readonly string[],
    options: EmitOptions,
  ): void => {
    const { attributes = {}, domain } = options;
    nodes.push({
      input,
      output,
      name: fresh(`${label}_${op}`),
      opType: op,
      attribute: Object.entries(attributes).map(([name, value]) => toAttribute(name, value)),
      ...(domain !== undefined && { domain }),
    });
  };
  return {
    nodes,
    add: (op, inputs, options = {}) => {
      const { output = fresh(`${label}_${op}_output`) } = options;
      push(op, inputs, [output], options);
      return output;
    },
    addMany: (op, inputs, outputs) => {
      const names = Array.from({ length: outputs }, () => fresh(`${label}_${op}_output`));
      push(op, inputs, names, {});
      return names;
    },
  };
}

/** Adds nodes one after the other; the last gives `output`. */
export function addSteps(start: string, output: string, steps: readonly Step[]): void {
  steps.reduce((value, step, at) => step(value, at === steps.length - 1 ? output : undefined), start);
}
