import { dirname } from 'node:path';
import { createRequire } from 'node:module';
import * as tf from '@tensorflow/tfjs';
import * as wasm from '@tensorflow/tfjs-backend-wasm';
import { unzipSync } from 'fflate';
import { tfjs } from '../../src/backends/tfjs-node.ts';
import { testBackend, type BackendTraits } from '../conformance/backend.ts';
import { runRawTfjs, tfjsModels } from '../conformance/backend-models-tfjs.ts';
import { temporaryFiles } from './backend-libraries.ts';

const wasmPaths = `${dirname(createRequire(import.meta.url).resolve('@tensorflow/tfjs-backend-wasm'))}/`;

const traits = (provider: string): BackendTraits => ({
  provider,
  placement: 'inline',
  models: tfjsModels,
  runRaw: runRawTfjs(tf, provider, unzipSync),
  packedIntegers: false,
  writeFile,
});
const writeFile = temporaryFiles();

testBackend('tfjs on cpu', () => tfjs({ tf }), traits('cpu'));
testBackend('tfjs on wasm', () => tfjs({ tf, wasm, wasmPaths }), traits('wasm'));

// Its binary is not installed everywhere.
const name: string = '@tensorflow/tfjs-node';
const tfNode = await import(name).then(
  (module: { default: typeof tf }) => module.default,
  (error: Error) => console.log(`tfjs on tensorflow is not tested: ${error.message.split('\n')[0]}`),
);
if (tfNode) {
  testBackend('tfjs on tensorflow', () => tfjs({ tf: tfNode }), {
    ...traits('tensorflow'),
    runRaw: runRawTfjs(tfNode, 'tensorflow', unzipSync),
  });
}
