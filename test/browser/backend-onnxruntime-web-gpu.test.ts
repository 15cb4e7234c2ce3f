import * as ort from 'onnxruntime-web/webgpu';
import { vi } from 'vitest';
import { onnxruntimeWebGpu } from '../../src/backends/onnxruntime-web-gpu.ts';
import { testBackend } from '../conformance/backend.ts';
import { runRawWith } from '../conformance/backend-models.ts';

// A processor that plays the GPU compiles each shader for seconds.
vi.setConfig({ testTimeout: 120_000 });

ort.env.wasm.numThreads = 1;

testBackend('onnxruntime-web on WebGPU', () => onnxruntimeWebGpu({ ort, allowSoftwareAdapter: true }), {
  provider: 'webgpu',
  placement: 'inline',
  runRaw: runRawWith(ort, 'webgpu'),
  packedIntegers: true,
});
