import { tmpdir } from 'node:os';
import * as tf from '@tensorflow/tfjs';
import * as wasm from '@tensorflow/tfjs-backend-wasm';
import { expect, it } from 'vitest';
import { tfjs } from '../../src/backends/tfjs-node.ts';
import { createInlay } from '../../src/node.ts';
import { createMemoryStore } from '../../src/stores/memory.ts';
import { errorOf } from '../conformance/backend.ts';
import { tfPerceptron } from '../conformance/backend-models-tfjs.ts';

// A failed start spoils the library's WASM for the thread, hence a file of its own.
it('WASM files that are not there are an error of that provider, and the CPU takes over', async () => {
  const backend = tfjs({ tf, wasm, wasmPaths: `${tmpdir()}/nowhere/` });
  for (let i = 0; i < 2; i += 1) {
    const error = await errorOf(backend.createSession({ bytes: tfPerceptron() }, { provider: 'wasm' }));
    expect(error).toMatchObject({ name: 'BackendError', code: 'ERR_INLAY_BACKEND_UNAVAILABLE' });
    expect(String(error)).toContain('"wasm" does not start here');
    expect(tf.getBackend()).toBeUndefined();
  }
  const inlay = createInlay({ backends: [backend], store: createMemoryStore() });
  await inlay.load(tfPerceptron());
  const attempts = inlay.info().models[0]?.attempts ?? [];
  expect(attempts.map(({ provider, outcome }) => [provider, outcome])).toEqual([
    ['wasm', 'refused'],
    ['cpu', 'chosen'],
  ]);
  await inlay.close();
  await backend.close();
});
