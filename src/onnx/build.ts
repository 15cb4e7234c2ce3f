/** Builds a model from code. */
import { DTYPES, isDType, type DType } from '../core/dtype.ts';
import type { Dimension } from '../core/signature.ts';
import { Tensor } from '../core/tensor.ts';
import { toAttribute, type AttributeValue } from './attributes.ts';
import type {
  DimensionProto,
  GraphProto,
  ModelProto,
  NodeProto,
  OperatorSetIdProto,
  StringStringEntryProto,
  TensorProto,
  ValueInfoProto,
} from './messages.ts';
import { toTensorProto } from './tensors.ts';

/** What {@link createGraph} makes. */
export interface GraphOptions {
  readonly name: string;
  /** Version of the standard operators, or versions by domain: `{ '': 21, 'com.microsoft': 1 }`. */
  readonly opset: number | Readonly<Record<string, number>>;
  /** Default: the version that ONNX released together with the opset, at least 8. */
  readonly irVersion?: number;
  /** Default: `{ name: 'inlay' }`. */
  readonly producer?: { readonly name: string; readonly version?: string };
}

/** Optional parts of a node. */
export interface NodeOptions<Outputs = string | number | readonly string[]> {
  /** Names of the outputs, or how many to name. Default: one, named after the operator. */
  readonly outputs?: Outputs;
  /** Default: the standard operators. */
  readonly domain?: string;
  readonly name?: string;
}

/** Values, constants and nodes of one graph, in the order in which they are added. */
export interface GraphBuilder {
  /** Adds an input. @returns Its name. */
  input(name: string, dtype: DType, shape?: readonly Dimension[] | null): string;
  /** Declares an output: a value that exists when the graph is finished. */
  output(name: string, dtype: DType, shape?: readonly Dimension[] | null): string;
  /** Adds a constant to the graph. The tensor is not copied. @returns Its name. */
  initializer(name: string, tensor: Tensor): string;
  /** Adds a constant as a `Constant` node. The tensor is not copied. @returns Its name. */
  constant(name: string, tensor: Tensor): string;
  /**
   * Adds a node. `''` omits an optional input.
   * @returns Name of its output, or names if `outputs` is a number or a list.
   */
  node(
    op: string,
    inputs: readonly string[],
    attributes?: Attributes,
    options?: NodeOptions<string | undefined>,
  ): string;
  node(
    op: string,
    inputs: readonly string[],
    attributes: Attributes | undefined,
    options: NodeOptions<number | readonly string[]>,
  ): string[];
  /** Starts the body of an `If`, `Loop` or `Scan`; it sees the values of this graph, and is passed as an attribute. */
  subgraph(name: string): GraphBuilder;
  /** The graph so far. @throws RangeError if an output is no value of this graph. */
  toGraph(): GraphProto;
}

/** A graph that becomes a model. */
export interface ModelBuilder extends GraphBuilder {
  /** Adds an entry to the model's `metadata_props`. */
  metadata(key: string, value: string): void;
  /** The model so far, for `encodeModel`. @throws RangeError if an output is no value of the graph. */
  toModel(): ModelProto;
}

/** Attributes of a node by name; `undefined` ones are left out. */
export type Attributes = Readonly<Record<string, AttributeValue | undefined>>;

/** IR version that ONNX released with an opset (onnx docs/Versioning.md). */
const IR_OF_OPSET: readonly (readonly [number, number])[] = [
  [25, 13],
  [24, 12],
  [23, 11],
  [21, 10],
  [19, 9],
];

/**
 * Starts a graph. Wrong calls throw where they are made: `RangeError` for a name that is taken, unknown or empty,
 * `TypeError` for a dtype or attribute that ONNX does not have.
 *
 * @example
 * const graph = createGraph({ name: 'double', opset: 17 });
 * graph.input('x', 'float32', ['batch', 4]);
 * graph.initializer('two', tensorFrom('float32', 2));
 * graph.node('Mul', ['x', 'two'], {}, { outputs: 'y' });
 * graph.output('y', 'float32', ['batch', 4]);
 * const bytes = encodeModel(graph.toModel());
 */
export function createGraph(options: GraphOptions): ModelBuilder {
  const opsets = typeof options.opset === 'number' ? { '': options.opset } : options.opset;
  for (const [domain, version] of Object.entries(opsets)) {
    if (!Number.isSafeInteger(version) || version < 1) {
      throw new RangeError(`The opset of "${domain}" is a positive integer, got ${version}.`);
    }
  }
  const opset = opsets[''] ?? opsets['ai.onnx'] ?? 0;
  const metadata = new Map<string, string>();
  const { name: producerName, version: producerVersion } = options.producer ?? { name: 'inlay' };
  const graph = createBuilder(options.name, {
    isTaken: () => false,
    hasDomain: (domain) => Object.hasOwn(opsets, domain) || Object.hasOwn(opsets, domain || 'ai.onnx'),
    counter: { next: 0 },
  });
  return {
    ...graph,
    metadata: (key, value) => {
      if (metadata.has(key)) throw new RangeError(`The model has metadata "${key}" already.`);
      metadata.set(key, value);
    },
    toModel: () => ({
      irVersion: options.irVersion ?? IR_OF_OPSET.find(([from]) => opset >= from)?.[1] ?? 8,
      producerName,
      ...(producerVersion !== undefined && { producerVersion }),
      graph: graph.toGraph(),
      opsetImport: Object.entries(opsets).map(([domain, version]): OperatorSetIdProto => ({
        domain,
        version,
      })),
      ...(metadata.size > 0 && {
        metadataProps: Array.from(metadata, ([key, value]): StringStringEntryProto => ({ key, value })),
      }),
    }),
  };
}

