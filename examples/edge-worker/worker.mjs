// Reads a digit from 784 bytes, one per pixel, row by row, 255 for ink.
import { createInlay } from 'inlay';
import { softmax } from 'inlay/process';
import wasmModule from 'onnxruntime-web/ort-wasm-simd-threaded.wasm';
import digits from '../digits/digits-1.1.0.onnx';

const AREA = 28 * 28;

const inlay = createInlay({ wasmModule });
let loading;

/** The model, which the first request loads for all. */
function load(context) {
  loading ??= inlay.load(digits).catch((error) => {
    loading = undefined;
    throw error;
  });
  // Others wait for it, too: it must not end with the request that began it.
  context.waitUntil(loading.catch(() => {}));
  return loading;
}

export default {
  async fetch(request, _env, context) {
    if (request.method !== 'POST') return new Response('POST 784 bytes, one per pixel.\n', { status: 405 });
    const pixels = new Uint8Array(await request.arrayBuffer());
    if (pixels.length !== AREA) {
      return new Response(`A picture has ${AREA} bytes, got ${pixels.length}.\n`, { status: 400 });
    }
    const model = await load(context);
    const { logits } = await model.run({ image: Float32Array.from(pixels, (ink) => ink / 255) });
    const shares = softmax(logits).data;
    const digit = shares.indexOf(Math.max(...shares));
    return Response.json({ digit, confidence: shares[digit] });
  },
};
