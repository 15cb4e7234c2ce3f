/**
 * `inlay` on Node: models run in worker threads through onnxruntime-node, and are kept in the OS cache directory.
 * @module inlay
 */
import { onnxruntimeNode } from './backends/onnxruntime-node.ts';
import { onnxruntimeWeb } from './backends/onnxruntime-web.ts';
import type { Backend } from './core/backend.ts';
import type { Platform } from './core/platform.ts';
import type { Store } from './core/store.ts';
import { assembleInlay, type Inlay, type InlayOptions } from './engine/inlay.ts';
import { nodePlatform } from './platform-node.ts';
import { withMemoryFallback } from './stores/fs-fallback.ts';
import { openFsStore } from './stores/fs.ts';
import { spawnNodeWorker } from './workers/node.ts';
import { createWorkerBackend } from './workers/realm.ts';

export * from './exports.ts';

/** Options of {@link createBackends}. */
export interface NodeBackendOptions {
  /**
   * Where native code runs. Default `worker`: the event loop of the host stays free. `inline` saves the hop of some
   * 20 µs but blocks the event loop for the length of a run.
   */
  readonly placement?: 'worker' | 'inline';
  /** Lets a software GPU adapter count as a GPU. Default false: it is many times slower than the CPU. */
  readonly allowSoftwareAdapter?: boolean;
}

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
}

/**
 * Creates the default backends: onnxruntime-node, and onnxruntime-web's WASM where there is no native binary.
 * Several Inlays of one process may share them; close them after the last one.
 */
export function createBackends(options: NodeBackendOptions = {}): readonly Backend[] {
  const { placement = 'worker', allowSoftwareAdapter = false } = options;
  if (placement !== 'worker' && placement !== 'inline') {
    throw new TypeError(`placement is 'worker' or 'inline', got ${JSON.stringify(placement)}.`);
  }
  if (placement === 'inline') {
    return [
      onnxruntimeNode({ ort: () => import('onnxruntime-node'), allowSoftwareAdapter }),
      onnxruntimeWeb({ ort: () => import('onnxruntime-web') }),
    ];
  }
  const script = new URL('./worker.js', import.meta.url);
  return (['onnxruntime-node', 'onnxruntime-web'] as const).map((library) =>
    createWorkerBackend({
      name: library,
      // The memory of WebAssembly never shrinks; only the end of its worker gives it back.
      endWhenEmpty: library === 'onnxruntime-web',
      spawn: () => spawnNodeWorker(script, { library, options: { allowSoftwareAdapter } }),
    }),
  );
}

/**
 * Creates an Inlay. Nothing is loaded, started or fetched before it is asked for.
 * @example
 * const inlay = createInlay();
 * const model = await inlay.load('./digits.onnx');
 * const { logits } = await model.run({ image: pixels });
 */
export function createInlay(options: NodeInlayOptions = {}): Inlay {
  const backends = options.backends ?? createBackends(options);
  const platform = options.platform ?? nodePlatform();
  const store = options.store ?? withMemoryFallback(openFsStore(), platform.createSha256);
  return assembleInlay({
    ...options,
    platform,
    backends,
    store,
    remote: () => import('./update/remote.ts'),
    owned: [
      ...(options.backends === undefined ? backends : []),
      ...(options.store === undefined ? [store] : []),
    ],
  });
}
