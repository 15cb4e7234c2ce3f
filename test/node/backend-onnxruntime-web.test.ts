import * as ort from 'onnxruntime-web';
import { onnxruntimeWeb } from '../../src/backends/onnxruntime-web.ts';
import { testBackend, type BackendTraits } from '../conformance/backend.ts';
import { runRawWith } from '../conformance/backend-models.ts';
import { temporaryFiles, workerBackend } from './backend-libraries.ts';

ort.env.wasm.numThreads = 1;

const traits: Omit<BackendTraits, 'placement'> = {
  provider: 'wasm',
  runRaw: runRawWith(ort, 'wasm'),
  packedIntegers: true,
  writeFile: temporaryFiles(),
};

testBackend('onnxruntime-web', () => onnxruntimeWeb({ ort }), { ...traits, placement: 'inline' });
testBackend('onnxruntime-web in a worker', () => workerBackend('onnxruntime-web'), {
  ...traits,
  placement: 'worker',
});