/** What a graph shares with those around it. */
interface Scope {
  /** Tells whether an outer graph has a value of this name. */
  isTaken(name: string): boolean;
  hasDomain(domain: string): boolean;
  /** Numbers the names that are made up. */
  readonly counter: { next: number };
}

function createBuilder(graphName: string, scope: Scope): GraphBuilder {
  const values = new Set<string>();
  const nodeNames = new Set<string>();
  const nodes: NodeProto[] = [];
  const initializers: TensorProto[] = [];
  const inputs: ValueInfoProto[] = [];
  const outputs = new Map<string, ValueInfoProto>();

  const isTaken = (name: string): boolean => values.has(name) || scope.isTaken(name);
  const define = (name: string): string => {
    if (name === '') throw new RangeError('The name of a value is not empty.');
    if (isTaken(name)) throw new RangeError(`The graph has a value named "${name}" already.`);
    values.add(name);
    return name;
  };
  const freshName = (stem: string): string => {
    for (;;) {
      const name = `${stem}_${scope.counter.next}`;
      scope.counter.next += 1;
      if (!isTaken(name) && !nodeNames.has(name)) return name;
    }
  };

  const addNode = (
    op: string,
    nodeInputs: readonly string[],
    attributes: Attributes = {},
    options: NodeOptions = {},
  ): string[] => {
    if (op === '') throw new RangeError('The name of an operator is not empty.');
    const { domain = '', name = freshName(op), outputs: wanted = 1 } = options;
    if (!scope.hasDomain(domain)) {
      throw new RangeError(`Operator ${op} is of the domain "${domain}", for which the graph has no opset.`);
    }
    for (const input of nodeInputs) {
      if (input !== '' && !isTaken(input)) {
        throw new RangeError(
          `Operator ${op} takes "${input}", which no input, constant or earlier node defines.`,
        );
      }
    }
    if (nodeNames.has(name)) throw new RangeError(`The graph has a node named "${name}" already.`);
    const attribute = Object.entries(attributes).flatMap(([key, value]) =>
      value === undefined ? [] : [toAttribute(key, value)],
    );
    const names =
      typeof wanted === 'number'
        ? Array.from({ length: wanted }, () => freshName(op))
        : typeof wanted === 'string'
          ? [wanted]
          : [...wanted];
    // '' leaves an optional output out.
    for (const output of names) if (output !== '' || names.length === 1) define(output);
    nodeNames.add(name);
    nodes.push({
      input: [...nodeInputs],
      output: names,
      name,
      opType: op,
      attribute,
      ...(domain !== '' && { domain }),
    });
    return names;
  };

  function node(
    op: string,
    nodeInputs: readonly string[],
    attributes?: Attributes,
    options?: NodeOptions<string | undefined>,
  ): string;
  function node(
    op: string,
    nodeInputs: readonly string[],
    attributes: Attributes | undefined,
    options: NodeOptions<number | readonly string[]>,
  ): string[];
  function node(
    op: string,
    nodeInputs: readonly string[],
    attributes?: Attributes,
    options?: NodeOptions<string | number | readonly string[] | undefined>,
  ): string | string[] {
    const { outputs: wanted, ...rest } = options ?? {};
    const names = addNode(op, nodeInputs, attributes, { ...rest, outputs: wanted ?? 1 });
    return typeof wanted === 'object' || typeof wanted === 'number' ? names : (names[0] as string);
  }

  const toGraph = (): GraphProto => {
    for (const name of outputs.keys()) {
      if (!values.has(name)) throw new RangeError(`The output "${name}" is not a value of this graph.`);
    }
    return {
      node: [...nodes],
      name: graphName,
      initializer: [...initializers],
      input: [...inputs],
      output: [...outputs.values()],
    };
  };

  return {
    input: (name, dtype, shape = null) => {
      const info = toValueInfo(name, dtype, shape);
      define(name);
      inputs.push(info);
      return name;
    },
    output: (name, dtype, shape = null) => {
      if (outputs.has(name)) throw new RangeError(`The graph has an output named "${name}" already.`);
      outputs.set(name, toValueInfo(name, dtype, shape));
      return name;
    },
    initializer: (name, tensor) => {
      if (!(tensor instanceof Tensor)) throw new TypeError(`The constant "${name}" is not a Tensor.`);
      initializers.push(toTensorProto(define(name), tensor));
      return name;
    },
    constant: (name, tensor) => {
      addNode('Constant', [], { value: tensor }, { outputs: name });
      return name;
    },
    node,
    subgraph: (name) => createBuilder(name, { ...scope, isTaken }),
    toGraph,
  };
}

function toValueInfo(name: string, dtype: DType, shape: readonly Dimension[] | null): ValueInfoProto {
  if (!isDType(dtype))
    throw new TypeError(`The value "${name}" has the dtype "${String(dtype)}", which ONNX has not.`);
  return {
    name,
    type: {
      tensorType: {
        elemType: DTYPES[dtype].onnx,
        ...(shape !== null && { shape: { dim: shape.map((dimension) => toDimension(name, dimension)) } }),
      },
    },
  };
}

function toDimension(name: string, dimension: Dimension): DimensionProto {
  if (dimension === null) return {};
  if (typeof dimension === 'string') return { dimParam: dimension };
  if (!Number.isSafeInteger(dimension) || dimension < 0) {
    throw new RangeError(
      `An axis of "${name}" has the length ${dimension}; a length is a non-negative integer.`,
    );
  }
  return { dimValue: dimension };
}
