/** The rewriting of graphs to floats of 16 bits, once it is decided which nodes stay float32. */

import { Tensor } from '../core/tensor.ts';
import type { AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto } from '../onnx/messages.ts';
import { toAttribute } from '../onnx/attributes.ts';
import { attributeOf, isStandardOp } from '../onnx/scope.ts';
import { toTensorProto } from '../onnx/tensors.ts';
import type { Dtypes } from './float16-dtypes.ts';
import { FLOAT, FLOAT16, isFloat32Input, isFloat32Output, typeAttributeOf } from './float16-operators.ts';
import { toHalfConstant } from './float16-words.ts';

/** What was decided. */
export interface Conversion {
  /** Whether a node stays float32, with the bodies that it carries. */
  isKept(node: NodeProto): boolean;
  /** Whether a value is read as float16 somewhere. */
  isHalfRead(value: string): boolean;
  /** Whether inputs and outputs of the model stay float32. */
  readonly keepsIo: boolean;
  readonly irVersion: number;
  /** Makes up a name. */
  fresh(stem: string): string;
  warn(warning: string): void;
}

/** A value of floats is there in one form or in both, each under a name of its own. */
type Form = 'half' | 'single';
type Names = { readonly [F in Form]?: string };

interface Frame {
  readonly dtypes: Dtypes;
  readonly outer: Frame | undefined;
  readonly forms: Map<string, Names>;
  readonly nodes: NodeProto[];
  /** Names that outputs of the model have to keep, and in which form. */
  readonly reserved: ReadonlyMap<string, Form>;
}

/** Rewrites the graph of a model. Casts stand before the first node that needs them. */
export function convertGraph(graph: GraphProto, dtypes: Dtypes, conversion: Conversion): GraphProto {
  const form: Form = conversion.keepsIo ? 'single' : 'half';
  const floats = graph.output.flatMap(({ name = '' }) => (dtypes.of(name) === 'float32' ? [name] : []));
  const reserved = new Map(floats.map((name) => [name, form]));
  return convert(
    graph,
    { dtypes, outer: undefined, forms: new Map(), nodes: [], reserved },
    form,
    conversion,
  );
}

/** @param form of inputs and outputs. */
function convert(graph: GraphProto, frame: Frame, form: Form, conversion: Conversion): GraphProto {
  const { dtypes, forms, nodes, reserved } = frame;
  const isFloat = (value: string): boolean => dtypes.of(value) === 'float32';
  const initializer = graph.initializer.map((constant): TensorProto => {
    const { name = '' } = constant;
    const isHalf = isFloat(name) && conversion.isHalfRead(name) && reserved.get(name) !== 'single';
    if (isFloat(name)) forms.set(name, isHalf ? { half: name } : { single: name });
    return isHalf ? toHalf(constant, name, conversion) : constant;
  });
  for (const { values } of graph.sparseInitializer ?? []) {
    const { name = '' } = values ?? {};
    if (isFloat(name)) forms.set(name, { single: name });
  }
  for (const { name = '' } of graph.input) {
    if (isFloat(name) && !forms.has(name)) forms.set(name, { [form]: name });
  }
  for (const node of graph.node) {
    nodes.push(
      conversion.isKept(node) || isSingle(node, conversion)
        ? keep(node, frame, conversion)
        : halve(node, frame, conversion),
    );
  }
  const output = graph.output.map((value): ValueInfoProto => {
    const { name = '' } = value;
    return isFloat(name) ? typed({ ...value, name: read(name, form, frame, conversion) }, form) : value;
  });
  return {
    ...graph,
    node: nodes,
    initializer,
    input: inputsOf(graph, frame, conversion),
    output,
    ...(graph.valueInfo && { valueInfo: graph.valueInfo.map((value) => typed(value, formOf(value, frame))) }),
  };
}

/** Constants of a model could be overridden by inputs; those of other types than before no longer are. */
function inputsOf(
  graph: GraphProto,
  frame: Frame,
  { irVersion, warn }: Conversion,
): readonly ValueInfoProto[] {
  const constants = new Set(graph.initializer.map(({ name }) => name));
  return graph.input.flatMap((value) => {
    const form = formOf(value, frame);
    // Before IR version 4 constants have to be inputs (onnx docs/IR.md).
    if (form !== 'half' || !constants.has(value.name) || irVersion < 4) return [typed(value, form)];
    warn(
      `The constant "${value.name ?? ''}" can no longer be overridden by an input, since it is float16 now.`,
    );
    return [];
  });
}

function formOf({ name = '' }: ValueInfoProto, { forms }: Frame): Form | undefined {
  const names = forms.get(name);
  return names?.half === name ? 'half' : names?.single === name ? 'single' : undefined;
}

function typed(value: ValueInfoProto, form: Form | undefined): ValueInfoProto {
  const { type } = value;
  if (form !== 'half' || type?.tensorType?.elemType !== FLOAT) return value;
  return { ...value, type: { ...type, tensorType: { ...type.tensorType, elemType: FLOAT16 } } };
}

/** What makes floats of something else stays float32 where nobody reads it as float16. */
function isSingle(node: NodeProto, { isHalfRead }: Conversion): boolean {
  const isSource = isStandardOp(node) && /^(Constant|Cast)$/.test(node.opType ?? '');
  return isSource && node.output.every((value) => !isHalfRead(value));
}

