/**
 * onnx.proto (IR version 14) as one table: field number, kind and mode of every field of every message, in order of
 * number, which is the order in which protobuf writes them. Nested messages of the original carry their own name
 * (`TypeProto.Tensor` is `TensorType`).
 */
import type { MessageName, Messages } from './messages.ts';
import { WIRE } from './wire.ts';

/** Kinds of single values. `size` is an int64 that is read as a number. */
export type ScalarKind = 'int32' | 'int64' | 'uint64' | 'size' | 'float' | 'double' | 'string' | 'bytes';
/** Kind of a field: a scalar or a message. */
export type Kind = ScalarKind | MessageName;
/**
 * `one`: at most one value · `oneof`: at most one among all `oneof` fields of its message · `many`: a list that is
 * always there · `some`: a list that is absent when empty · `packed`: `some`, written packed.
 */
export type Mode = 'one' | 'oneof' | 'many' | 'some' | 'packed';

/** A field of a message. */
export interface Field {
  readonly name: string;
  readonly number: number;
  readonly kind: Kind;
  readonly mode: Mode;
  readonly isList: boolean;
  /** Wire type of one value. */
  readonly wire: number;
}

type Row<Kinds, Modes> = readonly [number, Kinds, Modes];
type One<Kinds> = readonly [number, Kinds] | Row<Kinds, 'oneof'>;
type Some<Kinds> = Row<Kinds, 'some' | 'packed'>;
/** Which rows fit a property of a message, so that table and types cannot part. */
type RowOf<T> = T extends string
  ? One<'string'>
  : T extends number
    ? One<'int32' | 'size' | 'float' | 'double'>
    : T extends bigint
      ? One<'int64' | 'uint64'>
      : T extends Uint8Array
        ? One<'bytes'>
        : T extends Float32Array
          ? Some<'float'>
          : T extends Float64Array
            ? Some<'double'>
            : T extends Int32Array
              ? Some<'int32'>
              : T extends BigInt64Array
                ? Some<'int64'>
                : T extends BigUint64Array
                  ? Some<'uint64'>
                  : T extends readonly (infer Item)[]
                    ? Row<
                        Item extends string
                          ? 'string'
                          : Item extends number
                            ? 'size'
                            : Item extends Uint8Array
                              ? 'bytes'
                              : MessageName,
                        'many' | 'some'
                      >
                    : One<MessageName>;

type Rows<Name extends MessageName> = {
  readonly [F in Exclude<keyof Messages[Name], 'unknown'>]-?: RowOf<NonNullable<Messages[Name][F]>>;
};

