/**
 * The manifest of a release: which files it has, and the ways in which each can be had. It is a target of its own
 * (`models/<model>/<seq>/release.json`), so path, length and hash of everything here are signed offline.
 */

import { TrustError } from '../core/errors.ts';
import { parseStrictJson } from '../trust/canonical-json.ts';
import { isFields, isSize, type Fields } from '../trust/parse.ts';

/** A file on the server that is named by content: a target of the release. */
export interface FileRef {
  /** Target path. */
  readonly path: string;
  /** Lower-case hex. */
  readonly sha256: string;
  /** Bytes. */
  readonly length: number;
}

/**
 * One way to have a file. `full` is the file itself. `compressed` is the file coded by itself: with gzip, or as a patch of
 * Inlay's own format that starts from nothing. `patch` makes it out of another file that the device may have. `hop` is a
 * patch of an earlier release, and makes a file of that release, from which others lead on.
 */
export type Way = FileRef &
  (
    | { readonly kind: 'full' }
    | { readonly kind: 'compressed'; readonly codec: 'gzip' | 'idp' }
    | {
        readonly kind: 'patch';
        /** Name of the {@link Patcher} that applies it. */
        readonly codec: string;
        /** SHA-256 of the file that it starts from. */
        readonly from: string;
      }
    | {
        readonly kind: 'hop';
        readonly codec: string;
        readonly from: string;
        /** What it makes. */
        readonly to: FileContent;
      }
  );

/** A file by its content. */
export type FileContent = Pick<FileRef, 'sha256' | 'length'>;

/** One variant of the model: the same answers from other weights. */
export interface ReleaseFile extends FileRef {
  /** `fp32`, `int8` … */
  readonly variant: string;
  /** What a device must have for it: names of execution providers, one of which is enough, and their features. */
  readonly requires?: { readonly providers?: readonly string[]; readonly features?: readonly string[] };
  /** How far its answers may lie from the golden ones. Default: that of `golden`. */
  readonly tolerance?: GoldenTolerance;
  /** SHA-256 of each piece of `size` bytes, the last one shorter, as one text of hex digits. */
  readonly chunks: { readonly size: number; readonly sha256: string };
  /** Other ways than the whole file, which is always there. */
  readonly ways?: readonly Way[];
  /** The file of an earlier release that this one was rounded around, and that the patches to come start from. */
  readonly anchor?: FileContent;
}

/** How far an answer may lie from the golden one: |a − b| ≤ absolute + relative · |b|, in millionths. */
export interface GoldenTolerance {
  readonly absoluteE6: number;
  readonly relativeE6: number;
}

/** A release, as the publisher signed it. */
export interface ReleaseManifest {
  readonly v: 1;
  readonly model: string;
  readonly version: string;
  readonly seq: number;
  /**
   * The reference first: the file that plans name. Devices take the first of the others whose needs they meet, and the
   * reference where none is left.
   */
  readonly files: readonly [ReleaseFile, ...ReleaseFile[]];
  /** Inputs and the outputs that they must give (`update/golden.ts`). */
  readonly golden?: FileRef & { readonly tolerance: GoldenTolerance };
  /** What the model sees and gives in the publisher's data, for drift. */
  readonly profile?: FileRef;
}

/** Most pieces that a file may have: their hashes are read before it is. */
const maxChunks = 65_536;
/** Sizes of pieces, bytes: two of them lie in memory. */
const chunkSizes = { min: 1024, max: 16_777_216 };
/** Most files, ways of a file, and names in a list. */
export const maxItems = 64;

/**
 * Reads a manifest. What it does not know is left out, ways of a kind that it does not know as well: a later publisher
 * may offer more.
 * @throws {@link TrustError} `ERR_INLAY_METADATA_INVALID`
 */
export function readManifest(bytes: Uint8Array): ReleaseManifest {
  const { v, model, version, seq, files, golden, profile } = fieldsOf(parseStrictJson(bytes), 'manifest');
  demand(v === 1, 'v', 'is not 1');
  const release = {
    v: 1 as const,
    model: textOf(model, 'model', /^[a-z0-9][a-z0-9._-]{0,127}$/),
    version: textOf(version, 'version', /^[!-~]{1,128}$/),
    seq: numberOf(seq, 'seq', 1),
  };
  const folder = `models/${release.model}/${release.seq}/`;
  const [first, ...others] = listOf(files, 'files').map((file, i) => fileOf(file, `files[${i}]`, folder));
  if (first === undefined) return invalid('files', 'is empty');
  assertUnique([first, ...others], 'variant');
  assertUnique([first, ...others], 'path');
  return {
    ...release,
    files: [first, ...others],
    ...(golden !== undefined && { golden: goldenOf(fieldsOf(golden, 'golden'), folder) }),
    ...(profile !== undefined && { profile: refOf(fieldsOf(profile, 'profile'), 'profile', folder) }),
  };
}

function fileOf(value: unknown, where: string, folder: string): ReleaseFile {
  const file = fieldsOf(value, where);
  const { variant, requires, tolerance, ways, anchor } = file;
  const ref = refOf(file, where, folder);
  return {
    ...ref,
    variant: textOf(variant, `${where}.variant`, /^[!-~]{1,128}$/),
    ...(requires !== undefined && { requires: needsOf(requires, `${where}.requires`) }),
    ...(tolerance !== undefined && { tolerance: toleranceOf(tolerance, `${where}.tolerance`) }),
    chunks: chunksOf(file['chunks'], `${where}.chunks`, ref.length),
    ...(ways !== undefined && {
      ways: listOf(ways, `${where}.ways`).flatMap((way, i) => wayOf(way, `${where}.ways[${i}]`, folder, ref)),
    }),
    ...(anchor !== undefined && {
      anchor: contentOf(anchor, `${where}.anchor`),
    }),
  };
}

