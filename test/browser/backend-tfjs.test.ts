import * as tf from '@tensorflow/tfjs';
import * as wasm from '@tensorflow/tfjs-backend-wasm';
import * as webgpu from '@tensorflow/tfjs-backend-webgpu';
import { unzipSync } from 'fflate';
import { describe, expect, it } from 'vitest';
import { tfjs, type TfjsOptions } from '../../src/backends/tfjs.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { inWorker } from '../../src/web-backends.ts';
import { errorOf, testBackend } from '../conformance/backend.ts';
import { floats } from '../conformance/backend-models.ts';
import { runRawTfjs, tfBranching, tfjsModels, tfPerceptron } from '../conformance/backend-models-tfjs.ts';

const wasmPaths = new URL('/node_modules/@tensorflow/tfjs-backend-wasm/dist/', location.href).href;
const options: TfjsOptions = { tf, wasm, webgpu, wasmPaths, allowSoftwareAdapter: true };

const refusals = new Map((await tfjs(options).providers()).map(({ name, refusal }) => [name, refusal]));

for (const provider of ['webgpu', 'webgl', 'wasm', 'cpu']) {
  const refusal = refusals.has(provider) ? refusals.get(provider) : 'it is not registered';
  if (refusal === undefined) {
    testBackend(`tfjs on ${provider}`, () => tfjs(options), {
      provider,
      placement: 'inline',
      models: tfjsModels,
      runRaw: runRawTfjs(tf, provider, unzipSync),
      packedIntegers: false,
    });
  } else console.log(`tfjs on ${provider} is not tested: ${refusal}.`);

  describe.skipIf(refusal !== undefined)(`the host of tfjs on ${provider}`, () => {
    it('keeps its choice and its tensors, also over runs that wait and runs that fail', async () => {
      await tf.setBackend('cpu');
      const backend = tfjs(options);
      const before = tf.memory().numTensors;
      const perceptron = await backend.createSession({ bytes: tfPerceptron() }, { provider });
      const branching = await backend.createSession({ bytes: tfBranching() }, { provider });
      const failing = await backend.createSession({ bytes: tfjsModels.failing() }, { provider });
      const loaded = tf.memory().numTensors;
      const vector = (length: number): Tensor => new Tensor('float32', [length], floats(length));
      for (let i = 0; i < 3; i += 1) {
        await perceptron.run({ image: new Tensor('float32', [1, 64], floats(64)) });
        const { y } = await branching.run({ x: new Tensor('float32', [1, 3], new Float32Array([1, 2, 3])) });
        expect([...(y?.data ?? [])]).toEqual([2, 3, 4]);
        await errorOf(failing.run({ a: vector(3), b: vector(4) }));
        expect([tf.getBackend(), tf.memory().numTensors]).toEqual(['cpu', loaded]);
      }
      await backend.close();
      expect([tf.getBackend(), tf.memory().numTensors]).toEqual(['cpu', before]);
    });
  });
}

testBackend(
  'tfjs in a worker',
  () =>
    inWorker({
      name: 'tfjs',
      worker: () => new Worker(new URL('./tfjs-worker.ts', import.meta.url), { type: 'module' }),
      options: { wasmPaths },
    }),
  {
    provider: 'wasm',
    placement: 'worker',
    models: tfjsModels,
    runRaw: runRawTfjs(tf, 'wasm', unzipSync),
    packedIntegers: false,
  },
);

describe('GPUs that are software', () => {
  it('are refused unless they are asked for', async () => {
    const { allowSoftwareAdapter: _, ...strict } = options;
    for (const { name, device, refusal } of await tfjs(strict).providers()) {
      if (device === 'cpu') expect(refusal).toBeUndefined();
      // On a machine with a real GPU, there is nothing to refuse.
      else if (refusal !== undefined) {
        expect(refusal).toMatch(/software|there is no/);
        const error = await errorOf(
          tfjs(strict).createSession({ bytes: tfPerceptron() }, { provider: name }),
        );
        expect(error).toMatchObject({ code: 'ERR_INLAY_DEVICE_UNAVAILABLE' });
      }
    }
  });
});
