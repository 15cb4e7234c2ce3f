import * as ort from 'onnxruntime-node';
import * as ortWeb from 'onnxruntime-web';
import { testBackend } from '../conformance/backend.ts';
import { runRawWith } from '../conformance/backend-models.ts';
import { processBackend, temporaryFiles } from './worker-fixture.ts';

ortWeb.env.wasm.numThreads = 1;
const writeFile = temporaryFiles();

testBackend('onnxruntime-node in a process', () => processBackend('onnxruntime-node'), {
  provider: 'cpu',
  placement: 'process',
  runRaw: runRawWith(ort, 'cpu'),
  packedIntegers: false,
  writeFile,
});
testBackend('onnxruntime-web in a process', () => processBackend('onnxruntime-web'), {
  provider: 'wasm',
  placement: 'process',
  runRaw: runRawWith(ortWeb, 'wasm'),
  packedIntegers: true,
  writeFile,
});
