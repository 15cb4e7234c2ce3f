/** Gets the files of a model together: out of one archive, or from beside its `model.json`. */
import type { ModelSource } from '../core/backend.ts';
import { concatBytes } from '../core/bytes.ts';
import { isInlayError, ModelError } from '../core/errors.ts';
import {
  measureStrings,
  parseManifest,
  type Manifest,
  type WeightGroup,
  type WeightSpec,
} from './tfjs-manifest.ts';
import { isZip, listZip, type ZipEntry } from './tfjs-zip.ts';

/** How files are read that are not in the bytes of a model. */
export interface FileAccess {
  /** Reads a whole file. Absent where the runtime has no file system. */
  readonly readFile?: (path: string) => Promise<Uint8Array>;
  readonly fetch: (url: string, init?: RequestInit) => Promise<Response>;
  /** Largest weights of a model, in bytes. */
  readonly maxBytes: number;
}

/** A model as the library takes it. */
export interface ModelFiles extends Pick<Manifest, 'kind' | 'artifacts'> {
  readonly weightSpecs: readonly WeightSpec[];
  /** The bytes of all weights, in several buffers. */
  readonly weightData: readonly ArrayBuffer[];
}

/** Largest `model.json`, and largest files of a group whose size its manifest cannot tell. */
const MANIFEST_CAP_BYTES = 2 ** 26;
const STRINGS_CAP_BYTES = 2 ** 28;

/** Longest silence of a server, milliseconds. */
const SILENCE_MS = 20_000;

/** Reads one file of a model, of at most so many bytes. */
type Reader = (path: string, capBytes: number) => Promise<Uint8Array>;

/**
 * Reads a model: a ZIP archive of the folder with `model.json`, or `model.json` with its weights beside it.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_NOT_FOUND` for a missing file, `_TRUNCATED` for missing weights,
 * `_UNSUPPORTED` for dtypes that the library does not have and weights that are larger than wanted, `_INVALID` for everything else.
 */
export async function readModel(source: ModelSource, access: FileAccess): Promise<ModelFiles> {
  try {
    const bytes = source.path === undefined ? source.bytes : await readPath(access, source.path);
    if (!isZip(bytes)) return await assemble(parseManifest(bytes), readerBeside(source, access), access);
    const entries = listZip(bytes);
    const name = findManifest([...entries.keys()]);
    const folder = name.slice(0, name.lastIndexOf('/') + 1);
    const read = readerOf(entries, folder);
    const manifest = parseManifest(await read(name.slice(folder.length), MANIFEST_CAP_BYTES));
    return await assemble(manifest, read, access);
  } catch (cause) {
    if (isInlayError(cause)) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    const code = reason.endsWith('not supported') ? 'ERR_INLAY_MODEL_UNSUPPORTED' : 'ERR_INLAY_MODEL_INVALID';
    throw new ModelError(code, `${nameOf(source)} is no model of TensorFlow.js: ${reason}.`, { cause });
  }
}

/** A model as messages call it. */
export function nameOf(source: ModelSource): string {
  return source.path === undefined
    ? `The model of ${source.bytes.length} bytes`
    : `The model "${source.path}"`;
}

async function assemble(
  { kind, artifacts, groups }: Manifest,
  read: Reader,
  { maxBytes }: FileAccess,
): Promise<ModelFiles> {
  const sizeBytes = groups.reduce((sum, group) => sum + group.sizeBytes, 0);
  if (sizeBytes > maxBytes) {
    throw new ModelError(
      'ERR_INLAY_MODEL_UNSUPPORTED',
      `The weights that model.json describes have ${sizeBytes} bytes, and ${maxBytes} are taken at most; raise maxBytes, or use a smaller model.`,
      { details: { sizeBytes, maxBytes } },
    );
  }
  const weightData: ArrayBuffer[] = [];
  // Strings are not among what the manifest tells.
  let spareBytes = maxBytes - sizeBytes;
  for (const group of groups) {
    const files = await readGroup(group, read, group.sizeBytes + spareBytes);
    const length = files.reduce((sum, { byteLength }) => sum + byteLength, 0);
    spareBytes -= length - group.sizeBytes;
    weightData.push(...files);
  }
  return { kind, artifacts, weightSpecs: groups.flatMap(({ weights }) => weights), weightData };
}

async function readGroup(
  { paths, weights, sizeBytes, hasStrings }: WeightGroup,
  read: Reader,
  capBytes: number,
): Promise<ArrayBuffer[]> {
  const files: Uint8Array<ArrayBuffer>[] = [];
  let left = hasStrings ? Math.min(Math.max(sizeBytes, STRINGS_CAP_BYTES), capBytes) : sizeBytes;
  let length = 0;
  for (const path of paths) {
    const file = ownMemory(await read(path, left));
    files.push(file);
    length += file.length;
    left -= file.length;
  }
  const needed = hasStrings ? measureStrings(weights, concatBytes(files)) : sizeBytes;
  if (length !== needed) {
    const code = length < needed ? 'ERR_INLAY_MODEL_TRUNCATED' : 'ERR_INLAY_MODEL_INVALID';
    throw new ModelError(
      code,
      `The weights in ${paths.join(', ')} are ${length} bytes, but model.json describes ${needed}.`,
    );
  }
  return files.map(({ buffer }) => buffer);
}

