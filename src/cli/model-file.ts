import { readFile } from 'node:fs/promises';
import { ModelError } from '../core/errors.ts';
import { inspectModel, type ModelReport } from '../onnx/inspect.ts';
import { parseModel } from '../onnx/model.ts';

/** A model file that was read and understood. */
export interface ModelFile {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly report: ModelReport;
}

/**
 * Reads a model file.
 * @throws {@link ModelError} if it cannot be read or is no model.
 */
export async function loadModelFile(path: string): Promise<ModelFile> {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    const content = await readFile(path);
    bytes = new Uint8Array(content.buffer, content.byteOffset, content.byteLength);
  } catch (cause) {
    throw new ModelError('ERR_INLAY_MODEL_NOT_FOUND', `The model ${path} cannot be read; check the path.`, {
      cause,
    });
  }
  return { bytes, report: inspectModel(parseModel(bytes)) };
}
