/**
 * `inlay`: run models in any runtime with web standards. On Node, the same name gives `node.ts` with its defaults.
 * @module inlay
 */
import type { Backend } from './core/backend.ts';
import type { Platform } from './core/platform.ts';
import type { Store } from './core/store.ts';
import { assembleInlay, type Inlay, type InlayOptions } from './engine/inlay.ts';
import { IOS, isIos } from './ios.ts';
import type { OpenTelemetryApi } from './opentelemetry.ts';
import { webPlatform } from './platform.ts';
import { openLazily } from './stores/lazy.ts';
import { createBackends, type WebBackendOptions } from './web-backends.ts';

export * from './exports.ts';
export { createBackends, inWorker, type InWorkerOptions, type WebBackendOptions } from './web-backends.ts';

/** Options of {@link createInlay}. */
export interface WebInlayOptions extends InlayOptions, WebBackendOptions {
  readonly intraOpThreads?: number | 'auto';
  /** Inference libraries to use, best first. Default: what {@link createBackends} makes. The host closes its own. */
  readonly backends?: readonly Backend[];
  /**
   * Where models by name are kept. Default: the origin private file system of the browser, else IndexedDB, else memory, as
   * `info().store` then says. The host closes its own.
   */
  readonly store?: Store;
  /** Clock, randomness, fetch and hashing. Default: the standard web interfaces. */
  readonly platform?: Platform;
  /** The module `@opentelemetry/api`, which then gets a span for each call and each batch. */
  readonly tracing?: OpenTelemetryApi;
}

/**
 * Creates an Inlay. Nothing is loaded and nothing is fetched before it is asked for. On iOS, models run on WebAssembly
 * with one thread by default, and none above 200 MiB is downloaded: its browsers end pages that take too much memory.
 * @example
 * const inlay = createInlay();
 * const model = await inlay.load('/digits.onnx');
 * const { logits } = await model.run({ image: pixels });
 */
export function createInlay({ tracing, ...options }: WebInlayOptions = {}): Inlay {
  const backends = options.backends ?? createBackends(options);
  const { logger } = options;
  const store =
    options.store ??
    openLazily('web', async () => (await import('./stores/web.ts')).openWebStore({ logger }));
  const navigator = globalThis.navigator as typeof globalThis.navigator | undefined;
  const onIos = navigator !== undefined && isIos(navigator);
  return assembleInlay({
    ...options,
    ...(onIos && {
      device: options.device ?? IOS.device,
      intraOpThreads: options.intraOpThreads ?? IOS.intraOpThreads,
      maxModelBytes: options.maxModelBytes ?? IOS.maxModelBytes,
    }),
    platform: options.platform ?? webPlatform(onIos ? 'web on iOS' : 'web'),
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
