/** The files of a release, as they lie on the publisher's disk. */

import { readFile, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { InputError, ModelError, StoreError } from '../core/errors.ts';
import { inspectModel, type ModelReport } from '../onnx/inspect.ts';
import { parseModel } from '../onnx/model.ts';
import { goldenFile, manifestFile, profileFile } from '../publish/manifest.ts';
import { nameLength } from '../publish/release.ts';
import type { ReleaseVariant } from '../publish/publisher.ts';
import { readProfile as parseProfile } from '../telemetry/profile-reader.ts';

const compress = promisify(gzip);

/**
 * Reads a model file.
 * @param variant what it is called; default: by the dtype of most of its weights.
 * @param isChecked whether it is to be tried out, which takes an ONNX model.
 * @throws {@link ModelError} if it cannot be read, or is no model of one file.
 */
export async function readReleaseFile(
  path: string,
  variant: string | undefined,
  isChecked: boolean,
): Promise<ReleaseVariant> {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    const content = await readFile(path);
    bytes = new Uint8Array(content.buffer, content.byteOffset, content.byteLength);
  } catch (cause) {
    throw new ModelError('ERR_INLAY_MODEL_NOT_FOUND', `The model ${path} cannot be read; check the path.`, {
      cause,
    });
  }
  if (bytes.length === 0) {
    throw new ModelError('ERR_INLAY_MODEL_INVALID', `The model ${path} is empty; export it anew.`);
  }
  const file = targetName(path, variant);
  if (isTfjs(bytes)) {
    if (!isChecked) return { variant: variant ?? 'fp32', file, bytes };
    throw new ModelError(
      'ERR_INLAY_MODEL_UNSUPPORTED',
      `The model ${path} is a TensorFlow.js model, which cannot be tried out here; test it in your app, and publish it with --no-check.`,
    );
  }
  const report = inspectModel(parseModel(bytes));
  if (report.externalFiles.length > 0) {
    throw new ModelError(
      'ERR_INLAY_MODEL_UNSUPPORTED',
      `The model keeps weights in other files (${report.externalFiles.join(', ')}); save it as one file.`,
    );
  }
  return { variant: variant ?? precisionOf(report), file, bytes };
}

/**
 * Reads a reference profile: nobody could count by one that is none.
 * @throws {@link InputError} if it cannot be read, {@link ModelError} `ERR_INLAY_MODEL_INVALID` if it is none.
 */
export async function readProfile(path: string): Promise<Uint8Array<ArrayBuffer>> {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = new Uint8Array(await readFile(path));
  } catch (cause) {
    throw new InputError('ERR_INLAY_FEED_VALUE', `The profile ${path} cannot be read; check the path.`, {
      cause,
    });
  }
  parseProfile(bytes);
  return bytes;
}

/**
 * Writes a reference profile down for its publisher.
 * @throws {@link StoreError} `ERR_INLAY_STORE_IO` if it cannot be written.
 */
export async function writeProfile(path: string, bytes: Uint8Array): Promise<void> {
  await writeFile(path, bytes).catch((cause: unknown) => {
    throw new StoreError(
      'ERR_INLAY_STORE_IO',
      `The profile cannot be written to ${path}; nothing was published. Choose another place.`,
      { cause },
    );
  });
}

/** Compresses as well as gzip can. The header says neither when nor on which system (RFC 1952 §2.3.1). */
export async function gzipBest(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const packed = new Uint8Array(await compress(bytes, { level: 9 }));
  packed.fill(0, 4, 8);
  packed[9] = 255;
  return packed;
}

/** An archive, or the JSON of a LayersModel. */
function isTfjs([first, second]: Uint8Array): boolean {
  return (first === 0x50 && second === 0x4b) || first === 0x7b;
}

const precisions: Readonly<Record<string, string>> = {
  float16: 'fp16',
  bfloat16: 'bf16',
  int8: 'int8',
  uint8: 'int8',
  int4: 'int4',
  uint4: 'int4',
};

function precisionOf({ parametersByDtype }: ModelReport): string {
  const [largest] = Object.entries(parametersByDtype).sort(([, a], [, b]) => b.sizeBytes - a.sizeBytes);
  return precisions[largest?.[0] ?? ''] ?? 'fp32';
}

/** Target paths are plain: lower case, no spaces. */
function targetName(path: string, variant: string | undefined): string {
  const prefix = variant === undefined ? '' : `${variant}-`;
  const plain = basename(path)
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, '-')
    .slice(prefix.length - nameLength)
    .replace(/^[^a-z0-9]+/, '');
  const name = `${prefix}${plain === '' ? 'model.onnx' : plain}`;
  return [manifestFile, goldenFile, profileFile].includes(name) ? `model-${name}` : name;
}
