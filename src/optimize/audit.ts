/** What onnxruntime made of a model, read from its own optimised graph: speed hangs on what it could fuse. */

import { encodeModel, parseModel } from '../onnx/model.ts';
import type { ModelProto, NodeProto } from '../onnx/messages.ts';
import { openBody, openScope, type Scope } from '../onnx/scope.ts';
import { bodiesOf } from '../onnx/walk.ts';
import { BackendError } from '../core/errors.ts';
import { originOf } from './audit-origin.ts';
import { FINDERS } from './audit-finders.ts';
import type { OptimizationLevel, OptimizeRuntime } from './runtime.ts';

/** What can be wrong with a node. */
export type FindingKind =
  /** A constant is dequantized at every run, since the node that reads it has no quantized kernel here. */
  | 'weight-dequantize'
  /** A product or convolution runs in float32 between quantized values. */
  | 'float-product'
  /** Another operator runs in float32 between quantized values. */
  | 'float-island'
  /** A convolution of integers with its Cast and Mul, for which there is no fused kernel. */
  | 'conv-integer'
  /** A product of integers with one scale for a batch, and the nodes that a fused kernel would do without. */
  | 'dynamic-product'
  /** A product of integers with a scale for each row: as written, there is no fused kernel. */
  | 'row-product'
  /** A product of blocks whose bias is added by a node of its own. */
  | 'block-bias'
  /** A product of blocks that is computed in float32. */
  | 'block-float'
  /** A conversion between float16 and float32 inside of the graph. */
  | 'float16-cast';

/** A node that did not become what it was meant to. */
export interface Finding {
  readonly kind: FindingKind;
  /** Name of the node, or of its first output, in the model as it was before onnxruntime rewrote it where that is known. */
  readonly node: string;
  /** Operator that runs. */
  readonly op: string;
  /** What it costs and why it came so, for people: one clause. */
  readonly reason: string;
  /** What to do about it, for people: one clause. */
  readonly remedy: string;
  /** Whether it is likely to make the model slower than it was in float32; otherwise it is less fast than it could be. */
  readonly isSlow: boolean;
}

/** Options of {@link auditModel}. */
export interface AuditOptions {
  /** How far the graph is rewritten. Default `all`, as apps do. */
  readonly level?: OptimizationLevel;
  /** The model that nodes are named after, such as that before a technique. Default: the one that is audited. */
  readonly original?: ModelProto;
}

/** What {@link auditModel} finds. */
export interface Audit {
  readonly level: OptimizationLevel;
  /** Operators that run and how often they are there, with their domains. */
  readonly operators: Readonly<Record<string, number>>;
  readonly findings: readonly Finding[];
}

/**
 * Names every node of an optimised graph that did not fuse. Linear in the size of the graph; bodies are looked into.
 * @param optimised - the graph as onnxruntime wrote it.
 * @param original - the model that it comes from, for the names of its nodes.
 */
export function auditGraph(optimised: ModelProto, original?: ModelProto): readonly Finding[] {
  const scope = openScope(optimised);
  const nameOf = originOf(original);
  const found: Finding[] = [];
  visit(scope, (graph) => {
    const seen = new Set<NodeProto>();
    for (const find of FINDERS) {
      for (const { node, ...finding } of find(graph)) {
        // The first reason that is found for a node explains the others.
        if (seen.has(node)) continue;
        seen.add(node);
        found.push({ ...finding, node: nameOf(node, graph), op: node.opType ?? '' });
      }
    }
  });
  return found;
}

/**
 * Lets a runtime optimise a model and audits the graph that it runs.
 * @throws {@link BackendError} `ERR_INLAY_BACKEND_UNAVAILABLE` if the runtime cannot say what it runs; what it throws for a
 * model that it does not take.
 */
export async function auditModel(
  model: ModelProto,
  runtime: OptimizeRuntime,
  { level = 'all', original = model }: AuditOptions = {},
): Promise<Audit> {
  if (runtime.optimized === undefined) {
    throw new BackendError(
      'ERR_INLAY_BACKEND_UNAVAILABLE',
      `The runtime for ${runtime.target} does not tell what it makes of a graph; audit with that of node-cpu.`,
      { details: { target: runtime.target } },
    );
  }
  const optimised = parseModel(await runtime.optimized(encodeModel(model), level));
  return { level, operators: countOperators(optimised), findings: auditGraph(optimised, original) };
}

function countOperators(model: ModelProto): Record<string, number> {
  const counts = new Map<string, number>();
  visit(openScope(model), ({ graph }) => {
    for (const { domain = '', opType = '' } of graph.node) {
      const name = domain === '' ? opType : `${domain}.${opType}`;
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
  });
  return Object.fromEntries([...counts].sort(([, a], [, b]) => b - a));
}

function visit(scope: Scope, see: (scope: Scope) => void): void {
  see(scope);
  for (const node of scope.graph.node) {
    for (const body of bodiesOf(node)) visit(openBody(body, scope), see);
  }
}
