/** A GPU device of WebGPU: found, refused or opened, and watched until it is lost. */
import { BackendError } from '../core/errors.ts';
import { isSoftwareAdapter, nameOfAdapter } from '../core/software-gpu.ts';

/** The part of `navigator.gpu` that is used. */
export interface Gpu {
  requestAdapter(): Promise<GpuAdapter | null>;
}

/** The part of a `GPUAdapter` that is used. */
export interface GpuAdapter {
  readonly features: { has(name: string): boolean };
  readonly limits: object;
  readonly info?: GpuAdapterInfo;
  /** As browsers had it before it moved into `info`. */
  readonly isFallbackAdapter?: boolean;
  requestDevice(descriptor?: {
    readonly requiredFeatures?: Iterable<string>;
    readonly requiredLimits?: Readonly<Record<string, number | undefined>>;
  }): Promise<GpuDevice>;
}

/** The part of a `GPUAdapterInfo` that is used. */
export interface GpuAdapterInfo {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  readonly isFallbackAdapter?: boolean;
}

/** The part of a `GPUDevice` that is used. */
export interface GpuDevice {
  /** WebGPU §22.1: fulfilled once, when the device is of no use any more. */
  readonly lost: Promise<{ readonly reason: string; readonly message: string }>;
  addEventListener(
    type: 'uncapturederror',
    listener: (event: { readonly error: { readonly message: string } }) => void,
  ): void;
  destroy(): void;
}

/** What there is to compute with. */
export type Probe =
  | { readonly adapter: GpuAdapter; readonly features: readonly string[]; readonly refusal?: undefined }
  | { readonly refusal: string };

/** Features that kernels make use of. */
const FEATURES = ['shader-f16', 'subgroups'];

/** Limits that decide how large a tensor and a workgroup may be; the defaults of WebGPU are those of a phone. */
const LIMITS = [
  'maxBindGroups',
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupSizeY',
  'maxComputeWorkgroupSizeZ',
  'maxComputeWorkgroupsPerDimension',
  'maxComputeWorkgroupStorageSize',
];

/** Looks for an adapter without opening it. */
export async function probeGpu(gpu: Gpu | undefined, allowSoftwareAdapter: boolean): Promise<Probe> {
  if (gpu === undefined) {
    return {
      refusal:
        (globalThis as { isSecureContext?: boolean }).isSecureContext === false
          ? 'WebGPU needs a page that is served over https or from localhost'
          : 'there is no WebGPU',
    };
  }
  let adapter: GpuAdapter | null;
  try {
    adapter = await gpu.requestAdapter();
  } catch (error) {
    return { refusal: `WebGPU gives no adapter (${String(error)})` };
  }
  if (adapter === null) return { refusal: 'WebGPU has no adapter for this machine' };
  if (!allowSoftwareAdapter && isSoftwareAdapter(adapter)) {
    return {
      refusal: `the adapter "${nameOfAdapter(adapter)}" computes in software; allow it with allowSoftwareAdapter`,
    };
  }
  const { features } = adapter;
  return { adapter, features: FEATURES.filter((name) => features.has(name)) };
}

/** A device, and calls that do not outlive it. */
export interface WatchedDevice {
  readonly device: GpuDevice;
  /**
   * Waits for work on the device, no longer than there is one.
   * @throws {@link BackendError} `ERR_INLAY_DEVICE_UNAVAILABLE` with `details.reason` when it is lost, or was before.
   */
  whileThere<T>(work: () => Promise<T>): Promise<T>;
  /** Whether it was lost. */
  isLost(): boolean;
  /**
   * Does one piece of work that no other overlaps, unless the device is lost: the library would never come back from it.
   * @throws `Error` when the device reported a fault meanwhile, such as memory that ran out: the results are wrong then.
   */
  checked<T>(work: () => Promise<T>): Promise<T>;
}

/**
 * Opens the adapter's device with all that it can do.
 * @throws {@link BackendError} `ERR_INLAY_DEVICE_UNAVAILABLE` when it does not open.
 */
export async function openDevice(adapter: GpuAdapter, features: readonly string[]): Promise<WatchedDevice> {
  const device = await requestDevice(adapter, features);
  const waiting = new Set<(error: BackendError) => void>();
  let loss: BackendError | undefined;
  let fault: string | undefined;

  void device.lost.then(({ reason, message }) => {
    loss = lostError(reason, message);
    for (const reject of waiting) reject(loss);
    waiting.clear();
  });
  device.addEventListener('uncapturederror', ({ error }) => {
    fault ??= error.message;
  });

  return {
    device,
    whileThere: (work) => {
      if (loss !== undefined) return Promise.reject(loss);
      // Not a race against one promise of the loss: that would keep every result alive until then.
      return new Promise((resolve, reject) => {
        waiting.add(reject);
        const settle = (): void => void waiting.delete(reject);
        work()
          .then(resolve, async (error: unknown) => {
            // What the library misses first of a lost device is a buffer; that the device is lost is heard later.
            await pause(NEWS_MS);
            reject(error);
          })
          .finally(settle);
      });
    },
    isLost: () => loss !== undefined,
    checked: async (work) => {
      if (loss !== undefined) throw loss;
      fault = undefined;
      const result = await work();
      if (fault !== undefined) throw new Error(fault);
      return result;
    },
  };
}

async function requestDevice(adapter: GpuAdapter, features: readonly string[]): Promise<GpuDevice> {
  const limits = LIMITS.map((name) => [name, Reflect.get(adapter.limits, name)] as const);
  const known = limits.filter((entry): entry is readonly [string, number] => typeof entry[1] === 'number');
  try {
    return await adapter.requestDevice({
      requiredFeatures: features,
      requiredLimits: Object.fromEntries(known),
    });
  } catch (cause) {
    throw new BackendError(
      'ERR_INLAY_DEVICE_UNAVAILABLE',
      `The GPU "${nameOfAdapter(adapter)}" gives no device: ${String(cause)}.`,
      { cause, details: { provider: 'webgpu' } },
    );
  }
}

/** Longest time, in milliseconds, after which a run that failed hears that the device was lost. */
const NEWS_MS = 100;

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

function lostError(reason: string, message: string): BackendError {
  const words = message.replace(/\s+/g, ' ').trim().replace(/\.$/, '');
  return new BackendError(
    'ERR_INLAY_DEVICE_UNAVAILABLE',
    `The GPU device was lost (${[reason, words].filter((part) => part !== '').join(': ')}); only a new realm gets another.`,
    { details: { provider: 'webgpu', reason } },
  );
}