function chunksOf(value: unknown, where: string, length: number): ReleaseFile['chunks'] {
  const { size, sha256 } = fieldsOf(value, where);
  const bytes = numberOf(size, `${where}.size`, chunkSizes.min, chunkSizes.max);
  const count = Math.ceil(length / bytes);
  demand(count <= maxChunks, `${where}.size`, `makes more than ${maxChunks} pieces`);
  const hashes = textOf(sha256, `${where}.sha256`, /^[0-9a-f]+$/);
  demand(hashes.length === count * 64, `${where}.sha256`, `is not the hashes of ${count} pieces`);
  return { size: bytes, sha256: hashes };
}

function wayOf(value: unknown, where: string, folder: string, file: FileRef): readonly Way[] {
  const way = fieldsOf(value, where);
  const { kind, codec, from } = way;
  if (kind === 'full') {
    const ref = refOf(way, where, folder);
    const isFile = ref.path === file.path && ref.sha256 === file.sha256 && ref.length === file.length;
    demand(isFile, where, 'is another file');
    return [{ ...ref, kind }];
  }
  if (kind === 'compressed' && (codec === 'gzip' || codec === 'idp'))
    return [{ ...wayRefOf(way, where, folder, file), kind, codec }];
  if (kind !== 'patch' && kind !== 'hop') return [];
  const base = textOf(from, `${where}.from`, sha256Form);
  const name = textOf(codec, `${where}.codec`, /^[!-~]{1,64}$/);
  if (kind === 'patch') {
    demand(base !== file.sha256, `${where}.from`, 'is the file itself');
    return [{ ...wayRefOf(way, where, folder, file), kind, codec: name, from: base }];
  }
  // It lies in the folder of an earlier release.
  const [, seq] = /\/(\d+)\/[^/]*$/.exec(textOf(way['path'], `${where}.path`)) ?? [];
  const ref = wayRefOf(way, where, folder.replace(/\d+\/$/, `${seq}/`), file);
  return [{ ...ref, kind, codec: name, from: base, to: contentOf(way['to'], `${where}.to`) }];
}

function wayRefOf(way: Fields, where: string, folder: string, file: FileRef): FileRef {
  const ref = refOf(way, where, folder);
  demand(ref.sha256 !== file.sha256 && ref.path !== file.path, where, 'is the file itself');
  return ref;
}

function refOf({ path, sha256, length }: Fields, where: string, folder: string): FileRef {
  const text = textOf(path, `${where}.path`);
  const isInside = text.startsWith(folder) && /^[a-z0-9][a-z0-9._-]{0,127}$/.test(text.slice(folder.length));
  demand(isInside, `${where}.path`, `is not a file in ${folder}`);
  return { path: text, ...contentOf({ sha256, length }, where) };
}

function contentOf(value: unknown, where: string): FileContent {
  const { sha256, length } = fieldsOf(value, where);
  return {
    sha256: textOf(sha256, `${where}.sha256`, sha256Form),
    length: numberOf(length, `${where}.length`, 1),
  };
}

function goldenOf(golden: Fields, folder: string): FileRef & { readonly tolerance: GoldenTolerance } {
  return {
    ...refOf(golden, 'golden', folder),
    tolerance: toleranceOf(golden['tolerance'], 'golden.tolerance'),
  };
}

function toleranceOf(value: unknown, where: string): GoldenTolerance {
  const { absoluteE6, relativeE6 } = fieldsOf(value, where);
  return {
    absoluteE6: numberOf(absoluteE6, `${where}.absoluteE6`, 0),
    relativeE6: numberOf(relativeE6, `${where}.relativeE6`, 0),
  };
}

function needsOf(value: unknown, where: string): NonNullable<ReleaseFile['requires']> {
  const { providers, features } = fieldsOf(value, where);
  const names = (list: unknown, name: string): readonly string[] =>
    listOf(list, `${where}.${name}`).map((item) => textOf(item, `${where}.${name}`, /^[!-~]{1,64}$/));
  return {
    ...(providers !== undefined && { providers: names(providers, 'providers') }),
    ...(features !== undefined && { features: names(features, 'features') }),
  };
}

const sha256Form = /^[0-9a-f]{64}$/;

function fieldsOf(value: unknown, where: string): Fields {
  return isFields(value) ? value : invalid(where, 'is not an object');
}

function listOf(value: unknown, where: string): readonly unknown[] {
  const isShort = Array.isArray(value) && value.length <= maxItems;
  return isShort ? value : invalid(where, `is not a list of at most ${maxItems}`);
}

function textOf(value: unknown, where: string, form: RegExp = /^/): string {
  return typeof value === 'string' && form.test(value) ? value : invalid(where, 'is not as it should be');
}

function numberOf(value: unknown, where: string, min: number, max: number = Number.MAX_SAFE_INTEGER): number {
  const fits = isSize(value) && value >= min && value <= max;
  return fits ? value : invalid(where, `is not an integer from ${min} to ${max}`);
}

function assertUnique(files: readonly ReleaseFile[], field: 'variant' | 'path'): void {
  const values = new Set(files.map((file) => file[field]));
  demand(values.size === files.length, `files.${field}`, 'is there twice');
}

function demand(ok: boolean, where: string, problem: string): void {
  if (!ok) invalid(where, problem);
}

function invalid(where: string, problem: string): never {
  throw new TrustError(
    'ERR_INLAY_METADATA_INVALID',
    `The manifest of the release is invalid: ${where} ${problem}; have it published anew.`,
    { details: { field: where } },
  );
}
