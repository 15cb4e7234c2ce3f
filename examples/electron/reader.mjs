import { fileURLToPath } from 'node:url';
import { createInlay } from 'inlay';
import { imageToTensor, softmax } from 'inlay/process';

const MODEL = fileURLToPath(new URL('../digits/digits-1.1.0.onnx', import.meta.url));
const SIDE = 28;

/** Reads digits with onnxruntime-node, in worker threads of the main process, which itself never waits for a model. */
export function createReader() {
  const inlay = createInlay();
  let loading;
  const load = () => (loading ??= inlay.load(MODEL));
  return {
    /**
     * @param {{ data: Uint8ClampedArray, width: number, height: number }} image of 28 × 28 pixels, as a page sent it.
     * @returns {Promise<{ shares: Float32Array, digit: number, tookMs: number }>}
     */
    async read(image) {
      if (image?.width !== SIDE || image.height !== SIDE)
        throw new Error(`A picture has ${SIDE} × ${SIDE} pixels.`);
      const model = await load();
      const asked = performance.now();
      const { logits } = await model.run({ image: imageToTensor(image, { channels: 'gray' }) });
      const shares = softmax(logits).data;
      return { shares, digit: shares.indexOf(Math.max(...shares)), tookMs: performance.now() - asked };
    },
    async info() {
      await load();
      const [{ backend, placement }] = inlay.info().models;
      return { backend, placement, electron: process.versions.electron };
    },
    close: () => inlay.close(),
  };
}
