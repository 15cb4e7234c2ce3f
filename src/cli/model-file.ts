import * as fs from 'node:fs/promises';
import { basename } from 'node:path';
import { ModelError } from '../core/errors.ts';
import { inspectModel, type ModelReport } from '../onnx/inspect.ts';
import { parseStructure } from '../onnx/lazy.ts';
import { parseModel } from '../onnx/model.ts';
import { openModelFolder } from '../optimize-node/model-folder.ts';

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
    const content = await fs.readFile(path);
    bytes = new Uint8Array(content.buffer, content.byteOffset, content.byteLength);
  } catch (cause) {
    throw new ModelError('ERR_INLAY_MODEL_NOT_FOUND', `The model ${path} cannot be read; check the path.`, {
      cause,
    });
  }
  return { bytes, report: inspectModel(parseModel(bytes)) };
}

/** A model file whose weights stayed where they are. */
export interface InspectedFile {
  readonly sizeBytes: number;
  readonly report: ModelReport;
}

/**
 * Reads what a model file says of itself, but for large weights: also one of more than 2 GiB, and one whose external data
 * is not there.
 * @throws {@link ModelError} if it cannot be read or is no model.
 */
export async function inspectModelFile(path: string): Promise<InspectedFile> {
  const folder = openModelFolder(path, fs);
  try {
    const source = await folder.model();
    const location = basename(path);
    const report = inspectModel(await parseStructure(source, { location }));
    const externalFiles = report.externalFiles.filter((file) => file !== location);
    return { sizeBytes: source.sizeBytes, report: { ...report, externalFiles } };
  } finally {
    await folder.close();
  }
}
