/**
 * `inlay` in React Native: models run on native threads through onnxruntime-react-native, and are kept in the files of
 * the app.
 * @module inlay
 */
import {
  onnxruntimeReactNative,
  toLibraryError,
  type OnnxruntimeReactNativeOptions,
  type OrtReactNativeModule,
} from './backends/onnxruntime-react-native.ts';
import type { Backend } from './core/backend.ts';
import type { Platform } from './core/platform.ts';
import type { Store } from './core/store.ts';
import { assembleInlay, type Inlay, type InlayOptions } from './engine/inlay.ts';
import type { OpenTelemetryApi } from './opentelemetry.ts';
import { reactNativePlatform, type ReactNativePlatformOptions } from './platform-react-native.ts';
import { withMemoryFallback } from './stores/fallback.ts';
import { createMemoryStore } from './stores/memory.ts';
import { openReactNativeStore } from './stores/react-native.ts';

export * from './exports.ts';
export type { AppState, NativeCrypto } from './platform-react-native.ts';
export type { FileLibrary } from './stores/react-native.ts';

/** Options of {@link createInlay}. */
export interface ReactNativeInlayOptions
  extends InlayOptions, ReactNativePlatformOptions, Pick<OnnxruntimeReactNativeOptions, 'threads'> {
  /** Inference libraries to use, best first. Default: onnxruntime-react-native. The host closes its own. */
  readonly backends?: readonly Backend[];
  /**
   * Where models by name are kept. Default: the files of the app, or memory where `files` was not given or cannot be
   * written, as `info().store.degraded` then says. The host closes its own.
   */
  readonly store?: Store;
  /** Clock, randomness, fetch and hashing. Default: React Native's, with what the other options bring. */
  readonly platform?: Platform;
  /** The module `@opentelemetry/api`, which then gets a span for each call and each batch. */
  readonly tracing?: OpenTelemetryApi;
}

/**
 * Creates an Inlay. Nothing is loaded, started or fetched before it is asked for. An Expo app passes the modules
 * `expo-file-system` as `files` and `expo-crypto` as `crypto`, and `AppState` of `react-native`.
 * @throws `TypeError` if `files` is no library that can write bytes in pieces.
 */
export function createInlay({ tracing, ...options }: ReactNativeInlayOptions = {}): Inlay {
  const platform = options.platform ?? reactNativePlatform(options);
  const { threads } = options;
  const backends = options.backends ?? [
    onnxruntimeReactNative({ ort: importLibrary, ...(threads !== undefined && { threads }) }),
  ];
  const store = options.store ?? defaultStore(platform, options);
  return assembleInlay({
    ...options,
    platform,
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

async function importLibrary(): Promise<OrtReactNativeModule> {
  // Metro bundles an app without a package that is not installed only if it is imported in a try block.
  try {
    return await import('onnxruntime-react-native');
  } catch (cause) {
    throw toLibraryError(cause);
  }
}

function defaultStore({ createSha256, digest }: Platform, { files, logger }: ReactNativeInlayOptions): Store {
  if (files === undefined) {
    return createMemoryStore({
      createSha256,
      reason:
        'Models and state are kept in memory only and end with this app: createInlay was given no `files`.',
    });
  }
  const disk = openReactNativeStore({ files, createSha256, ...(digest && { digest }) });
  return withMemoryFallback(disk, createSha256, { logger });
}
