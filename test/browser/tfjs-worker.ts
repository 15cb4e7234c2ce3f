/** A worker of the app with TensorFlow.js in it. */
import { tfjs } from '../../src/backends/tfjs.ts';
import { hostInWorker } from '../../src/workers/web-host.ts';

hostInWorker<{ readonly wasmPaths: string }>(({ wasmPaths }) =>
  tfjs({
    tf: () => import('@tensorflow/tfjs'),
    wasm: () => import('@tensorflow/tfjs-backend-wasm'),
    wasmPaths,
  }),
);
