/** Whether the nodes of a model fit together: names, order, scopes. */

import type { AttributeProto, FunctionProto, GraphProto, NodeProto } from './messages.ts';
import { definitionsOf } from './names.ts';
import { labelOf } from './scope.ts';
import { sortNodes } from './sort.ts';
import type { ArityCheck } from './validate-functions.ts';
import type { TensorCheck } from './validate-tensors.ts';
import type { Problem, Report } from './validate.ts';

/** What checks of graphs share. */
export interface GraphChecks {
  readonly report: Report;
  readonly checkTensor: TensorCheck;
  readonly checkArity: ArityCheck;
  /** Domains that nodes may use. */
  readonly opsets: ReadonlySet<string>;
}

/** Bodies inside of one another that a file can hold: each takes three of the 100 levels of messages. */
const MAX_BODIES = 31;

/** A graph on the way through its nodes. */
interface Frame {
  readonly path: string;
  /** Values that are defined so far. */
  readonly seen: Set<string>;
  /** Values that the graph defines anywhere. */
  readonly all: ReadonlySet<string>;
  readonly nodes: readonly NodeProto[];
  /** Whether nodes read each other in a circle; found out when it matters. */
  isCircular?: boolean;
  readonly outer: Frame | undefined;
  readonly depth: number;
  /** Names of attributes that nodes may refer to; absent outside of functions. */
  readonly parameters: ReadonlySet<string> | undefined;
}

/** Checks the graph of a model, with the bodies in it. */
export function checkGraph(graph: GraphProto, checks: GraphChecks): void {
  for (const [i, { name = '', type }] of graph.input.entries()) {
    if (type !== undefined) continue;
    checks.report(error('input-untyped', `graph.input[${i}]`, `the input "${name}" has no type`));
  }
  checkBody(graph, 'graph', undefined, checks);
}

/** Checks the nodes of a function. */
export function checkNodes(body: FunctionProto, path: string, checks: GraphChecks): void {
  const frame: Frame = {
    path,
    seen: new Set(body.input),
    all: new Set([...body.input, ...body.node.flatMap(({ output }) => output)]),
    nodes: body.node,
    outer: undefined,
    depth: 0,
    parameters: new Set([
      ...(body.attribute ?? []),
      ...(body.attributeProto ?? []).map(({ name = '' }) => name),
    ]),
  };
  walkNodes(frame, checks);
  for (const [i, name] of body.output.entries()) {
    if (frame.seen.has(name)) continue;
    checks.report(
      error('output-undefined', `${path}.output[${i}]`, `the output "${name}" is defined by no node`),
    );
  }
}

function checkBody(graph: GraphProto, path: string, outer: Frame | undefined, checks: GraphChecks): void {
  const { report, checkTensor } = checks;
  const frame: Frame = {
    path,
    seen: new Set(),
    all: definitionsOf(graph),
    nodes: graph.node,
    outer,
    depth: outer === undefined ? 0 : outer.depth + 1,
    parameters: outer?.parameters,
  };
  if (frame.depth > MAX_BODIES) {
    report(error('nesting', path, `bodies nest deeper than ${MAX_BODIES}, which no file can hold`));
    return;
  }
  for (const [i, { name = '' }] of graph.input.entries()) define(name, `${path}.input[${i}]`, frame, report);
  // A constant of an input's name is its default, and the same value; a second one is not.
  const defaults = new Set(frame.seen);
  const defineConstant = (name: string, at: string): void => {
    if (!defaults.delete(name)) define(name, at, frame, report);
  };
  for (const [i, tensor] of graph.initializer.entries()) {
    const at = `${path}.initializer[${i}]`;
    defineConstant(tensor.name ?? '', at);
    checkTensor.dense(tensor, at);
  }
  for (const [i, tensor] of (graph.sparseInitializer ?? []).entries()) {
    const at = `${path}.sparse_initializer[${i}]`;
    defineConstant(tensor.values?.name ?? '', at);
    checkTensor.sparse(tensor, at);
  }
  walkNodes(frame, checks);
  for (const [i, { name = '' }] of graph.output.entries()) {
    if (frame.seen.has(name)) continue;
    const at = `${path}.output[${i}]`;
    const why =
      lookup(name, outer) === 'seen'
        ? 'is a value from around the body; give it back through an Identity node'
        : 'is defined by no input, constant or node';
    report(error('output-undefined', at, `the output "${name}" ${why}`));
  }
}

