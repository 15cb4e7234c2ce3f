/** What is inside a model, as plain data. */
import { sizeBytesOf, type DType } from '../core/dtype.ts';
import type { Dimension } from '../core/signature.ts';
import type {
  AttributeProto,
  ModelProto,
  SparseTensorProto,
  TensorProto,
  ValueInfoProto,
} from './messages.ts';
import { dtypeOf, elementsOf, externalReference, isExternal } from './tensors.ts';
import { feedsOf, formatType, toShape } from './types.ts';
import { allGraphs, allNodes, bodiesOf } from './walk.ts';

/** An input or output. */
export interface ValueReport {
  readonly name: string;
  /** A dtype for tensors, else as operator schemas write it: `sequence(map(int64, float32))`. */
  readonly type: string;
  /** `null`: rank unknown, or no tensor. */
  readonly shape: readonly Dimension[] | null;
}

/** Constants of one dtype. */
export interface ParameterReport {
  readonly tensors: number;
  readonly elements: number;
  readonly sizeBytes: number;
}

/** What {@link inspectModel} finds. Records are in order of key. */
export interface ModelReport {
  readonly name: string;
  readonly irVersion: number | null;
  readonly producer: { readonly name: string; readonly version: string };
  /** Opset versions by domain; the standard operators are `ai.onnx`. */
  readonly opsets: Readonly<Record<string, number>>;
  /** Domains that nodes or opsets name and ONNX does not define. */
  readonly customDomains: readonly string[];
  readonly inputs: readonly ValueReport[];
  readonly outputs: readonly ValueReport[];
  /** Nodes by operator, bodies and functions included; operators of other domains as `domain::Name`. */
  readonly operators: Readonly<Record<string, number>>;
  readonly nodes: number;
  /** Bodies of `If`, `Loop` and `Scan` nodes. */
  readonly subgraphs: number;
  readonly functions: readonly string[];
  /** Initializers and constants of nodes, external ones included. */
  readonly parameters: ParameterReport;
  readonly parametersByDtype: Readonly<Partial<Record<DType, ParameterReport>>>;
  readonly externalFiles: readonly string[];
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * Counts what a model is made of. External data is not read: it counts by its length entry, or else by its shape.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` or `ERR_INLAY_MODEL_UNSUPPORTED` for a constant that has no
 * possible shape or known dtype.
 */
export function inspectModel(model: ModelProto): ModelReport {
  const operators = new Map<string, number>();
  const domains = new Set<string>();
  const opsets = new Map<string, number>();
  const parameters = createParameterCount();
  for (const { domain, version = 0 } of model.opsetImport) {
    opsets.set(domainName(domain), version);
    domains.add(domainName(domain));
  }
  let nodes = 0;
  let bodies = 0;
  for (const node of allNodes(model)) {
    nodes += 1;
    const domain = domainName(node.domain);
    domains.add(domain);
    const operator = domain === 'ai.onnx' ? (node.opType ?? '') : `${domain}::${node.opType ?? ''}`;
    operators.set(operator, (operators.get(operator) ?? 0) + 1);
    bodies += bodiesOf(node).length;
    if (operator === 'Constant') for (const attribute of node.attribute) parameters.addAttribute(attribute);
  }
  for (const { initializer, sparseInitializer = [] } of allGraphs(model)) {
    for (const tensor of initializer) parameters.addTensor(tensor);
    for (const tensor of sparseInitializer) parameters.addSparse(tensor);
  }
  return {
    name: model.graph.name ?? '',
    irVersion: model.irVersion ?? null,
    producer: { name: model.producerName ?? '', version: model.producerVersion ?? '' },
    opsets: toRecord(opsets),
    customDomains: [...domains].filter((domain) => !isStandard(domain)).sort(),
    inputs: feedsOf(model.graph).map(toReport),
    outputs: model.graph.output.map(toReport),
    operators: toRecord(operators),
    nodes,
    subgraphs: bodies,
    functions: (model.functions ?? []).map(({ domain, name = '' }) => `${domainName(domain)}::${name}`),
    ...parameters.finish(),
    metadata: toRecord(new Map(model.metadataProps?.map(({ key = '', value = '' }) => [key, value]))),
  };
}

interface ParameterCount {
  addTensor(tensor: TensorProto): void;
  addSparse(tensor: SparseTensorProto): void;
  addAttribute(attribute: AttributeProto): void;
  finish(): Pick<ModelReport, 'parameters' | 'parametersByDtype' | 'externalFiles'>;
}

function createParameterCount(): ParameterCount {
  const byDtype = new Map<DType, ParameterReport>();
  const files = new Set<string>();
  const add = (dtype: DType, elements: number, sizeBytes: number): void => {
    const before = byDtype.get(dtype) ?? nothing;
    byDtype.set(dtype, plus(before, { tensors: 1, elements, sizeBytes }));
  };
  const addTexts = (texts: readonly Uint8Array[], elements: number): void =>
    add(
      'string',
      elements,
      texts.reduce((sum, text) => sum + text.length, 0),
    );
  const addTensor = (tensor: TensorProto): void => {
    const dtype = dtypeOf(tensor);
    const elements = elementsOf(tensor);
    if (isExternal(tensor)) {
      const { location, lengthBytes } = externalReference(tensor);
      files.add(location);
      add(dtype, elements, lengthBytes);
    } else if (dtype === 'string') addTexts(tensor.stringData ?? [], elements);
    else add(dtype, elements, sizeBytesOf(dtype, elements));
  };
  const addSparse = ({ values, indices }: SparseTensorProto): void => {
    if (values) addTensor(values);
    if (indices) addTensor(indices);
  };
  return {
    addTensor,
    addSparse,
    addAttribute: ({ t, sparseTensor, f, floats, i, ints, s, strings }) => {
      if (t) addTensor(t);
      if (sparseTensor) addSparse(sparseTensor);
      if (f !== undefined) add('float32', 1, 4);
      if (floats) add('float32', floats.length, floats.byteLength);
      if (i !== undefined) add('int64', 1, 8);
      if (ints) add('int64', ints.length, ints.byteLength);
      if (s) addTexts([s], 1);
      if (strings) addTexts(strings, strings.length);
    },
    finish: () => ({
      parameters: [...byDtype.values()].reduce(plus, nothing),
      parametersByDtype: toRecord(byDtype),
      externalFiles: [...files].sort(),
    }),
  };
}

const nothing: ParameterReport = { tensors: 0, elements: 0, sizeBytes: 0 };

function plus(a: ParameterReport, b: ParameterReport): ParameterReport {
  return {
    tensors: a.tensors + b.tensors,
    elements: a.elements + b.elements,
    sizeBytes: a.sizeBytes + b.sizeBytes,
  };
}

function toReport({ name = '', type }: ValueInfoProto): ValueReport {
  const { shape } = type?.tensorType ?? type?.sparseTensorType ?? {};
  return { name, type: formatType(type), shape: toShape(shape) };
}

const domainName = (domain: string | undefined): string => domain || 'ai.onnx';

/** Domains of onnx docs/IR.md and those that ONNX itself releases. */
function isStandard(domain: string): boolean {
  return domain === 'ai.onnx' || domain.startsWith('ai.onnx.');
}

function toRecord<Key extends string, Value>(map: ReadonlyMap<Key, Value>): Record<Key, Value> {
  const entries = [...map].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return Object.fromEntries(entries) as Record<Key, Value>;
}
