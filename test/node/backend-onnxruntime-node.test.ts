import * as ort from 'onnxruntime-node';
import { onnxruntimeNode } from '../../src/backends/onnxruntime-node.ts';
import { testBackend, type BackendTraits } from '../conformance/backend.ts';
import { runRawWith } from '../conformance/backend-models.ts';
import { temporaryFiles, workerBackend } from './backend-libraries.ts';

const traits: Omit<BackendTraits, 'placement'> = {
  provider: 'cpu',
  runRaw: runRawWith(ort, 'cpu'),
  packedIntegers: false,
  writeFile: temporaryFiles(),
};

testBackend('onnxruntime-node', () => onnxruntimeNode({ ort }), { ...traits, placement: 'inline' });
testBackend('onnxruntime-node in a worker', () => workerBackend('onnxruntime-node'), {
  ...traits,
  placement: 'worker',
});