const table: { readonly [Name in MessageName]: Rows<Name> } = {
  ModelProto: {
    irVersion: [1, 'size'],
    producerName: [2, 'string'],
    producerVersion: [3, 'string'],
    domain: [4, 'string'],
    modelVersion: [5, 'int64'],
    docString: [6, 'string'],
    graph: [7, 'GraphProto'],
    opsetImport: [8, 'OperatorSetIdProto', 'many'],
    metadataProps: [14, 'StringStringEntryProto', 'some'],
    trainingInfo: [20, 'TrainingInfoProto', 'some'],
    functions: [25, 'FunctionProto', 'some'],
    configuration: [26, 'DeviceConfigurationProto', 'some'],
  },
  OperatorSetIdProto: { domain: [1, 'string'], version: [2, 'size'] },
  GraphProto: {
    node: [1, 'NodeProto', 'many'],
    name: [2, 'string'],
    initializer: [5, 'TensorProto', 'many'],
    docString: [10, 'string'],
    input: [11, 'ValueInfoProto', 'many'],
    output: [12, 'ValueInfoProto', 'many'],
    valueInfo: [13, 'ValueInfoProto', 'some'],
    quantizationAnnotation: [14, 'TensorAnnotation', 'some'],
    sparseInitializer: [15, 'SparseTensorProto', 'some'],
    metadataProps: [16, 'StringStringEntryProto', 'some'],
  },
  NodeProto: {
    input: [1, 'string', 'many'],
    output: [2, 'string', 'many'],
    name: [3, 'string'],
    opType: [4, 'string'],
    attribute: [5, 'AttributeProto', 'many'],
    docString: [6, 'string'],
    domain: [7, 'string'],
    overload: [8, 'string'],
    metadataProps: [9, 'StringStringEntryProto', 'some'],
    deviceConfigurations: [10, 'NodeDeviceConfigurationProto', 'some'],
  },
  AttributeProto: {
    name: [1, 'string'],
    f: [2, 'float'],
    i: [3, 'int64'],
    s: [4, 'bytes'],
    t: [5, 'TensorProto'],
    g: [6, 'GraphProto'],
    floats: [7, 'float', 'some'],
    ints: [8, 'int64', 'some'],
    strings: [9, 'bytes', 'some'],
    tensors: [10, 'TensorProto', 'some'],
    graphs: [11, 'GraphProto', 'some'],
    docString: [13, 'string'],
    tp: [14, 'TypeProto'],
    typeProtos: [15, 'TypeProto', 'some'],
    type: [20, 'int32'],
    refAttrName: [21, 'string'],
    sparseTensor: [22, 'SparseTensorProto'],
    sparseTensors: [23, 'SparseTensorProto', 'some'],
  },
  TensorProto: {
    dims: [1, 'size', 'many'],
    dataType: [2, 'int32'],
    segment: [3, 'Segment'],
    floatData: [4, 'float', 'packed'],
    int32Data: [5, 'int32', 'packed'],
    stringData: [6, 'bytes', 'some'],
    int64Data: [7, 'int64', 'packed'],
    name: [8, 'string'],
    rawData: [9, 'bytes'],
    doubleData: [10, 'double', 'packed'],
    uint64Data: [11, 'uint64', 'packed'],
    docString: [12, 'string'],
    externalData: [13, 'StringStringEntryProto', 'some'],
    dataLocation: [14, 'int32'],
    metadataProps: [16, 'StringStringEntryProto', 'some'],
  },
  Segment: { begin: [1, 'int64'], end: [2, 'int64'] },
  SparseTensorProto: {
    values: [1, 'TensorProto'],
    indices: [2, 'TensorProto'],
    dims: [3, 'size', 'many'],
  },
  ValueInfoProto: {
    name: [1, 'string'],
    type: [2, 'TypeProto'],
    docString: [3, 'string'],
    metadataProps: [4, 'StringStringEntryProto', 'some'],
  },
  TypeProto: {
    tensorType: [1, 'TensorType', 'oneof'],
    sequenceType: [4, 'SequenceType', 'oneof'],
    mapType: [5, 'MapType', 'oneof'],
    denotation: [6, 'string'],
    opaqueType: [7, 'OpaqueType', 'oneof'],
    sparseTensorType: [8, 'SparseTensorType', 'oneof'],
    optionalType: [9, 'OptionalType', 'oneof'],
  },
  TensorType: { elemType: [1, 'int32'], shape: [2, 'TensorShapeProto'] },
  SparseTensorType: { elemType: [1, 'int32'], shape: [2, 'TensorShapeProto'] },
  SequenceType: { elemType: [1, 'TypeProto'] },
  MapType: { keyType: [1, 'int32'], valueType: [2, 'TypeProto'] },
  OptionalType: { elemType: [1, 'TypeProto'] },
  OpaqueType: { domain: [1, 'string'], name: [2, 'string'] },
  TensorShapeProto: { dim: [1, 'DimensionProto', 'many'] },
  DimensionProto: {
    dimValue: [1, 'size', 'oneof'],
    dimParam: [2, 'string', 'oneof'],
    denotation: [3, 'string'],
  },
  StringStringEntryProto: { key: [1, 'string'], value: [2, 'string'] },
  TensorAnnotation: {
    tensorName: [1, 'string'],
    quantParameterTensorNames: [2, 'StringStringEntryProto', 'some'],
  },
  FunctionProto: {
    name: [1, 'string'],
    input: [4, 'string', 'many'],
    output: [5, 'string', 'many'],
    attribute: [6, 'string', 'some'],
    node: [7, 'NodeProto', 'many'],
    docString: [8, 'string'],
    opsetImport: [9, 'OperatorSetIdProto', 'many'],
    domain: [10, 'string'],
    attributeProto: [11, 'AttributeProto', 'some'],
    valueInfo: [12, 'ValueInfoProto', 'some'],
    overload: [13, 'string'],
    metadataProps: [14, 'StringStringEntryProto', 'some'],
  },
  TrainingInfoProto: {
    initialization: [1, 'GraphProto'],
    algorithm: [2, 'GraphProto'],
    initializationBinding: [3, 'StringStringEntryProto', 'some'],
    updateBinding: [4, 'StringStringEntryProto', 'some'],
  },
  DeviceConfigurationProto: {
    name: [1, 'string'],
    numDevices: [2, 'int32'],
    device: [3, 'string', 'some'],
  },
  NodeDeviceConfigurationProto: {
    configurationId: [1, 'string'],
    shardingSpec: [2, 'ShardingSpecProto', 'some'],
    pipelineStage: [3, 'int32'],
  },
  ShardingSpecProto: {
    tensorName: [1, 'string'],
    device: [2, 'int64', 'some'],
    indexToDeviceGroupMap: [3, 'IntIntListEntryProto', 'some'],
    shardedDim: [4, 'ShardedDimProto', 'some'],
  },
  ShardedDimProto: { axis: [1, 'size'], simpleSharding: [2, 'SimpleShardedDimProto', 'some'] },
  SimpleShardedDimProto: {
    dimValue: [1, 'size', 'oneof'],
    dimParam: [2, 'string', 'oneof'],
    numShards: [3, 'size'],
  },
  IntIntListEntryProto: { key: [1, 'int64'], value: [2, 'int64', 'some'] },
};

