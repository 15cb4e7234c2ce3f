/** A realm with WebGPU, whose device is destroyed when a message asks for it: at once, or in the middle of work. */
import { onnxruntimeWebGpu } from '../../src/backends/onnxruntime-web-gpu.ts';
import { hostInWorker } from '../../src/workers/web-host.ts';
import { watchedGpu } from './watched-gpu.ts';

const { gpu, devices, onSubmit } = watchedGpu();
addEventListener('message', ({ data }) => {
  if (data === 'destroy') for (const device of devices) device.destroy();
  if (data === 'destroy in work') onSubmit((device) => device.destroy());
});

hostInWorker(() =>
  onnxruntimeWebGpu({ ort: () => import('onnxruntime-web/webgpu'), gpu, allowSoftwareAdapter: true }),
);
