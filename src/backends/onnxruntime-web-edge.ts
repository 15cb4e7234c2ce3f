/**
 * Adapter around `onnxruntime-web` for runtimes that compile WebAssembly when a program is deployed, not while it runs:
 * Cloudflare Workers (workerd) and other edge runtimes.
 * @module inlay/backends/onnxruntime-web-edge
 */
import type { Backend } from '../core/backend.ts';
import type { LibraryLoader } from '../core/library.ts';
import { onnxruntimeWeb, type OrtWebModule } from './onnxruntime-web.ts';

/** Options of {@link onnxruntimeWebEdge}. */
export interface OnnxruntimeWebEdgeOptions {
  /** The module `onnxruntime-web/wasm`, or a function that imports it. */
  readonly ort: LibraryLoader<OrtWebModule>;
  /**
   * The compiled file `onnxruntime-web/ort-wasm-simd-threaded.wasm`, of the same version as the library. An import gives
   * it: `import wasmModule from 'onnxruntime-web/ort-wasm-simd-threaded.wasm'`.
   */
  readonly wasmModule: WebAssembly.Module;
}

/** WebAssembly Core 2.0 §5.5.16: a module without content. */
const EMPTY_MODULE = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];

/**
 * Creates the backend of `onnxruntime-web` on one thread, with a module that is compiled already. Sessions run on the
 * calling thread and block it for the length of a run.
 *
 * @throws `TypeError` if `wasmModule` is no module: its import may give an address or bytes, as the bundler has it.
 * @example
 * import { onnxruntimeWebEdge } from 'inlay/backends/onnxruntime-web-edge';
 * const backend = onnxruntimeWebEdge({ ort: () => import('onnxruntime-web/wasm'), wasmModule });
 */
export function onnxruntimeWebEdge({ ort, wasmModule }: OnnxruntimeWebEdgeOptions): Backend {
  if (!(wasmModule instanceof WebAssembly.Module)) {
    throw new TypeError(
      `wasmModule is a WebAssembly.Module, got ${typeof wasmModule}; import the .wasm file as a compiled module.`,
    );
  }
  // The library takes bytes only, so it gets bytes that stand for the module.
  const token = Uint8Array.from(EMPTY_MODULE).buffer;
  const load = async (): Promise<OrtWebModule> => {
    const { env, InferenceSession } = await (typeof ort === 'function' ? ort() : ort);
    const create = (
      source: string | Uint8Array,
      options?: Parameters<typeof InferenceSession.create>[1],
    ): ReturnType<typeof InferenceSession.create> =>
      insteadOf(token, wasmModule, () => InferenceSession.create(source as Uint8Array, options));
    return { env, InferenceSession: { create } };
  };
  return onnxruntimeWeb({ ort: load, wasmBinary: token, threads: 1 });
}

type Instantiate = (source: WebAssembly.Module | BufferSource, imports?: WebAssembly.Imports) => unknown;

/** Does some work, in which to instantiate the bytes of `token` means to instantiate `wasmModule`. */
async function insteadOf<T>(
  token: ArrayBuffer,
  wasmModule: WebAssembly.Module,
  work: () => Promise<T>,
): Promise<T> {
  const realm = WebAssembly as { instantiate: Instantiate };
  const original = realm.instantiate;
  const replacement: Instantiate = async (source, imports) =>
    ArrayBuffer.isView(source) && source.buffer === token
      ? { module: wasmModule, instance: await original.call(WebAssembly, wasmModule, imports) }
      : original.call(WebAssembly, source, imports);
  realm.instantiate = replacement;
  try {
    return await work();
  } finally {
    // Somebody else may have replaced it meanwhile.
    if (realm.instantiate === replacement) realm.instantiate = original;
  }
}
