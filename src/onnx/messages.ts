/**
 * The messages of onnx.proto (IR version 14) as plain readonly data, with camel-case names. An absent optional field
 * is an absent property. Lists that every model has are always there; rare ones are absent when empty. 64-bit
 * integers are bigint, but lengths of axes and versions are numbers.
 */

/** What every message may carry. */
export interface Message {
  /** Fields that the schema does not know, each with its tag, as views. They are written back after the known ones. */
  readonly unknown?: readonly Uint8Array[];
}

/** A model: a graph, and the operator sets that give its nodes their meaning. */
export interface ModelProto extends Message {
  readonly irVersion?: number;
  readonly producerName?: string;
  readonly producerVersion?: string;
  readonly domain?: string;
  readonly modelVersion?: bigint;
  readonly docString?: string;
  readonly graph: GraphProto;
  readonly opsetImport: readonly OperatorSetIdProto[];
  readonly metadataProps?: readonly StringStringEntryProto[];
  readonly trainingInfo?: readonly TrainingInfoProto[];
  readonly functions?: readonly FunctionProto[];
  readonly configuration?: readonly DeviceConfigurationProto[];
}

/** An operator set that a model or function uses. */
export interface OperatorSetIdProto extends Message {
  /** `''` or absent: the standard operators. */
  readonly domain?: string;
  readonly version?: number;
}

/** Nodes in topological order, with their constants. */
export interface GraphProto extends Message {
  readonly node: readonly NodeProto[];
  readonly name?: string;
  readonly initializer: readonly TensorProto[];
  readonly docString?: string;
  readonly input: readonly ValueInfoProto[];
  readonly output: readonly ValueInfoProto[];
  readonly valueInfo?: readonly ValueInfoProto[];
  readonly quantizationAnnotation?: readonly TensorAnnotation[];
  readonly sparseInitializer?: readonly SparseTensorProto[];
  readonly metadataProps?: readonly StringStringEntryProto[];
}

/** One use of an operator. */
export interface NodeProto extends Message {
  /** Names of values; `''` omits an optional input. */
  readonly input: readonly string[];
  readonly output: readonly string[];
  readonly name?: string;
  readonly opType?: string;
  readonly attribute: readonly AttributeProto[];
  readonly docString?: string;
  readonly domain?: string;
  readonly overload?: string;
  readonly metadataProps?: readonly StringStringEntryProto[];
  readonly deviceConfigurations?: readonly NodeDeviceConfigurationProto[];
}

/** A named constant of a node. `type` says which of the values counts: see {@link ATTRIBUTE}. */
export interface AttributeProto extends Message {
  readonly name?: string;
  readonly f?: number;
  readonly i?: bigint;
  readonly s?: Uint8Array;
  readonly t?: TensorProto;
  readonly g?: GraphProto;
  readonly floats?: Float32Array;
  readonly ints?: BigInt64Array;
  readonly strings?: readonly Uint8Array[];
  readonly tensors?: readonly TensorProto[];
  readonly graphs?: readonly GraphProto[];
  readonly docString?: string;
  readonly tp?: TypeProto;
  readonly typeProtos?: readonly TypeProto[];
  readonly type?: number;
  readonly refAttrName?: string;
  readonly sparseTensor?: SparseTensorProto;
  readonly sparseTensors?: readonly SparseTensorProto[];
}

/** A constant array. `tensors.ts` turns it into a `Tensor` and back. */
export interface TensorProto extends Message {
  readonly dims: readonly number[];
  readonly dataType?: number;
  readonly segment?: Segment;
  readonly floatData?: Float32Array;
  readonly int32Data?: Int32Array;
  readonly stringData?: readonly Uint8Array[];
  readonly int64Data?: BigInt64Array;
  readonly name?: string;
  /** Little-endian elements, a view into the file. */
  readonly rawData?: Uint8Array;
  readonly doubleData?: Float64Array;
  readonly uint64Data?: BigUint64Array;
  readonly docString?: string;
  readonly externalData?: readonly StringStringEntryProto[];
  /** 1: the elements are in another file, see `externalData`. */
  readonly dataLocation?: number;
  readonly metadataProps?: readonly StringStringEntryProto[];
}

/** Part of a tensor that was split. */
export interface Segment extends Message {
  readonly begin?: bigint;
  readonly end?: bigint;
}

/** A constant array in coordinate form. `values.name` is its name. */
export interface SparseTensorProto extends Message {
  readonly values?: TensorProto;
  readonly indices?: TensorProto;
  readonly dims: readonly number[];
}

/** Name, type and shape of a value. */
export interface ValueInfoProto extends Message {
  readonly name?: string;
  readonly type?: TypeProto;
  readonly docString?: string;
  readonly metadataProps?: readonly StringStringEntryProto[];
}

/** A type. At most one of the kinds is there. */
export interface TypeProto extends Message {
  readonly tensorType?: TensorType;
  readonly sequenceType?: SequenceType;
  readonly mapType?: MapType;
  readonly denotation?: string;
  readonly opaqueType?: OpaqueType;
  readonly sparseTensorType?: SparseTensorType;
  readonly optionalType?: OptionalType;
}

