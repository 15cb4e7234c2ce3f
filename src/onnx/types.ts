/** Types of values as people and signatures see them. */
import { dtypeFromOnnx, type DType } from '../core/dtype.ts';
import type { Dimension } from '../core/signature.ts';
import type { GraphProto, TensorShapeProto, TypeProto, ValueInfoProto } from './messages.ts';

/** Type and shape of a value, as far as they are known. */
export interface ValueType {
  readonly dtype: DType;
  /** `null`: the rank is unknown. */
  readonly shape: readonly Dimension[] | null;
}

/** Types of values by name. */
export type ValueTypes = ReadonlyMap<string, ValueType>;

/** Shape of a type; `null`: rank unknown. Axes without a usable length or name are `null`. */
export function toShape(shape: TensorShapeProto | undefined): readonly Dimension[] | null {
  if (shape === undefined) return null;
  return shape.dim.map(({ dimValue, dimParam }) => {
    if (dimValue !== undefined && dimValue >= 0) return dimValue;
    return dimParam === undefined || dimParam === '' ? null : dimParam;
  });
}

/** Writes a type as operator schemas do: `float32`, `sequence(map(int64, float32))`. */
export function formatType(type: TypeProto | undefined): string {
  if (type?.tensorType) return formatDType(type.tensorType.elemType);
  if (type?.sparseTensorType) return `sparse(${formatDType(type.sparseTensorType.elemType)})`;
  if (type?.sequenceType) return `sequence(${formatType(type.sequenceType.elemType)})`;
  if (type?.optionalType) return `optional(${formatType(type.optionalType.elemType)})`;
  if (type?.mapType)
    return `map(${formatDType(type.mapType.keyType)}, ${formatType(type.mapType.valueType)})`;
  return type?.opaqueType ? 'opaque' : 'unknown';
}

function formatDType(elemType: number | undefined): DType | 'unknown' {
  return dtypeFromOnnx(elemType ?? 0) ?? 'unknown';
}

/** Inputs that a caller feeds: those without an initializer, which before IR version 4 had to be inputs too. */
export function feedsOf(graph: GraphProto): readonly ValueInfoProto[] {
  const constants = new Set([
    ...graph.initializer.map(({ name }) => name),
    ...(graph.sparseInitializer ?? []).map(({ values }) => values?.name),
  ]);
  return graph.input.filter(({ name }) => !constants.has(name));
}

/** Types that a graph states: of inputs, outputs, constants, and of the values between that it has notes on. */
export function declaredTypes(graph: GraphProto): ValueTypes {
  const types = new Map<string, ValueType>();
  for (const { name = '', type } of [...(graph.valueInfo ?? []), ...graph.output, ...graph.input]) {
    const dtype = dtypeFromOnnx(type?.tensorType?.elemType ?? 0);
    if (dtype !== undefined) types.set(name, { dtype, shape: toShape(type?.tensorType?.shape) });
  }
  for (const { name = '', dataType = 0, dims } of graph.initializer) {
    const dtype = dtypeFromOnnx(dataType);
    if (dtype !== undefined) types.set(name, { dtype, shape: dims });
  }
  return types;
}