function keep(node: NodeProto, frame: Frame, conversion: Conversion): NodeProto {
  return {
    ...node,
    input: node.input.map((value) => read(value, 'single', frame, conversion)),
    attribute: withBodies(node, 'single', frame, conversion),
    output: node.output.map((value) => define(value, 'single', frame, conversion)),
  };
}

function halve(node: NodeProto, frame: Frame, conversion: Conversion): NodeProto {
  const isFloat = node.output.some((value) => frame.dtypes.of(value) === 'float32');
  const attribute = withBodies(node, 'half', frame, conversion).map((one): AttributeProto => {
    const { t, tensors } = one;
    const label = node.output[0] ?? '';
    if (t?.dataType === FLOAT) return { ...one, t: toHalf(t, label, conversion) };
    if (tensors === undefined) return one;
    return {
      ...one,
      tensors: tensors.map((tensor) =>
        tensor.dataType === FLOAT ? toHalf(tensor, label, conversion) : tensor,
      ),
    };
  });
  return {
    ...node,
    input: node.input.map((value, index) =>
      read(value, isFloat32Input(node, index) ? 'single' : 'half', frame, conversion),
    ),
    attribute: isFloat ? withTypes(node, attribute, conversion) : attribute,
    output: node.output.map((value, index) =>
      define(value, isFloat32Output(node, index) ? 'single' : 'half', frame, conversion),
    ),
  };
}

function withBodies(
  node: NodeProto,
  form: Form,
  frame: Frame,
  conversion: Conversion,
): readonly AttributeProto[] {
  const inside = (body: GraphProto): GraphProto =>
    convert(
      body,
      { dtypes: frame.dtypes.within(body), outer: frame, forms: new Map(), nodes: [], reserved: new Map() },
      form,
      conversion,
    );
  return node.attribute.map((one) => ({
    ...one,
    ...(one.g && { g: inside(one.g) }),
    ...(one.graphs && { graphs: one.graphs.map(inside) }),
  }));
}

/** Types that attributes name, and floats that they hold as numbers. */
function withTypes(
  node: NodeProto,
  attribute: readonly AttributeProto[],
  conversion: Conversion,
): readonly AttributeProto[] {
  const type = typeAttributeOf(node);
  if (type !== undefined) return replaced(attribute, type, toAttribute(type, FLOAT16));
  if (!isStandardOp(node) || attributeOf(node, 'value') !== undefined) return attribute;
  if (node.opType === 'ConstantOfShape') {
    return [...attribute, toAttribute('value', new Tensor('float16', [1], new Uint16Array(1)))];
  }
  if (node.opType !== 'Constant') return attribute;
  const { f, floats } = attribute.find(({ name = '' }) => name.startsWith('value_float')) ?? {};
  const values = floats ?? Float32Array.of(f ?? 0);
  const constant = toTensorProto(
    '',
    new Tensor('float32', floats === undefined ? [] : [values.length], values),
  );
  const value: AttributeProto = {
    ...toAttribute('value', ''),
    t: toHalf(constant, node.output[0] ?? '', conversion),
  };
  return [value];
}

function replaced(
  attribute: readonly AttributeProto[],
  name: string,
  by: AttributeProto,
): readonly AttributeProto[] {
  return [...attribute.filter((one) => one.name !== name), by];
}

/** Gives the name of a value in a form; casts it before the node that is under way if it is not there yet. */
function read(value: string, form: Form, frame: Frame, conversion: Conversion): string {
  if (value === '' || frame.dtypes.of(value) !== 'float32') return value;
  const other: Form = form === 'half' ? 'single' : 'half';
  let source: string | undefined;
  for (let at: Frame | undefined = frame; at !== undefined; at = at.outer) {
    const names = at.forms.get(value);
    const found = names?.[form];
    if (found !== undefined) return found;
    source ??= names?.[other];
  }
  // Nothing defines it: the model is at fault, and stays so.
  if (source === undefined) return value;
  const isPublic = frame.reserved.get(value) === form;
  const name = isPublic ? value : conversion.fresh(`${value}_${form === 'half' ? 'f16' : 'f32'}`);
  frame.nodes.push({
    input: [source],
    output: [name],
    name: conversion.fresh(`${name}_cast`),
    opType: 'Cast',
    attribute: [toAttribute('to', form === 'half' ? FLOAT16 : FLOAT)],
  });
  frame.forms.set(value, { ...frame.forms.get(value), [form]: name });
  return name;
}

/** Gives the name under which a node gives a value in a form. */
function define(value: string, form: Form, frame: Frame, conversion: Conversion): string {
  if (value === '' || frame.dtypes.of(value) !== 'float32') return value;
  const isFree = (frame.reserved.get(value) ?? form) === form;
  const name = isFree ? value : conversion.fresh(`${value}_${form === 'half' ? 'f16' : 'f32'}`);
  frame.forms.set(value, { [form]: name });
  return name;
}

function toHalf(constant: TensorProto, label: string, { warn }: Conversion): TensorProto {
  const half = toHalfConstant(constant);
  if (half.clamped > 0) {
    warn(`${half.clamped} elements of "${label}" were beyond ±65504, the range of float16, and are clamped.`);
  }
  return half.constant;
}
