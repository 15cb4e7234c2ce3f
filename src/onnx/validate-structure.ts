/** Whether a model is well formed whose weights stayed where they are: one constant at a time is in memory. */

import type { AsyncExternalResolver } from './external.ts';
import { allTensors } from './map-tensors.ts';
import type { ModelProto, TensorProto } from './messages.ts';
import { checkedReference, isExternal, type ExternalReference } from './tensors.ts';
import { createTensorCheck } from './validate-tensors.ts';
import { validateModel, type Finding, type Problem } from './validate.ts';

/** Where the elements are that `parseStructure` left. */
export interface StructureFiles {
  /** What the model file is called, as it was said to `parseStructure`. */
  readonly location: string;
  /** Bytes of each file that is there, the model itself included. */
  readonly files: ReadonlyMap<string, number>;
  readonly resolve: AsyncExternalResolver;
}

/**
 * Finds what `validateModel` finds, in the elements of external data as well.
 * @returns errors and warnings in order of place; `offset` is the byte in the model file.
 * @throws what the resolver throws.
 */
export async function validateStructure(
  structure: ModelProto,
  { location, files, resolve }: StructureFiles,
): Promise<readonly Problem[]> {
  const judge = async (tensor: TensorProto): Promise<readonly Finding[]> => {
    const found: Finding[] = [];
    const { dense } = createTensorCheck(
      { files },
      ({ severity, code, message }) => void found.push({ severity, code, message }),
    );
    const left = leftIn(tensor, location, files);
    if (left === undefined) dense(tensor, '');
    if (found.length > 0) return found;
    const rawData = await resolve(left ?? checkedReference(tensor), tensor.name ?? '');
    dense({ ...tensor, dataLocation: 0, rawData }, '');
    return left === undefined ? found : found.map((one) => ({ ...one, offset: left.offsetBytes }));
  };
  const judged = new Map<TensorProto, readonly Finding[]>();
  for (const tensor of allTensors(structure).filter(isExternal)) judged.set(tensor, await judge(tensor));
  return validateModel(structure, { judged });
}

/** Which bytes of the model file a constant has: as many as there are, whatever its shape asks for. */
function leftIn(
  { externalData = [] }: TensorProto,
  location: string,
  files: ReadonlyMap<string, number>,
): ExternalReference | undefined {
  const entries = new Map(externalData.map(({ key, value }) => [key, value]));
  if (entries.get('location') !== location) return undefined;
  const [offsetBytes, lengthBytes] = ['offset', 'length'].map((key) => Number(entries.get(key))) as [
    number,
    number,
  ];
  return offsetBytes + lengthBytes <= (files.get(location) ?? 0)
    ? { location, offsetBytes, lengthBytes }
    : undefined;
}
