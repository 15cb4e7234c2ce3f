/**
 * `inlay` on Node: models run in worker threads through onnxruntime-node, and are kept in the OS cache directory.
 * @module inlay
 */
import type { Backend } from './core/backend.ts';
import type { Platform } from './core/platform.ts';
import type { Store } from './core/store.ts';
import type { Tracing } from './core/tracing.ts';
import * as engine from './engine/machine.ts';
import { assembleInlay, type Inlay, type InlayOptions } from './engine/inlay.ts';
import { createBackends, type NodeBackendOptions } from './node-backends.ts';
import { createTracing, type OpenTelemetryApi } from './opentelemetry.ts';
import { nodePlatform } from './platform-node.ts';
import { withMemoryFallback } from './stores/fallback.ts';
import { openFsStore } from './stores/fs.ts';

export * from './exports.ts';
export { createBackends, type NodeBackendOptions } from './node-backends.ts';

/** Options of {@link createInlay}. */
export interface NodeInlayOptions extends InlayOptions, NodeBackendOptions {
  /** Inference libraries to use, best first. Default: what {@link createBackends} makes. The host closes its own. */
  readonly backends?: readonly Backend[];
  /**
   * Where models by name are kept. Default: the OS cache directory, or memory where that cannot be used, as
   * `info().store.degraded` then says. The host closes its own.
   */
  readonly store?: Store;
  /** Clock, randomness, fetch and hashing. Default: Node's. */
  readonly platform?: Platform;
  /**
   * The module `@opentelemetry/api`, which then gets a span for each call and each batch. Default: the host's own, if it
   * has registered a provider before the first model is loaded. `false`: no spans.
   */
  readonly tracing?: OpenTelemetryApi | false;
}

/**
 * Creates an Inlay. Nothing is loaded, started or fetched before it is asked for.
 * @example
 * const inlay = createInlay();
 * const model = await inlay.load('./digits.onnx');
 * const { logits } = await model.run({ image: pixels });
 */
export function createInlay({ tracing, ...options }: NodeInlayOptions = {}): Inlay {
  const backends = options.backends ?? createBackends(options);
  const platform = options.platform ?? nodePlatform();
  const store = options.store ?? withMemoryFallback(openFsStore(), platform.createSha256);
  return assembleInlay({
    ...options,
    platform,
    backends,
    store,
    remote: () => import('./update/remote.ts'),
    engine: async () => engine,
    pipelines: () => import('./engine/pipeline.ts'),
    ...(tracing !== false && {
      tracing: async () => (tracing === undefined ? findTracing() : createTracing(tracing)),
    }),
    owned: [
      ...(options.backends === undefined ? backends : []),
      ...(options.store === undefined ? [store] : []),
    ],
  });
}

/** Traces through the host's OpenTelemetry, if it has registered one. */
async function findTracing(): Promise<Tracing | undefined> {
  // Every copy of the API keeps its providers under this symbol; without one, nobody would record.
  if (!(Symbol.for('opentelemetry.js.api.1') in globalThis)) return undefined;
  const api = await import('@opentelemetry/api').catch(() => undefined);
  return api && createTracing(api);
}
