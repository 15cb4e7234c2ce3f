import { toPlanes } from './image.mjs';
import { dropOverlaps } from './overlap.mjs';

/**
 * @typedef {{ left: number, top: number, right: number, bottom: number }} Box In pixels of the image.
 * @typedef {Box & { score: number }} Face `score` is in [0, 1].
 */

const WIDTH = 320;
const HEIGHT = 240;

/**
 * Finds faces.
 * @param {Pick<import('inlay').Model, 'run'>} model UltraFace RFB-320.
 * @param {import('./image.mjs').Image} image
 * @param {number} minScore
 * @returns {Promise<Face[]>} The surest first.
 */
export async function detectFaces(model, image, minScore) {
  const input = toPlanes(image, WIDTH, HEIGHT, (value) => (value - 127) / 128);
  const { scores, boxes } = await model.run({ input });
  return dropOverlaps(toFaces(scores.data, boxes.data, image, minScore));
}

/**
 * Picks what looks like a face among the places that the network looked at; one face fills several of them.
 * @param {Float32Array} scores [places, 2]: background, face.
 * @param {Float32Array} boxes [places, 4]: left, top, right, bottom, as shares of the image.
 * @param {{ width: number, height: number }} image
 * @param {number} minScore
 * @returns {Face[]}
 */
export function toFaces(scores, boxes, { width, height }, minScore) {
  const faces = [];
  for (let place = 0; place < scores.length / 2; place += 1) {
    const score = scores[place * 2 + 1];
    if (score < minScore) continue;
    const [left, top, right, bottom] = boxes.subarray(place * 4, place * 4 + 4).map(clamp);
    faces.push({
      left: left * width,
      top: top * height,
      right: right * width,
      bottom: bottom * height,
      score,
    });
  }
  return faces;
}

function clamp(share) {
  return Math.min(Math.max(share, 0), 1);
}
