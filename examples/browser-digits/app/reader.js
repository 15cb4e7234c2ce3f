import { createInlay } from 'inlay';
import { imageToTensor, softmax } from 'inlay/process';
import { createPainter } from './picture.js';

/**
 * @typedef {object} Reading
 * @property {Float32Array} shares Sureness of each digit, summing to 1.
 * @property {number} digit The surest.
 * @property {ImageData} seen What the model was given.
 * @property {number} tookMs From asking to having the answer.
 */

/**
 * Loads the model by its name, from the sync server or from what this browser kept of it, and follows its versions.
 * @param {{ url: string, root: string, pollMs: number }} sync
 */
export async function openReader(sync) {
  const inlay = createInlay({
    // What a GPU needs to get going would be a hundred times the size of this model.
    device: 'cpu',
    sync,
  });
  const model = await inlay.load({ name: 'digits' });
  const paint = createPainter();
  return {
    model,
    info: () => inlay.info(),
    /**
     * @param {readonly import('./picture.js').Stroke[]} strokes
     * @returns {Promise<Reading>}
     */
    async read(strokes) {
      const seen = paint(strokes);
      const image = imageToTensor(seen, { channels: 'gray' });
      const asked = performance.now();
      const { logits } = await model.run({ image });
      const tookMs = performance.now() - asked;
      const shares = softmax(logits).data;
      return { shares, digit: shares.indexOf(Math.max(...shares)), seen, tookMs };
    },
  };
}