/** Type of a tensor; no shape: the rank is unknown. */
export interface TensorType extends Message {
  readonly elemType?: number;
  readonly shape?: TensorShapeProto;
}

/** Type of a sparse tensor. */
export interface SparseTensorType extends Message {
  readonly elemType?: number;
  readonly shape?: TensorShapeProto;
}

/** Type of a sequence. */
export interface SequenceType extends Message {
  readonly elemType?: TypeProto;
}

/** Type of a map. */
export interface MapType extends Message {
  readonly keyType?: number;
  readonly valueType?: TypeProto;
}

/** Type of a value that may be missing. */
export interface OptionalType extends Message {
  readonly elemType?: TypeProto;
}

/** A type that only its domain understands. */
export interface OpaqueType extends Message {
  readonly domain?: string;
  readonly name?: string;
}

/** A shape, outermost axis first. */
export interface TensorShapeProto extends Message {
  readonly dim: readonly DimensionProto[];
}

/** An axis: a length, a name for a length, or neither. */
export interface DimensionProto extends Message {
  readonly dimValue?: number;
  readonly dimParam?: string;
  readonly denotation?: string;
}

/** A key and its value. */
export interface StringStringEntryProto extends Message {
  readonly key?: string;
  readonly value?: string;
}

/** Names of the quantization parameters of a value. */
export interface TensorAnnotation extends Message {
  readonly tensorName?: string;
  readonly quantParameterTensorNames?: readonly StringStringEntryProto[];
}

/** A function that nodes of the model call like an operator. */
export interface FunctionProto extends Message {
  readonly name?: string;
  readonly input: readonly string[];
  readonly output: readonly string[];
  readonly attribute?: readonly string[];
  readonly node: readonly NodeProto[];
  readonly docString?: string;
  readonly opsetImport: readonly OperatorSetIdProto[];
  readonly domain?: string;
  readonly attributeProto?: readonly AttributeProto[];
  readonly valueInfo?: readonly ValueInfoProto[];
  readonly overload?: string;
  readonly metadataProps?: readonly StringStringEntryProto[];
}

/** How a model is trained. */
export interface TrainingInfoProto extends Message {
  readonly initialization?: GraphProto;
  readonly algorithm?: GraphProto;
  readonly initializationBinding?: readonly StringStringEntryProto[];
  readonly updateBinding?: readonly StringStringEntryProto[];
}

/** Devices that a model can be spread over. */
export interface DeviceConfigurationProto extends Message {
  readonly name?: string;
  readonly numDevices?: number;
  readonly device?: readonly string[];
}

/** Where a node runs in one device configuration. */
export interface NodeDeviceConfigurationProto extends Message {
  readonly configurationId?: string;
  readonly shardingSpec?: readonly ShardingSpecProto[];
  readonly pipelineStage?: number;
}

/** How a tensor is split over devices. */
export interface ShardingSpecProto extends Message {
  readonly tensorName?: string;
  readonly device?: BigInt64Array;
  readonly indexToDeviceGroupMap?: readonly IntIntListEntryProto[];
  readonly shardedDim?: readonly ShardedDimProto[];
}

/** How one axis is split. */
export interface ShardedDimProto extends Message {
  readonly axis?: number;
  readonly simpleSharding?: readonly SimpleShardedDimProto[];
}

/** An even split of one axis. */
export interface SimpleShardedDimProto extends Message {
  readonly dimValue?: number;
  readonly dimParam?: string;
  readonly numShards?: number;
}

/** An integer and a list of integers. */
export interface IntIntListEntryProto extends Message {
  readonly key?: bigint;
  readonly value?: BigInt64Array;
}

/** Messages by name. */
export interface Messages {
  readonly ModelProto: ModelProto;
  readonly OperatorSetIdProto: OperatorSetIdProto;
  readonly GraphProto: GraphProto;
  readonly NodeProto: NodeProto;
  readonly AttributeProto: AttributeProto;
  readonly TensorProto: TensorProto;
  readonly Segment: Segment;
  readonly SparseTensorProto: SparseTensorProto;
  readonly ValueInfoProto: ValueInfoProto;
  readonly TypeProto: TypeProto;
  readonly TensorType: TensorType;
  readonly SparseTensorType: SparseTensorType;
  readonly SequenceType: SequenceType;
  readonly MapType: MapType;
  readonly OptionalType: OptionalType;
  readonly OpaqueType: OpaqueType;
  readonly TensorShapeProto: TensorShapeProto;
  readonly DimensionProto: DimensionProto;
  readonly StringStringEntryProto: StringStringEntryProto;
  readonly TensorAnnotation: TensorAnnotation;
  readonly FunctionProto: FunctionProto;
  readonly TrainingInfoProto: TrainingInfoProto;
  readonly DeviceConfigurationProto: DeviceConfigurationProto;
  readonly NodeDeviceConfigurationProto: NodeDeviceConfigurationProto;
  readonly ShardingSpecProto: ShardingSpecProto;
  readonly ShardedDimProto: ShardedDimProto;
  readonly SimpleShardedDimProto: SimpleShardedDimProto;
  readonly IntIntListEntryProto: IntIntListEntryProto;
}

/** Name of a message. */
export type MessageName = keyof Messages;
