/** Models on the calling thread: loaded when the first model is, where there are no workers or none are wanted. */
import type { Backend, ExecutionProvider } from './core/backend.ts';
import type { WebBackendOptions } from './web-backends.ts';
import { createWebLibrary } from './web-libraries.ts';
import { toLibraryOptions } from './web-library-options.ts';
import { joinByProvider } from './workers/by-provider.ts';

const NO_WORKER =
  'this runtime has no Worker, so that models run on the calling thread, where the loss of a GPU device would be for good';

const GPU: ExecutionProvider = { name: 'webgpu', device: 'gpu' };

/** Creates the default backend on the calling thread. */
export function createInline(options: WebBackendOptions): Backend {
  const isWanted = options.placement === 'inline';
  return joinByProvider('onnxruntime-web', [
    isWanted
      ? { provider: GPU, backend: createWebLibrary(toLibraryOptions('webgpu', options)) }
      : { provider: { ...GPU, refusal: NO_WORKER } },
    {
      provider: { name: 'wasm', device: 'cpu' },
      backend: createWebLibrary(toLibraryOptions('wasm', options)),
    },
  ]);
}
