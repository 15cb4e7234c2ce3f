import * as ort from 'onnxruntime-web/wasm';
import { onnxruntimeWeb } from '../../src/backends/onnxruntime-web.ts';
import { testBackend } from '../conformance/backend.ts';
import { runRawWith } from '../conformance/backend-models.ts';

ort.env.wasm.numThreads = 1;

testBackend('onnxruntime-web', () => onnxruntimeWeb({ ort }), {
  provider: 'wasm',
  placement: 'inline',
  runRaw: runRawWith(ort, 'wasm'),
  packedIntegers: true,
});
