/** What names a model, and where its bytes are. */
import type { ModelSource } from '../core/backend.ts';
import { ModelError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { nameOf } from '../core/tensor.ts';
import type { FileRef } from '../update/manifest.ts';
import type { PlanEntry } from '../update/plan.ts';
import type * as Remote from '../update/remote.ts';
import type { ProgressListener } from './progress.ts';
import type { VariantRules } from './variants-compare.ts';

/** A model to load: a path, a URL or the bytes. */
export type FileReference = string | URL | Uint8Array | ArrayBuffer;

/**
 * Several precisions of one model, the reference first. The fastest one that gives the same answers is taken; see
 * {@link VariantRules}.
 */
export interface VariantsReference extends VariantRules {
  readonly variants: Readonly<Record<string, FileReference>>;
}

/** A version that came with the app, as `inlay embed` writes it: the file, and what the publisher signed about it. */
export interface EmbeddedRelease {
  readonly file: FileReference;
  /** The content of the file `*.inlay.json` beside it. */
  readonly release: EmbeddedFacts;
}

/** What `inlay embed` writes about a release. */
export interface EmbeddedFacts {
  readonly release: PlanEntry;
  /** The file that was embedded: the release's own, or one of its variants. */
  readonly file: { readonly sha256: string; readonly length: number };
  readonly variant?: string;
  /** What was published with it. */
  readonly manifest?: { readonly profile?: FileRef };
}

/** A model that the sync server knows. */
export interface NamedReference {
  readonly name: string;
  /**
   * The version that came with the app: it answers from the first start on, also offline, until a release has come in.
   * Without it, the first load waits for one; without a sync server, it is all there is. With what `inlay embed` wrote,
   * it has its version, counts as that release in rollouts, and patches start from it.
   */
  readonly embedded?: FileReference | EmbeddedRelease;
}

/** A model to load: a path, a URL, the bytes, a name that the sync server knows, or several variants. */
export type ModelReference = FileReference | NamedReference | VariantsReference;

/** @throws `TypeError` for what names no model. */
export function assertReference(reference: unknown): asserts reference is ModelReference {
  if (isFile(reference)) return;
  if (typeof reference === 'object' && reference !== null) {
    if ('name' in reference && typeof reference.name === 'string') {
      const embedded = 'embedded' in reference ? reference.embedded : undefined;
      if (embedded === undefined || isFile(embedded) || isEmbeddedRelease(embedded)) return;
    }
    const variants = 'variants' in reference ? reference.variants : undefined;
    const files = typeof variants === 'object' && variants !== null ? Object.values(variants) : [];
    if (files.length > 0 && files.every((file) => isFile(file))) return;
  }
  // A Blob, a File, a Response.
  const isReadable = typeof (reference as { arrayBuffer?: unknown } | null)?.arrayBuffer === 'function';
  throw new TypeError(
    `A model is a path, a URL, bytes, { name, embedded? } or { variants: { fp32: path, … } }, got ${
      reference === '' ? 'an empty text' : nameOf(reference)
    }${isReadable ? '; pass the bytes that its arrayBuffer() gives' : ''}.`,
  );
}

function isEmbeddedRelease(value: unknown): value is EmbeddedRelease {
  if (typeof value !== 'object' || value === null || !('file' in value) || !isFile(value.file)) return false;
  const facts = 'release' in value ? value.release : undefined;
  return typeof facts === 'object' && facts !== null && 'release' in facts && 'file' in facts;
}

/** Tells whether a reference is a path, a URL or bytes. */
export function isFile(reference: unknown): reference is FileReference {
  return (
    (typeof reference === 'string' && reference !== '') ||
    reference instanceof URL ||
    reference instanceof ArrayBuffer ||
    reference instanceof Uint8Array
  );
}

/**
 * Finds a file, and reads it where it comes over a network.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_NOT_FOUND`; {@link NetworkError}.
 */
export async function locate(
  {
    platform,
    remote,
    maxModelBytes,
  }: {
    readonly platform: Platform;
    readonly remote: () => Promise<typeof Remote>;
    readonly maxModelBytes: number;
  },
  reference: FileReference,
  { signal, onProgress }: { readonly signal?: AbortSignal; readonly onProgress?: ProgressListener },
): Promise<ModelSource> {
  if (reference instanceof ArrayBuffer) return { bytes: new Uint8Array(reference) };
  if (ArrayBuffer.isView(reference)) return { bytes: reference };
  const { files } = platform;
  if (files === undefined || /^(https?|blob|data):/.test(String(reference))) {
    const { fetchBytes } = await remote();
    const { bytes, url } = await fetchBytes(platform, String(reference), {
      capBytes: maxModelBytes,
      isOfPage: true,
      signal,
      onProgress:
        onProgress &&
        ((loadedBytes, totalBytes) => {
          onProgress({ phase: 'download', loadedBytes, ...(totalBytes !== undefined && { totalBytes }) });
        }),
    });
    return { bytes, url };
  }
  const path = files.resolve(reference);
  if ((await files.size(path)) === undefined) {
    throw new ModelError('ERR_INLAY_MODEL_NOT_FOUND', `There is no model file at ${path}.`, {
      details: { path },
    });
  }
  return { path };
}
