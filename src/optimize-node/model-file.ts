/** Model files, with their external data. */
import * as nodeFs from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { ModelError } from '../core/errors.ts';
import { inlineExternal, moveExternal } from '../onnx/external.ts';
import { parseStructure } from '../onnx/lazy.ts';
import { allTensors } from '../onnx/map-tensors.ts';
import type { ModelProto, TensorProto } from '../onnx/messages.ts';
import { encodedSizeBytes, encodePieces } from '../onnx/pieces.ts';
import { externalReference, isExternal } from '../onnx/tensors.ts';
import { openModelFolder, type ReadableFile, type ReadableFileSystem } from './model-folder.ts';
import {
  replaceFile,
  stageFile,
  type StagedFile,
  type WritableFile,
  type WritableFileSystem,
} from './staged-file.ts';

/** The part of `node:fs/promises` that reads and writes model files. */
export interface ModelFileSystem extends ReadableFileSystem, WritableFileSystem {
  open(path: string, flags: 'r' | 'wx'): Promise<ReadableFile & WritableFile>;
}

/** How {@link openModelFile} reads. */
export interface OpenModelOptions {
  /**
   * `read`: the model is complete, external data included. `leave`: elements of large constants and external data stay
   * where they are, and the model refers to them. Default `read`.
   */
  readonly weights?: 'read' | 'leave';
  /** Default: that of Node. */
  readonly fs?: ReadableFileSystem;
}

/** A model from a file. */
export interface OpenedModel {
  readonly path: string;
  readonly model: ModelProto;
  /** Bytes of the file. */
  readonly sizeBytes: number;
  /** Bytes of the files with external data, by the relative path that the model calls them. */
  readonly files: ReadonlyMap<string, number>;
}

/** How {@link saveModelFile} writes. */
export interface SaveModelOptions {
  /**
   * Whether the elements of initializers go to a second file. `auto`: if the model would take more than
   * `splitFromBytes`. Default `auto`.
   */
  readonly external?: 'auto' | 'never' | 'always';
  /** Default 1.5 · 10⁹: onnxruntime refuses files of 2 GiB. */
  readonly splitFromBytes?: number;
  /** Default: that of Node. */
  readonly fs?: ModelFileSystem;
}

/** A file that was written. */
export interface SavedFile {
  readonly path: string;
  readonly sizeBytes: number;
  /** SHA-256 in lower-case hex. */
  readonly sha256: string;
}

/** A model that was written. */
export interface SavedModel extends SavedFile {
  /** The file with its external data, in the same folder. */
  readonly data?: SavedFile;
}

/**
 * Reads a model file. Each large constant gets memory of its own, so that its elements lie aligned, and files beyond
 * 2 GiB can be read as well.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_NOT_FOUND` if the file, or one that it names, cannot be read;
 * `ERR_INLAY_MODEL_INVALID` if it is no model, or names a file that is, links followed, not inside its folder;
 * `ERR_INLAY_MODEL_TRUNCATED` if a file ends early; `ERR_INLAY_MODEL_UNSUPPORTED` for an external dtype that is unknown.
 */
export async function openModelFile(
  path: string,
  { weights = 'read', fs = nodeFs }: OpenModelOptions = {},
): Promise<OpenedModel> {
  const folder = openModelFolder(path, fs);
  try {
    const source = await folder.model();
    const location = basename(path);
    const structure = await parseStructure(source, { location });
    const model = weights === 'read' ? await inlineExternal(structure, folder.resolve) : structure;
    const files = new Map<string, number>();
    for (const tensor of allTensors(structure)) {
      if (!isExternal(tensor) || isLeft(tensor, location)) continue;
      const { location: name } = externalReference(tensor);
      if (!files.has(name)) files.set(name, (await folder.file(name, tensor.name ?? '')).sizeBytes);
    }
    return { path, model, sizeBytes: source.sizeBytes, files };
  } finally {
    await folder.close();
  }
}

