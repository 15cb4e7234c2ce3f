/** `navigator.gpu`, with the devices that were made through it. */
import type { Gpu } from '../../src/backends/onnxruntime-web-gpu.ts';

export interface WatchedGpu {
  readonly gpu: Gpu;
  readonly devices: readonly GPUDevice[];
  /** Does something to the device at its next submission of work, right after it. */
  onSubmit(act: (device: GPUDevice) => void): void;
}

/** Wraps the browser's own adapter. */
export function watchedGpu(): WatchedGpu {
  const devices: GPUDevice[] = [];
  let act: ((device: GPUDevice) => void) | undefined;
  const watch = (device: GPUDevice): GPUDevice => {
    devices.push(device);
    const { queue } = device;
    const submit = queue.submit.bind(queue);
    queue.submit = (buffers) => {
      submit(buffers);
      const todo = act;
      act = undefined;
      todo?.(device);
    };
    return device;
  };
  const requestAdapter = async (): Promise<Awaited<ReturnType<Gpu['requestAdapter']>>> => {
    const adapter = await navigator.gpu.requestAdapter();
    if (adapter === null) return null;
    const { features, limits, info } = adapter;
    const requestDevice = async (descriptor?: object): Promise<GPUDevice> =>
      watch(await adapter.requestDevice(descriptor));
    return { features, limits, info, requestDevice };
  };
  return {
    gpu: { requestAdapter },
    devices,
    onSubmit: (next) => {
      act = next;
    },
  };
}