/** The library takes whole buffers. */
function ownMemory(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes.buffer instanceof ArrayBuffer && bytes.buffer.byteLength === bytes.length
    ? new Uint8Array(bytes.buffer)
    : new Uint8Array(bytes);
}

/** The `model.json` that is highest up, or the only JSON file, as models are called that a browser saved. */
function findManifest(names: readonly string[]): string {
  const depth = (name: string): number => name.split('/').length;
  const [first] = names
    .filter((name) => /(^|\/)model\.json$/.test(name))
    .sort((a, b) => depth(a) - depth(b) || (a < b ? -1 : 1));
  const [only, ...others] = names.filter((name) => name.endsWith('.json'));
  const found = first ?? (others.length === 0 ? only : undefined);
  if (found === undefined) throw new RangeError('there is no model.json in the archive');
  return found;
}

function readerOf(entries: ReadonlyMap<string, ZipEntry>, folder: string): Reader {
  return async (path, capBytes) => {
    const entry = entries.get(folder + path);
    if (entry === undefined) throw missing(path, 'it is not in the archive');
    if (entry.sizeBytes > capBytes) throw tooLarge(path, capBytes);
    return entry.read();
  };
}

function readerBeside(source: ModelSource, { readFile, fetch }: FileAccess): Reader {
  const { path: at, url } = { url: undefined, ...source };
  if (at !== undefined && readFile !== undefined) {
    const folder = at.slice(0, Math.max(at.lastIndexOf('/'), at.lastIndexOf('\\')) + 1);
    return async (path, capBytes) => {
      const bytes = await readFile(folder + path).catch((cause: unknown) => {
        throw missing(path, 'it is not beside model.json', cause);
      });
      if (bytes.length > capBytes) throw tooLarge(path, capBytes);
      return bytes;
    };
  }
  if (url !== undefined && URL.canParse('.', url))
    return (path, capBytes) => fetchFile(fetch, new URL(path, url).href, path, capBytes);
  return (path) =>
    Promise.reject(missing(path, 'only model.json is given here; pack its folder into one ZIP archive'));
}

async function fetchFile(
  fetch: FileAccess['fetch'],
  url: string,
  path: string,
  capBytes: number,
): Promise<Uint8Array> {
  const controller = new AbortController();
  /** Waits for one step, also where `fetch` does not heed its signal. */
  const guarded = async <Result>(step: Promise<Result>): Promise<Result> => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const silence = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new Error(`no answer within ${SILENCE_MS} ms`));
      }, SILENCE_MS);
    });
    try {
      return await Promise.race([step, silence]);
    } catch (cause) {
      controller.abort();
      const reason = cause instanceof Error ? ` (${cause.message})` : '';
      throw missing(path, `${url} cannot be read${reason}`, cause);
    } finally {
      clearTimeout(timer);
    }
  };
  const response = await guarded(fetch(url, { signal: controller.signal }));
  if (!response.ok) {
    controller.abort();
    throw missing(path, `${url} is answered with status ${response.status}`);
  }
  const reader = response.body?.getReader();
  const parts: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    const next = reader && (await guarded(reader.read()));
    if (next === undefined || next.done) return concatBytes(parts);
    parts.push(next.value);
    length += next.value.length;
    if (length <= capBytes) continue;
    // Whether it ends in order is nothing to wait for.
    reader?.cancel().catch(() => {});
    controller.abort();
    throw tooLarge(path, capBytes);
  }
}

async function readPath({ readFile }: FileAccess, path: string): Promise<Uint8Array> {
  if (readFile === undefined) {
    throw new ModelError(
      'ERR_INLAY_MODEL_NOT_FOUND',
      `The model "${path}" cannot be read: there are no files here; pass "readFile".`,
    );
  }
  return readFile(path).catch((cause: unknown) => {
    throw new ModelError('ERR_INLAY_MODEL_NOT_FOUND', `There is no model file at ${path}.`, {
      cause,
      details: { path },
    });
  });
}

function missing(path: string, why: string, cause?: unknown): ModelError {
  return new ModelError('ERR_INLAY_MODEL_NOT_FOUND', `The weights "${path}" are missing: ${why}.`, {
    ...(cause !== undefined && { cause }),
    details: { path },
  });
}

function tooLarge(path: string, capBytes: number): RangeError {
  return new RangeError(`"${path}" is larger than the ${capBytes} bytes that are left for it`);
}
