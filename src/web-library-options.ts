/** What a realm of onnxruntime-web is told, as plain data that may be sent to a worker. */
import type { WebBackendOptions } from './web-backends.ts';
import { toAbsolute } from './core/absolute.ts';

/** Which build, and its options. */
export interface WebLibraryOptions {
  readonly library: 'webgpu' | 'wasm';
  /** A prefix, or for `wasm` also the URLs of its files. */
  readonly wasmPaths?: string | { readonly mjs?: string; readonly wasm?: string };
  /** For `wasm`. */
  readonly wasmBinary?: ArrayBuffer | Uint8Array;
  /** For `wasm`. */
  readonly threads?: number;
  /** For `webgpu`. */
  readonly allowSoftwareAdapter?: boolean;
}

/** Picks what one build needs. URLs are made absolute here, since a worker has another base. */
export function toLibraryOptions(
  library: WebLibraryOptions['library'],
  { wasmPaths, wasmBinary, allowSoftwareAdapter = false, intraOpThreads }: WebBackendOptions,
): WebLibraryOptions {
  const prefix = typeof wasmPaths === 'string' ? { wasmPaths: toAbsolute(wasmPaths, globalThis) } : {};
  if (library === 'webgpu') return { library, allowSoftwareAdapter, ...prefix };
  const { mjs, wasm } = typeof wasmPaths === 'object' ? wasmPaths : {};
  return {
    library,
    ...prefix,
    ...(typeof wasmPaths === 'object' && {
      wasmPaths: {
        ...(mjs !== undefined && { mjs: toAbsolute(mjs, globalThis) }),
        ...(wasm !== undefined && { wasm: toAbsolute(wasm, globalThis) }),
      },
    }),
    ...(wasmBinary !== undefined && { wasmBinary }),
    ...(typeof intraOpThreads === 'number' && { threads: intraOpThreads }),
  };
}
