/**
 * `inlay`: run models in any runtime with web standards. On Node, the same name gives `node.ts` with its defaults.
 * @module inlay
 */
import type { Backend } from './core/backend.ts';
import type { Platform } from './core/platform.ts';
import type { Store } from './core/store.ts';
import { assembleInlay, type Inlay, type InlayOptions } from './engine/inlay.ts';
import type { OpenTelemetryApi } from './opentelemetry.ts';
import { webPlatform } from './platform.ts';
import { createMemoryStore } from './stores/memory.ts';

export * from './exports.ts';

/** Options of {@link createInlay}. */
export interface WebInlayOptions extends InlayOptions {
  /** Inference libraries to use, best first, such as `onnxruntimeWeb({ ort })`. The host closes them. */
  readonly backends: readonly Backend[];
  /** Where models by name are kept. Default: in memory. The host closes its own. */
  readonly store?: Store;
  /** Clock, randomness, fetch and hashing. Default: the standard web interfaces. */
  readonly platform?: Platform;
  /** The module `@opentelemetry/api`, which then gets a span for each call and each batch. */
  readonly tracing?: OpenTelemetryApi;
}

/**
 * Creates an Inlay. Nothing is loaded and nothing is fetched before it is asked for.
 * @example
 * const inlay = createInlay({ backends: [onnxruntimeWeb({ ort: () => import('onnxruntime-web/wasm') })] });
 * const model = await inlay.load('/digits.onnx');
 */
export function createInlay({ tracing, ...options }: WebInlayOptions): Inlay {
  const store = options.store ?? createMemoryStore();
  return assembleInlay({
    ...options,
    platform: options.platform ?? webPlatform(),
    store,
    remote: () => import('./update/remote.ts'),
    engine: () => import('./engine/start.ts'),
    pipelines: () => import('./engine/pipeline.ts'),
    ...(tracing && { tracing: async () => (await import('./opentelemetry.ts')).createTracing(tracing) }),
    owned: options.store === undefined ? [store] : [],
  });
}
