/** Workers of a page, put together: loaded when the first model is. */
import { probeGpu, type Gpu } from './backends/onnxruntime-web-device.ts';
import type { Backend, ExecutionProvider } from './core/backend.ts';
import type { InWorkerOptions, WebBackendOptions } from './web-backends.ts';
import { toLibraryOptions, type WebLibraryOptions } from './web-library-options.ts';
import { joinByProvider } from './workers/by-provider.ts';
import { createPool } from './workers/pool.ts';
import { createWorkerBackend } from './workers/realm.ts';
import { spawnWebWorker } from './workers/web.ts';

const NAME = 'onnxruntime-web';
const GPU: ExecutionProvider = { name: 'webgpu', device: 'gpu' };
const WASM: ExecutionProvider = { name: 'wasm', device: 'cpu' };
const RUN_TIMEOUT_MS = 30_000;

const startWorker = (): Worker => new Worker(new URL('./worker-web.js', import.meta.url), { type: 'module' });

/** Creates the default backend: a realm for WebGPU, and one or more for WebAssembly. */
export function createRealms(options: WebBackendOptions): Backend {
  const { worker = startWorker, workers = 1, runTimeoutMs, allowSoftwareAdapter = false } = options;
  const realm = (library: WebLibraryOptions, slotName: string): Backend =>
    createRealm({
      name: NAME,
      slotName,
      worker,
      options: library,
      ...(runTimeoutMs !== undefined && { runTimeoutMs }),
    });
  const wasm = toLibraryOptions('wasm', options);
  return joinByProvider(NAME, [
    {
      provider: GPU,
      backend: realm(toLibraryOptions('webgpu', options), 'GPU worker'),
      // The page looks for an adapter itself: most pages that have none need no worker to find that out.
      probe: async () => {
        const found = await probeGpu(findGpu(), allowSoftwareAdapter);
        return found.refusal === undefined
          ? { ...GPU, features: found.features }
          : { ...GPU, refusal: found.refusal };
      },
    },
    {
      provider: WASM,
      // Whoever runs on the GPU needs no second worker to hear of this.
      probe: async () => WASM,
      backend: createPool(Array.from({ length: workers }, (_, i) => realm(wasm, `worker ${i + 1}`))),
    },
  ]);
}

/** Longest time that a release may take to open, or for one run, where it is tried out, in milliseconds. */
const TRIAL_MS = 20_000;

/** Creates the place where releases are tried out: a further worker with WebAssembly, there only meanwhile. */
export function createTrialRealm(options: WebBackendOptions): Backend {
  const { worker = startWorker } = options;
  const library = toLibraryOptions('wasm', options);
  return createRealm({
    name: NAME,
    slotName: 'trial worker',
    worker,
    options: library,
    runTimeoutMs: TRIAL_MS,
    createTimeoutMs: TRIAL_MS,
    // What takes its worker along is not to do so again at once.
    maxLosses: 1,
  });
}

/** Creates a backend in a worker of its own. */
export function createRealm(
  options: InWorkerOptions & {
    readonly slotName?: string;
    readonly createTimeoutMs?: number;
    readonly maxLosses?: number;
  },
): Backend {
  const { name, slotName, runTimeoutMs = RUN_TIMEOUT_MS, createTimeoutMs, maxLosses, ...spawn } = options;
  return createWorkerBackend({
    name,
    ...(slotName !== undefined && { slotName }),
    runTimeoutMs,
    ...(createTimeoutMs !== undefined && { createTimeoutMs }),
    ...(maxLosses !== undefined && { maxLosses }),
    // The memory of WebAssembly never shrinks; only the end of its worker gives it back.
    endWhenEmpty: true,
    spawn: () => spawnWebWorker(spawn),
  });
}

const findGpu = (): Gpu | undefined => (globalThis.navigator as { readonly gpu?: Gpu } | undefined)?.gpu;
