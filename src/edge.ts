/**
 * `inlay` on Cloudflare Workers: models run where they are called, through onnxruntime-web. `inlay/edge` is the same for
 * other edge runtimes, and for compilers that do not know the condition `workerd`.
 * @module inlay
 * @module inlay/edge
 */
import { onnxruntimeWebEdge } from './backends/onnxruntime-web-edge.ts';
import type { Backend } from './core/backend.ts';
import type { Platform } from './core/platform.ts';
import type { Store } from './core/store.ts';
import { assembleInlay, type Inlay, type InlayOptions } from './engine/inlay.ts';
import type { OpenTelemetryApi } from './opentelemetry.ts';
import { edgePlatform } from './platform-edge.ts';
import { createMemoryStore } from './stores/memory.ts';

export * from './exports.ts';

/**
 * Options of {@link createInlay}. There is no `sync`: nothing goes on between requests, so that nothing could follow a
 * server; models come with the program, and a new one with its next deployment.
 */
export interface EdgeInlayOptions extends Omit<InlayOptions, 'sync' | 'telemetry'> {
  /**
   * The compiled file `onnxruntime-web/ort-wasm-simd-threaded.wasm`, as its import gives it. Needed unless there are
   * `backends`.
   */
  readonly wasmModule?: WebAssembly.Module;
  /** Inference libraries to use, best first. Default: onnxruntime-web with `wasmModule`. The host closes its own. */
  readonly backends?: readonly Backend[];
  /** Where what was learned about models is kept. Default: in memory. The host closes its own. */
  readonly store?: Store;
  /** Clock, randomness, fetch and hashing. Default: the standard web interfaces, in the way that edge runtimes bear. */
  readonly platform?: Platform;
  /** The module `@opentelemetry/api`, which then gets a span for each call and each batch. */
  readonly tracing?: OpenTelemetryApi;
}

/**
 * Creates an Inlay. It may be created in the global scope: nothing is loaded or started before it is asked for, in a
 * request.
 * @throws `TypeError` if there is neither a compiled module nor a backend, or if there is `sync`.
 * @example
 * import { createInlay } from 'inlay/edge';
 * const inlay = createInlay({ wasmModule });
 * const model = await inlay.load(bytes);
 * const { logits } = await model.run({ image: pixels });
 */
export function createInlay({ tracing, wasmModule, ...options }: EdgeInlayOptions): Inlay {
  if ('sync' in options && options.sync !== undefined) {
    throw new TypeError('sync does not work here: load models from bytes that come with the program.');
  }
  const backends = options.backends ?? [createBackend(wasmModule)];
  const store = options.store ?? createMemoryStore();
  return assembleInlay({
    ...options,
    platform: options.platform ?? edgePlatform(),
    backends,
    store,
    remote: () => import('./update/remote.ts'),
    engine: () => import('./engine/machine.ts'),
    pipelines: () => import('./engine/pipeline.ts'),
    ...(tracing && { tracing: async () => (await import('./opentelemetry.ts')).createTracing(tracing) }),
    owned: [
      ...(options.backends === undefined ? backends : []),
      ...(options.store === undefined ? [store] : []),
    ],
  });
}

function createBackend(wasmModule: WebAssembly.Module | undefined): Backend {
  if (wasmModule === undefined) {
    throw new TypeError(
      "createInlay needs wasmModule: import it from 'onnxruntime-web/ort-wasm-simd-threaded.wasm'.",
    );
  }
  return onnxruntimeWebEdge({ ort: () => import('onnxruntime-web/wasm'), wasmModule });
}
