/** External data: constants whose elements are in another file (onnx docs/ExternalData.md). */
import { dtypeFromOnnx, sizeBytesOf } from '../core/dtype.ts';
import { ModelError } from '../core/errors.ts';
import type { ByteSource } from './lazy.ts';
import { allTensors, mapTensors } from './map-tensors.ts';
import type { ModelProto, TensorProto } from './messages.ts';
import {
  checkedReference,
  elementsOf,
  fromTensorProto,
  isExternal,
  toExternalFields,
  toTensorProto,
  type ExternalReference,
} from './tensors.ts';

/**
 * Gives the bytes that a reference stands for, exactly `lengthBytes` of them, now or later.
 * @param tensor Name of the constant, for errors.
 */
export type AsyncExternalResolver = (
  reference: ExternalReference,
  tensor: string,
) => Uint8Array | Promise<Uint8Array>;

/** How {@link moveExternal} chooses and places. */
export interface MoveOptions {
  /** Elements of fewer bytes stay in the model. Default 1,024, as the `onnx` package has it. */
  readonly fromBytes?: number;
}

/** A model that was taken apart. */
export interface MovedExternal {
  /** The data file: its pieces one after the other. Views of the model's constants, to be read only. */
  readonly pieces: readonly Uint8Array[];
  /** Bytes of the data file. 0: no constant is large enough. */
  readonly sizeBytes: number;
  /** The rest, for a data file of that name or relative path in the folder of the model. */
  toModel(location: string): ModelProto;
}

/** Readers map pages into memory, and pages have 4,096 bytes; smaller constants need not start one of their own. */
const PAGE_BYTES = 4096;
const PAGED_FROM_BYTES = 1 << 20;
/** No element is longer. */
const ALIGN_BYTES = 16;

/**
 * Fetches external data, so that the model stands alone. One constant after the other is resolved.
 * @returns the same model if none of its data is external.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` before anything is resolved if a reference leaves the folder, or
 * its length is not that of shape and dtype, and afterwards if the resolver gives another length;
 * `ERR_INLAY_MODEL_UNSUPPORTED` for an unknown dtype. What the resolver throws.
 */
export async function inlineExternal(model: ModelProto, resolve: AsyncExternalResolver): Promise<ModelProto> {
  const found = allTensors(model)
    .filter(isExternal)
    .map((tensor) => ({ tensor, reference: checkedReference(tensor) }));
  const inlined = new Map<TensorProto, TensorProto>();
  for (const { tensor, reference } of found) {
    const rawData = await resolveExactly(resolve, reference, tensor.name ?? '');
    inlined.set(tensor, { ...withoutElements(tensor), rawData });
  }
  return found.length === 0 ? model : mapTensors(model, (tensor) => inlined.get(tensor) ?? tensor);
}

/** Reads references to one source, whatever they call it: those of `parseStructure`. */
export function sourceResolver(source: ByteSource): AsyncExternalResolver {
  return ({ location, offsetBytes, lengthBytes }, tensor) => {
    if (offsetBytes + lengthBytes <= source.sizeBytes) return source.read(offsetBytes, lengthBytes);
    throw outsideFile(tensor, location, source.sizeBytes, offsetBytes + lengthBytes);
  };
}

/** The error for a reference that goes beyond the end of its file. */
export function outsideFile(
  tensor: string,
  location: string,
  sizeBytes: number,
  endBytes: number,
): ModelError {
  return new ModelError(
    'ERR_INLAY_MODEL_TRUNCATED',
    `The constant "${tensor}" goes up to byte ${endBytes} of "${location}", which has ${sizeBytes}; get that file again.`,
    { details: { tensor, location, sizeBytes } },
  );
}

/**
 * Moves the elements of initializers out of the model into one data file. What is external already stays where it is,
 * and so do strings and the constants of attributes, which inference libraries want inside. Nothing is copied but
 * elements that the model holds as a list of numbers of another type.
 * @throws {@link ModelError} as `fromTensorProto` does.
 */
export function moveExternal(model: ModelProto, { fromBytes = 1024 }: MoveOptions = {}): MovedExternal {
  const pieces: Uint8Array[] = [];
  const spans = new Map<TensorProto, { readonly offsetBytes: number; readonly lengthBytes: number }>();
  let sizeBytes = 0;
  mapTensors(model, (tensor, holder) => {
    const bytes = holder === 'GraphProto' && !spans.has(tensor) ? movable(tensor, fromBytes) : undefined;
    if (bytes === undefined) return tensor;
    const unit = bytes.length >= PAGED_FROM_BYTES ? PAGE_BYTES : ALIGN_BYTES;
    const offsetBytes = Math.ceil(sizeBytes / unit) * unit;
    if (offsetBytes > sizeBytes) pieces.push(new Uint8Array(offsetBytes - sizeBytes));
    pieces.push(bytes);
    spans.set(tensor, { offsetBytes, lengthBytes: bytes.length });
    sizeBytes = offsetBytes + bytes.length;
    return tensor;
  });
  return {
    pieces,
    sizeBytes,
    toModel: (location) =>
      mapTensors(model, (tensor) => {
        const span = spans.get(tensor);
        return span ? { ...withoutElements(tensor), ...toExternalFields({ location, ...span }) } : tensor;
      }),
  };
}

/** The elements of a constant, if they are many enough. */
function movable(tensor: TensorProto, fromBytes: number): Uint8Array | undefined {
  const dtype = dtypeFromOnnx(tensor.dataType ?? 0);
  if (dtype === undefined || dtype === 'string' || isExternal(tensor) || tensor.segment !== undefined) {
    return undefined;
  }
  const sizeBytes = sizeBytesOf(dtype, elementsOf(tensor));
  if (sizeBytes < Math.max(1, fromBytes)) return undefined;
  // Raw elements are not aligned, and need not be.
  if (tensor.rawData?.length === sizeBytes) return tensor.rawData;
  return toTensorProto('', fromTensorProto(tensor)).rawData;
}

/** A constant without its elements. */
function withoutElements(tensor: TensorProto): TensorProto {
  const { name, dims, dataType, segment, docString, metadataProps, unknown } = tensor;
  return {
    dims,
    ...(name !== undefined && { name }),
    ...(dataType !== undefined && { dataType }),
    ...(segment && { segment }),
    ...(docString !== undefined && { docString }),
    ...(metadataProps && { metadataProps }),
    ...(unknown && { unknown }),
  };
}

async function resolveExactly(
  resolve: AsyncExternalResolver,
  reference: ExternalReference,
  tensor: string,
): Promise<Uint8Array> {
  const bytes = await resolve(reference, tensor);
  if (bytes.length === reference.lengthBytes) return bytes;
  throw new ModelError(
    'ERR_INLAY_MODEL_INVALID',
    `The constant "${tensor}" needs ${reference.lengthBytes} bytes of "${reference.location}", but got ${bytes.length}.`,
    { details: { tensor, location: reference.location } },
  );
}