/**
 * Writes a model file and puts it in the place of what was there in one step: who opens it sees the old model or the new
 * one, also after a power cut. External data gets a file whose name tells its content, `<model>.<hash>.data`; such a
 * file of the model that was there is removed afterwards. If anything fails, what was there stays, and nothing else does.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` if the model refers to external data, which has to be read
 * first, or takes 2 GiB; {@link StoreError} `ERR_INLAY_STORE_FULL`, `_READ_ONLY` or `_IO` if it cannot be written.
 */
export async function saveModelFile(
  path: string,
  model: ModelProto,
  { external = 'auto', splitFromBytes = 1.5e9, fs = nodeFs }: SaveModelOptions = {},
): Promise<SavedModel> {
  assertComplete(model);
  const isSplit = external === 'always' || (external === 'auto' && encodedSizeBytes(model) > splitFromBytes);
  const moved = isSplit ? moveExternal(model) : undefined;
  const before = await dataFilesOf(path, fs);
  const saved: SavedModel =
    moved === undefined || moved.sizeBytes === 0
      ? toSaved(path, await replaceFile(fs, path, encodePieces(model)))
      : await saveSplit(path, moved, fs);
  for (const old of before) {
    if (old !== saved.data?.path) await fs.rm(old, { force: true }).catch(() => {});
  }
  return saved;
}

/** Whether the elements were left where they are, in the model file itself. */
function isLeft({ externalData }: TensorProto, location: string): boolean {
  return externalData?.some(({ key, value }) => key === 'location' && value === location) ?? false;
}

async function saveSplit(
  path: string,
  { pieces, toModel }: ReturnType<typeof moveExternal>,
  fs: ModelFileSystem,
): Promise<SavedModel> {
  const data = await stageFile(fs, path, pieces);
  try {
    const dataPath = `${path}.${data.sha256.slice(0, 12)}.data`;
    const file = await stageFile(fs, path, encodePieces(toModel(basename(dataPath))));
    try {
      await placeBoth(fs, { file, path }, { file: data, path: dataPath });
    } finally {
      await file.discard();
    }
    return { ...toSaved(path, file), data: toSaved(dataPath, data) };
  } finally {
    await data.discard();
  }
}

interface Placing {
  readonly file: StagedFile;
  readonly path: string;
}

/** Data first: what is there always has its data. */
async function placeBoth(fs: ModelFileSystem, model: Placing, data: Placing): Promise<void> {
  const wasThere = await fs.realpath(data.path).then(
    () => true,
    () => false,
  );
  try {
    await data.file.place(data.path);
    await model.file.place(model.path);
  } catch (error) {
    if (!wasThere && !model.file.isPlaced) await fs.rm(data.path, { force: true }).catch(() => {});
    throw error;
  }
}

function toSaved(path: string, { sizeBytes, sha256 }: StagedFile): SavedFile {
  return { path, sizeBytes, sha256 };
}

/** Data files that {@link saveModelFile} has written for the model that is there now. */
async function dataFilesOf(path: string, fs: ModelFileSystem): Promise<readonly string[]> {
  try {
    const { files } = await openModelFile(path, { weights: 'leave', fs });
    const start = `${basename(path)}.`;
    return [...files.keys()]
      .filter((name) => name.startsWith(start) && /^[0-9a-f]{12}\.data$/.test(name.slice(start.length)))
      .map((name) => join(dirname(path), name));
  } catch {
    // No model is there, or none whose data is known.
    return [];
  }
}

function assertComplete(model: ModelProto): void {
  const tensor = allTensors(model).find(isExternal);
  if (tensor === undefined) return;
  throw new ModelError(
    'ERR_INLAY_MODEL_UNSUPPORTED',
    `The constant "${tensor.name ?? ''}" is in another file, which the saved model would not find; read it with openModelFile or inlineExternal first.`,
    { details: { tensor: tensor.name ?? '' } },
  );
}
