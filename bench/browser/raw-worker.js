/** What one would write by hand: one session in a worker, one run after the other. */
import * as ort from 'onnxruntime-web/wasm';

ort.env.wasm.numThreads = 1;
let session;
let turn = Promise.resolve();

onmessage = ({ data }) => {
  turn = turn.then(() => answer(data));
};

async function answer({ id, bytes, feeds }) {
  if (bytes !== undefined) {
    session = await ort.InferenceSession.create(bytes, { executionProviders: ['wasm'] });
    return postMessage({ id });
  }
  const tensors = {};
  for (const [name, { shape, data }] of Object.entries(feeds)) {
    tensors[name] = new ort.Tensor('float32', data, shape);
  }
  const outputs = {};
  const buffers = [];
  for (const [name, { dims, data }] of Object.entries(await session.run(tensors))) {
    outputs[name] = { shape: dims, data };
    buffers.push(data.buffer);
  }
  return postMessage({ id, outputs }, buffers);
}
