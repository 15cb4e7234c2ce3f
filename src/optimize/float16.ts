/** Models in floats of 16 bits: half the size, and on processors without such kernels no faster. */

import { ModelError } from '../core/errors.ts';
import type { GraphProto, ModelProto, NodeProto } from '../onnx/messages.ts';
import { createNamer, namesOf } from '../onnx/names.ts';
import { opsetOf } from '../onnx/opset.ts';
import { labelOf } from '../onnx/scope.ts';
import { allNodes, bodiesOf } from '../onnx/walk.ts';
import { openDtypes, type Dtypes } from './float16-dtypes.ts';
import { convertGraph, type Conversion } from './float16-graph.ts';
import { isFloat32Input, whyFloat32 } from './float16-operators.ts';
import { isQuantizedOp } from './refusals.ts';
import {
  isExcluded,
  type Float16,
  type Rewritten,
  type NodeNote,
  type TechniqueOptions,
  type ValueTypes,
} from './technique.ts';

/** `Cast` names its type by number from this opset on. */
const LOWEST_OPSET = 6;

/**
 * Turns float32 constants and values of a model into float16, inside bodies as well.
 *
 * Operators without kernels for it stay float32 between `Cast` nodes, and so do nodes that are excluded and those with
 * values of an unknown type; constants that only they read stay float32. Constants beyond ±65504 are clamped, and small
 * ones do not become zero.
 * @param types those that {@link inferTypes} gives. Values that it lacks have the types that the file declares or that
 * follow from the operators.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` below opset 6, for weights in other files, and for models
 * that compute with integers (unless `isForced`), whose sums go beyond the range of float16.
 */
export function toFloat16(
  model: ModelProto,
  { keepsIo = true }: Float16,
  types: ValueTypes,
  options: TechniqueOptions = {},
): Rewritten {
  const opset = opsetOf(model) ?? 0;
  assertConvertible(model, opset, options);
  const dtypes = openDtypes(model.graph, (value) => types.get(value)?.dtype);
  const { reasons, halfRead, changed, kept } = plan(model.graph, dtypes, keepsIo, (node) => {
    if (isExcluded(node, options)) return 'it is excluded';
    return whyFloat32(node, opset);
  });
  const warnings: string[] = [];
  const conversion: Conversion = {
    isKept: (node) => reasons.has(node),
    isHalfRead: (value) => halfRead.has(value),
    keepsIo,
    irVersion: model.irVersion ?? 0,
    fresh: createNamer(namesOf(model)),
    warn: (warning) => void warnings.push(warning),
  };
  const graph = convertGraph(model.graph, dtypes, conversion);
  return { model: { ...model, graph }, changed, kept, warnings };
}

function assertConvertible(model: ModelProto, opset: number, { isForced = false }: TechniqueOptions): void {
  const refuse = (message: string, details: Readonly<Record<string, unknown>>): ModelError =>
    new ModelError('ERR_INLAY_MODEL_UNSUPPORTED', message, { details });
  if (opset < LOWEST_OPSET) {
    throw refuse(
      `The model is of opset ${opset}, but float16 needs at least ${LOWEST_OPSET}; export it anew with a later one.`,
      { opset },
    );
  }
  if (isForced) return;
  for (const node of allNodes(model)) {
    const { opType = '' } = node;
    // Weights in blocks are read with scales of either type; only sums of integers are too large.
    if (!isQuantizedOp(node) || /NBits$|^GatherBlock/.test(opType)) continue;
    throw refuse(
      `The model is quantized already: node "${labelOf(node)}" is ${opType}; start from the float model, or force it (isForced, --force).`,
      { node: labelOf(node), op: opType },
    );
  }
}

interface Plan {
  /** Why nodes stay float32. */
  readonly reasons: ReadonlyMap<NodeProto, string>;
  /** Values that are read as float16. */
  readonly halfRead: ReadonlySet<string>;
  readonly changed: readonly NodeNote[];
  readonly kept: readonly NodeNote[];
}

/** Decides about each node, those inside bodies included. */
function plan(
  main: GraphProto,
  mainDtypes: Dtypes,
  keepsIo: boolean,
  why: (node: NodeProto) => string | undefined,
): Plan {
  const reasons = new Map<NodeProto, string>();
  const halfRead = new Set<string>();
  const changed: NodeNote[] = [];
  const kept: NodeNote[] = [];
  const visit = (
    graph: GraphProto,
    dtypes: Dtypes,
    outerReason: string | undefined,
    isHalf: boolean,
  ): void => {
    for (const node of graph.node) {
      const isFloat = (value: string): boolean => dtypes.of(value) === 'float32';
      const bodies = bodiesOf(node);
      const reason = outerReason ?? why(node) ?? whyUnknown(node, dtypes);
      if (reason !== undefined) reasons.set(node, reason);
      if (node.opType !== 'Constant') {
        const note = { node: labelOf(node), op: node.opType ?? '' };
        if (reason === undefined && node.output.some(isFloat)) {
          changed.push({ ...note, reason: 'computes in float16' });
        }
        if (reason !== undefined && [...node.input, ...node.output].some(isFloat))
          kept.push({ ...note, reason });
      }
      if (reason === undefined) {
        node.input.forEach((value, index) => {
          if (isFloat(value) && !isFloat32Input(node, index)) halfRead.add(value);
        });
      }
      const inner = reason === undefined ? undefined : `it is inside ${labelOf(node)}, which stays float32`;
      for (const body of bodies) visit(body, dtypes.within(body), inner, reason === undefined);
    }
    if (!isHalf) return;
    for (const { name = '' } of graph.output) if (dtypes.of(name) === 'float32') halfRead.add(name);
  };
  visit(main, mainDtypes, undefined, !keepsIo);
  return { reasons, halfRead, changed, kept };
}

/** Nobody can tell what has to be cast around a node whose values are of unknown types. */
function whyUnknown(node: NodeProto, dtypes: Dtypes): string | undefined {
  const isUnknown = (value: string, within: Dtypes): boolean =>
    value !== '' && within.of(value) === undefined;
  for (const value of [...node.input, ...node.output]) {
    if (isUnknown(value, dtypes)) return `the type of "${value}" is not known`;
  }
  for (const body of bodiesOf(node)) {
    const within = dtypes.within(body);
    for (const { name = '' } of [...body.input, ...body.output]) {
      if (isUnknown(name, within)) return `the type of "${name}" inside it is not known`;
    }
  }
  return undefined;
}
