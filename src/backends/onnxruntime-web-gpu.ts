/**
 * Adapter around `onnxruntime-web` on WebGPU: ONNX Runtime on the GPU, in browsers and wherever else WebGPU is.
 * @module inlay/backends/onnxruntime-web-gpu
 */
import type { Backend, ExecutionProvider } from '../core/backend.ts';
import { callingThread, createSessionSet, unusableError, type LibraryLoader } from '../core/library.ts';
import { openDevice, probeGpu, type Gpu, type Probe, type WatchedDevice } from './onnxruntime-web-device.ts';
import {
  createOrtRealm,
  guardSession,
  PACKAGE_NAME,
  type Around,
  type OrtWebModule,
  type WasmFiles,
} from './onnxruntime-web-realm.ts';
import { wrapSession } from './onnxruntime.ts';

export type { Gpu, GpuAdapter, GpuAdapterInfo, GpuDevice } from './onnxruntime-web-device.ts';
export type { OrtWebModule, WasmFiles, WasmPaths } from './onnxruntime-web-realm.ts';

/** Options of {@link onnxruntimeWebGpu}. */
export interface OnnxruntimeWebGpuOptions extends WasmFiles {
  /** The module `onnxruntime-web/webgpu`, or a function that imports it. */
  readonly ort: LibraryLoader<OrtWebModule>;
  /** The module `onnxruntime-web/jspi`, a third smaller, for where WebAssembly can wait for promises. */
  readonly jspi?: LibraryLoader<OrtWebModule>;
  /** Default: `navigator.gpu`. */
  readonly gpu?: Gpu;
  /** Lets an adapter that computes in software count as a GPU. Default false: it is many times slower than the CPU. */
  readonly allowSoftwareAdapter?: boolean;
}

const PROVIDER = 'webgpu';

/**
 * Creates the backend of `onnxruntime-web` with its WebGPU provider.
 *
 * Nothing is imported before an adapter was found that is really a GPU. Create, run and release take turns, because
 * the library hangs or corrupts memory otherwise. When the device is lost, calls in flight and later ones reject with
 * `ERR_INLAY_DEVICE_UNAVAILABLE`, whose `details.reason` is that of WebGPU; only a new realm, such as a new worker, helps.
 *
 * This build lacks the operators of `ai.onnx.ml` and kernels of float64 and int16: models that need them are refused
 * with `ERR_INLAY_MODEL_UNSUPPORTED`, and run in {@link onnxruntimeWeb} of another realm.
 *
 * @example
 * const backend = onnxruntimeWebGpu({
 *   ort: () => import('onnxruntime-web/webgpu'),
 *   jspi: () => import('onnxruntime-web/jspi'),
 * });
 */
export function onnxruntimeWebGpu(options: OnnxruntimeWebGpuOptions): Backend {
  const { ort, jspi, allowSoftwareAdapter = false } = options;
  const realm = createOrtRealm(jspi !== undefined && 'Suspending' in WebAssembly ? jspi : ort, options);
  const sessions = createSessionSet(PACKAGE_NAME);
  const slots = callingThread();
  let probing: Promise<Probe> | undefined;
  let opening: Promise<WatchedDevice> | undefined;

  const probe = (): Promise<Probe> => (probing ??= probeGpu(options.gpu ?? findGpu(), allowSoftwareAdapter));
  const openFound = async (): Promise<WatchedDevice> => {
    const found = await probe();
    if (found.refusal !== undefined) throw unusableError(PROVIDER, found.refusal);
    return openDevice(found.adapter, found.features);
  };
  const open = (): Promise<WatchedDevice> =>
    openFound().catch((error: unknown) => {
      probing = undefined;
      opening = undefined;
      throw error;
    });

  return {
    name: PACKAGE_NAME,
    providers: async (): Promise<readonly ExecutionProvider[]> => {
      const found = await probe();
      if (found.refusal !== undefined) return [{ name: PROVIDER, device: 'gpu', refusal: found.refusal }];
      await realm.load();
      return [{ name: PROVIDER, device: 'gpu', features: found.features }];
    },
    createSession: (source, { provider }) =>
      sessions.open(async () => {
        if (provider !== PROVIDER) throw unusableError(provider, `this backend offers ${PROVIDER}`);
        const { device, whileThere, checked, isLost } = await (opening ??= open());
        const around: Around = (work) => whileThere(() => realm.inTurn(() => checked(work)));
        const created = await around(() => realm.create(source, { name: PROVIDER, device }));
        const session = guardSession(created, around);
        const release = async (): Promise<void> => {
          await session.release().catch((error: unknown) => {
            // What a lost device held is lost with it.
            if (!isLost()) throw error;
          });
        };
        return wrapSession({ ...session, release }, { provider, slots, intraOpThreads: 1 });
      }),
    close: async () => {
      await sessions.close();
      // A page has few devices to give, and one that nobody holds goes only with the garbage.
      (await opening?.catch(() => undefined))?.device.destroy();
    },
  };
}

function findGpu(): Gpu | undefined {
  return (globalThis as { navigator?: { gpu?: Gpu } }).navigator?.gpu;
}
