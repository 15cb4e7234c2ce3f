/** The builds of onnxruntime-web that `inlay` uses by default: one for each execution provider. */
import { onnxruntimeWebGpu } from './backends/onnxruntime-web-gpu.ts';
import { onnxruntimeWeb } from './backends/onnxruntime-web.ts';
import type { Backend } from './core/backend.ts';
import type { WebLibraryOptions } from './web-library-options.ts';

/** Creates the backend of one build. Nothing is imported before it is used. */
export function createWebLibrary({ library, wasmPaths, ...options }: WebLibraryOptions): Backend {
  if (library === 'wasm') {
    return onnxruntimeWeb({
      ...options,
      ...(wasmPaths !== undefined && { wasmPaths }),
      ort: () => import('onnxruntime-web/wasm'),
    });
  }
  return onnxruntimeWebGpu({
    ...options,
    ...(wasmPaths !== undefined && { wasmPaths }),
    ort: () => import('onnxruntime-web/webgpu'),
    jspi: () => import('onnxruntime-web/jspi'),
  });
}