/** Fields of every message in order of number. */
export const FIELDS: Readonly<Record<MessageName, readonly Field[]>> = /* @__PURE__ */ compile();

function compile(): Record<MessageName, readonly Field[]> {
  const wires: Partial<Record<Kind, number>> = {
    int32: WIRE.varint,
    int64: WIRE.varint,
    uint64: WIRE.varint,
    size: WIRE.varint,
    float: WIRE.fixed32,
    double: WIRE.fixed64,
  };
  const fields = Object.entries(table).map(([message, rows]) => [
    message,
    Object.entries<readonly [number, Kind, Mode?]>(rows).map(([name, [number, kind, mode = 'one']]) => ({
      name,
      number,
      kind,
      mode,
      isList: mode !== 'one' && mode !== 'oneof',
      wire: wires[kind] ?? WIRE.bytes,
    })),
  ]);
  return Object.fromEntries(fields) as Record<MessageName, readonly Field[]>;
}

/** Numbers of `AttributeProto.AttributeType`: which value of an attribute counts. */
export const ATTRIBUTE: {
  readonly float: 1;
  readonly int: 2;
  readonly string: 3;
  readonly tensor: 4;
  readonly graph: 5;
  readonly floats: 6;
  readonly ints: 7;
  readonly strings: 8;
  readonly tensors: 9;
  readonly graphs: 10;
  readonly sparseTensor: 11;
  readonly sparseTensors: 12;
  readonly typeProto: 13;
  readonly typeProtos: 14;
} = {
  float: 1,
  int: 2,
  string: 3,
  tensor: 4,
  graph: 5,
  floats: 6,
  ints: 7,
  strings: 8,
  tensors: 9,
  graphs: 10,
  sparseTensor: 11,
  sparseTensors: 12,
  typeProto: 13,
  typeProtos: 14,
};