function walkNodes(frame: Frame, checks: GraphChecks): void {
  const { nodes } = frame;
  const { report, checkArity, opsets } = checks;
  const names = new Set<string>();
  let unnamed = 0;
  for (const [i, node] of nodes.entries()) {
    const path = `${frame.path}.node[${i}]`;
    const { name = '', opType = '', domain } = node;
    const problem = (code: Problem['code'], at: string, message: string): void => {
      report(error(code, `${path}${at}`, `the node "${labelOf(node)}" ${message}`));
    };
    if (name === '') unnamed += 1;
    else if (names.has(name))
      problem('node-duplicate', '', 'has the name of another, which onnxruntime refuses');
    names.add(name);
    if (opType === '') problem('operator-missing', '', 'names no operator');
    if (!opsets.has(domain || 'ai.onnx')) {
      problem(
        'opset-missing',
        '',
        `is of the domain ${domain || 'ai.onnx'}, whose operator set is not imported`,
      );
    }
    for (const [k, value] of node.input.entries()) {
      const found = value === '' ? 'seen' : lookup(value, frame);
      if (found === undefined) {
        problem('value-unknown', `.input[${k}]`, `reads "${value}", which nothing defines`);
      } else if (found !== 'seen') {
        found.isCircular ??= sortNodes(found.nodes) === undefined;
        report({
          severity: found.isCircular ? 'error' : 'warning',
          code: found.isCircular ? 'value-circular' : 'value-unordered',
          path: `${path}.input[${k}]`,
          message: `the node "${labelOf(node)}" reads "${value}" before it is defined${found.isCircular ? ', and nodes read each other in a circle' : ''}`,
        });
      }
    }
    checkArity(node, path);
    walkAttributes(node, path, frame, checks);
    for (const [k, value] of node.output.entries()) {
      if (value !== '') define(value, `${path}.output[${k}]`, frame, report);
    }
  }
  if (unnamed > 0) {
    report({
      severity: 'warning',
      code: 'node-unnamed',
      path: `${frame.path}.node`,
      message: `${unnamed} of ${nodes.length} nodes have no name; options and reports name them by their first output`,
    });
  }
}

function walkAttributes(node: NodeProto, path: string, frame: Frame, checks: GraphChecks): void {
  const { report, checkTensor } = checks;
  const names = new Set<string>();
  for (const [i, attribute] of node.attribute.entries()) {
    const at = `${path}.attribute[${i}]`;
    const { name = '', refAttrName = '', t, tensors = [], sparseTensor, sparseTensors = [] } = attribute;
    if (names.has(name)) report(error('attribute-duplicate', at, `the attribute "${name}" comes twice`));
    names.add(name);
    if (refAttrName !== '' && !frame.parameters?.has(refAttrName)) {
      const where = frame.parameters ? 'the function does not have' : 'only functions may do';
      report(
        error(
          'attribute-reference',
          at,
          `"${name}" refers to the attribute "${refAttrName}", which ${where}`,
        ),
      );
    }
    if (t) checkTensor.dense(t, `${at}.t`);
    if (sparseTensor) checkTensor.sparse(sparseTensor, `${at}.sparse_tensor`);
    for (const [k, tensor] of tensors.entries()) checkTensor.dense(tensor, `${at}.tensors[${k}]`);
    for (const [k, tensor] of sparseTensors.entries()) {
      checkTensor.sparse(tensor, `${at}.sparse_tensors[${k}]`);
    }
    for (const [body, bodyPath] of bodiesIn(attribute, at)) checkBody(body, bodyPath, frame, checks);
  }
}

function bodiesIn(
  { g, graphs = [] }: AttributeProto,
  path: string,
): readonly (readonly [GraphProto, string])[] {
  const listed = graphs.map((body, k) => [body, `${path}.graphs[${k}]`] as const);
  return g ? [[g, `${path}.g`], ...listed] : listed;
}

function define(name: string, path: string, frame: Frame, report: Report): void {
  if (name === '') {
    report(error('value-unknown', path, 'the value has no name'));
  } else if (frame.seen.has(name)) {
    report(error('value-redefined', path, `"${name}" is defined already, and a value is defined once`));
  } else if (lookup(name, frame.outer) === 'seen') {
    report(error('value-shadowed', path, `"${name}" hides a value of the same name around the body`));
  }
  frame.seen.add(name);
}

/** Whether a value is there, from a graph outwards; if not, the graph that defines it later. */
function lookup(value: string, from: Frame | undefined): 'seen' | Frame | undefined {
  let later: Frame | undefined;
  for (let frame = from; frame !== undefined; frame = frame.outer) {
    if (frame.seen.has(value)) return 'seen';
    if (frame.all.has(value)) later ??= frame;
  }
  return later;
}

function error(code: Problem['code'], path: string, message: string): Problem {
  return { severity: 'error', code, path, message };
}
