/**
 * Turns pen strokes into what the model was trained on: 28 × 28 pixels, ink 1 and paper 0, the digit in the middle, as
 * large and as thick as in the training data, however large it was drawn and wherever.
 */

/** Height and width of the picture in pixels. */
export const SIDE = 28;
/** Room that the middle of the pen line may take: what a digit takes in `../digits/draw.mjs`, leaving out extremes. */
const ROOM = { width: 15.5, height: 19 };
/** Width of the pen line in pixels; it is drawn with 1.6 to 3.4 in the training data. */
const PEN = 2.5;
/** Anything smaller than this share of the pad is a dot and is not blown up. */
const DOT = 0.05;

/**
 * @typedef {{ x: number, y: number }} Point
 * @typedef {Point[]} Stroke Points that the pen went through, in any unit.
 */

/**
 * Moves and scales strokes, drawn on a pad of size 1, into the picture.
 * @param {readonly Stroke[]} strokes
 * @returns {Stroke[]} in pixels of the picture.
 */
export function place(strokes) {
  const xs = strokes.flatMap((stroke) => stroke.map(({ x }) => x));
  const ys = strokes.flatMap((stroke) => stroke.map(({ y }) => y));
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const [width, height] = [right - left, bottom - top];
  const scale = Math.max(width, height) < DOT ? SIDE : Math.min(ROOM.width / width, ROOM.height / height);
  const toPixels = ({ x, y }) => ({
    x: SIDE / 2 + (x - (left + right) / 2) * scale,
    y: SIDE / 2 + (y - (top + bottom) / 2) * scale,
  });
  return strokes.map((stroke) => stroke.map(toPixels));
}

/**
 * Draws strokes as smooth lines with round ends.
 * @param {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} context
 * @param {readonly Stroke[]} strokes in the units of the context.
 * @param {number} width of the line.
 */
export function ink(context, strokes, width) {
  context.lineWidth = width;
  context.lineCap = 'round';
  context.lineJoin = 'round';
  context.beginPath();
  for (const stroke of strokes) {
    context.moveTo(stroke[0].x, stroke[0].y);
    for (let index = 1; index < stroke.length - 1; index += 1) {
      const [at, next] = [stroke[index], stroke[index + 1]];
      context.quadraticCurveTo(at.x, at.y, (at.x + next.x) / 2, (at.y + next.y) / 2);
    }
    // A canvas leaves lines without length out, and with them the dot that a tap is.
    const { x, y } = stroke.at(-1);
    context.lineTo(x + 0.01, y);
  }
  context.stroke();
}

/**
 * Creates a painter of pictures, which uses one canvas again and again.
 * @returns {(strokes: readonly Stroke[]) => ImageData} of 28 × 28 pixels, white ink on black.
 */
export function createPainter() {
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  return (strokes) => {
    context.fillStyle = 'black';
    context.fillRect(0, 0, SIDE, SIDE);
    context.strokeStyle = 'white';
    ink(context, place(strokes), PEN);
    return context.getImageData(0, 0, SIDE, SIDE);
  };
}
