/** The backend for edge runtimes keeps the contract of every backend, with the module that the runtime compiled. */
import * as ort from 'onnxruntime-web/wasm';
import wasmModule from 'onnxruntime-web/ort-wasm-simd-threaded.wasm';
import { onnxruntimeWebEdge } from '../../../src/backends/onnxruntime-web-edge.ts';
import type { TensorMap } from '../../../src/core/backend.ts';
import { addModel, runRawWith } from '../../conformance/backend-models.ts';
import { testBackend } from '../../conformance/backend.ts';

const runRaw = runRawWith(ort, 'wasm');

testBackend('onnxruntime-web', () => onnxruntimeWebEdge({ ort, wasmModule }), {
  provider: 'wasm',
  placement: 'inline',
  runRaw: async (model: Uint8Array, feeds: TensorMap) => {
    // The library does not start here by itself; once it has started, it runs.
    const backend = onnxruntimeWebEdge({ ort, wasmModule });
    await backend.createSession({ bytes: addModel() }, { provider: 'wasm' });
    await backend.close();
    return runRaw(model, feeds);
  },
  packedIntegers: true,
});
