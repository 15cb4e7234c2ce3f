import { fitImage, imageToTensor, nonMaximumSuppression } from 'inlay/process';

/**
 * @typedef {{ left: number, top: number, width: number, height: number, score: number }} Face In pixels of the image;
 * `score` is in [0, 1].
 */

/** The network sees 320 × 240 pixels; whatever has other proportions gets bars. */
const SIZE = { width: 320, height: 240, fit: 'contain' };
/** What it was trained on: `(pixel - 127) / 128`. */
const INPUT = { size: SIZE, scale: 1, mean: 127, std: 128 };
/** Boxes that share more than this of their union show the same face. */
const MAX_OVERLAP = 0.3;
const MIN_SCORE = 0.7;

/**
 * Finds faces in what a video, a canvas or an image shows now.
 * @param {Pick<import('inlay').Model, 'run'>} model UltraFace RFB-320.
 * @param {import('inlay/process').ImageSource} image
 * @returns {Promise<Face[]>} The surest first.
 */
export async function detectFaces(model, image) {
  const input = imageToTensor(image, INPUT);
  // A video goes on while the model runs, and may even change its size.
  const { toSource } = fitImage(image, SIZE);
  const { scores, boxes } = await model.run({ input }, { transfer: true });
  const sureness = scores.data.filter((_, index) => index % 2 === 1);
  const kept = nonMaximumSuppression(
    { boxes: boxes.data, scores: sureness },
    { iouThreshold: MAX_OVERLAP, scoreThreshold: MIN_SCORE },
  );
  return kept.map((place) => {
    const [x0, y0, x1, y1] = boxes.data.subarray(4 * place, 4 * place + 4);
    const start = toSource(x0 * SIZE.width, y0 * SIZE.height);
    const end = toSource(x1 * SIZE.width, y1 * SIZE.height);
    return {
      left: start.x,
      top: start.y,
      width: end.x - start.x,
      height: end.y - start.y,
      score: sureness[place],
    };
  });
}
