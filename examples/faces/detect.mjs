import { imageToTensor, nonMaximumSuppression } from 'inlay/process';

/**
 * @typedef {{ left: number, top: number, right: number, bottom: number }} Box In pixels of the image.
 * @typedef {Box & { score: number }} Face `score` is in [0, 1].
 */

/** What the network was trained on: 320 × 240 pixels, whatever the proportions, as `(pixel - 127) / 128`. */
const INPUT = { size: { width: 320, height: 240, filter: 'bilinear' }, scale: 1, mean: 127, std: 128 };
/** Boxes that share more than this of their union show the same face. */
const MAX_OVERLAP = 0.3;

/**
 * Finds faces.
 * @param {Pick<import('inlay').Model, 'run'>} model UltraFace RFB-320.
 * @param {import('./image.mjs').Image} image
 * @param {number} minScore
 * @returns {Promise<Face[]>} The surest first.
 */
export async function detectFaces(model, image, minScore) {
  const { scores, boxes } = await model.run({ input: imageToTensor(image, INPUT) });
  return toFaces(scores.data, boxes.data, image, minScore);
}

/**
 * Picks the faces among the places that the network looked at; one face fills several of them.
 * @param {Float32Array} scores [places, 2]: background, face.
 * @param {Float32Array} boxes [places, 4]: left, top, right, bottom, as shares of the image.
 * @param {{ width: number, height: number }} image
 * @param {number} minScore
 * @returns {Face[]} The surest first.
 */
export function toFaces(scores, boxes, { width, height }, minScore) {
  const shares = boxes.map(clamp);
  const sureness = scores.filter((_, index) => index % 2 === 1);
  const kept = nonMaximumSuppression(
    { boxes: shares, scores: sureness },
    { iouThreshold: MAX_OVERLAP, scoreThreshold: minScore },
  );
  return kept.map((place) => {
    const [left, top, right, bottom] = shares.subarray(place * 4, place * 4 + 4);
    return {
      left: left * width,
      top: top * height,
      right: right * width,
      bottom: bottom * height,
      score: sureness[place],
    };
  });
}

function clamp(share) {
  return Math.min(Math.max(share, 0), 1);
}
