import { STROKES } from './strokes.mjs';

/** Height and width of a drawn digit in pixels. */
export const SIDE = 28;
const AREA = SIDE * SIDE;
/** Straight pieces per span of a stroke: fine enough that no corner shows at 28 pixels. */
const PIECES = 6;

/**
 * @typedef {() => number} Random uniform in [0, 1)
 * @typedef {import('./strokes.mjs').Point} Point
 */

/**
 * Makes a generator of numbers in [0, 1): sfc32 of PractRand by Chris Doty-Humphrey, whose 128-bit state keeps
 * the streams of different seeds apart.
 * @param {number} seed an integer; its low 32 bits count
 * @returns {Random}
 */
export function createRandom(seed) {
  let a = 0;
  let b = seed | 0;
  let c = 0;
  let counter = 1;
  const next = () => {
    const mixed = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + mixed) | 0;
    return (mixed >>> 0) / 2 ** 32;
  };
  for (let round = 0; round < 12; round += 1) next();
  return next;
}

/**
 * Draws `count` digits with labels spread evenly by chance. A longer set of the same seed begins with the same digits.
 * @param {number} seed @param {number} count
 * @returns {{ labels: Uint8Array, pixels: Float32Array }} `pixels`: float32 [count, 1, 28, 28] in [0, 1]; `labels`: [count] in 0–9
 */
export function drawSet(seed, count) {
  const random = createRandom(seed);
  const labels = new Uint8Array(count);
  const pixels = new Float32Array(count * AREA);
  for (let index = 0; index < count; index += 1) {
    const digit = drawDigit(random);
    labels[index] = digit.label;
    pixels.set(digit.pixels, index * AREA);
  }
  return { labels, pixels };
}

/**
 * Draws one digit as a hand would: ink 1, paper 0. Only arithmetic and square roots are used, which IEEE 754
 * defines to the last bit, so that a seed gives the same pixels on every engine.
 * @param {Random} random
 * @param {number} [label] 0–9; left out, it is drawn evenly
 * @returns {{ label: number, pixels: Float32Array }} `pixels`: float32 [28, 28] in [0, 1], owned by the caller
 */
export function drawDigit(random, label = Math.floor(random() * 10)) {
  const ways = STROKES[label];
  if (ways === undefined) throw new RangeError(`A digit is an integer from 0 to 9, got ${label}.`);
  const pixels = new Float32Array(AREA);
  const hand = createHand(random);
  const radius = 0.8 + random() * 0.9;
  for (const stroke of ways[Math.floor(random() * ways.length)]) {
    drawStroke(pixels, stroke.map(hand), createPen(random, radius));
  }
  addPaper(pixels, random);
  return { label, pixels };
}

/**
 * The habits of one writer for one digit: a smooth warp of the grid, slant, turn, size and place, and a tremble
 * that differs from point to point.
 * @param {Random} random
 * @returns {(point: Point) => Point} grid to pixels
 */
function createHand(random) {
  /** @param {number} spread */
  const around = (spread) => spread * bell(random);
  const warp = Array.from({ length: 6 }, () => around(0.02));
  const slant = 0.12 + around(0.16);
  const half = around(0.055);
  const cos = (1 - half * half) / (1 + half * half);
  const sin = (2 * half) / (1 + half * half);
  const size = 1.35 + around(0.1);
  const [width, height] = [size * (0.85 + around(0.11)), size * (1 + around(0.08))];
  const [left, top] = [SIDE / 2 + around(1), SIDE / 2 + around(1)];
  return ({ x, y, isSharp }) => {
    const bentX = x + warp[0] * x * x + warp[1] * x * y + warp[2] * y * y + around(0.3);
    const bentY = y + warp[3] * x * x + warp[4] * x * y + warp[5] * y * y + around(0.3);
    const slantedX = width * (bentX - slant * bentY);
    const scaledY = height * bentY;
    return { x: left + cos * slantedX - sin * scaledY, y: top + sin * slantedX + cos * scaledY, isSharp };
  };
}

/**
 * Half the width of the line, in pixels, along a stroke: swelling or thinning towards either end.
 * @param {Random} random @param {number} radius
 * @returns {(at: number) => number} of the position 0–1 along the stroke
 */
function createPen(random, radius) {
  const lean = 0.3 * bell(random);
  const swell = 0.5 * bell(random);
  return (at) => {
    const fromMiddle = 2 * at - 1;
    return Math.max(0.5, radius * (1 + lean * fromMiddle + swell * (0.4 - fromMiddle * fromMiddle)));
  };
}

/**
 * Inks a Catmull-Rom curve through the points.
 * @param {Float32Array} pixels @param {Point[]} points @param {(at: number) => number} pen
 */
function drawStroke(pixels, points, pen) {
  const spans = points.length - 1;
  let from = points[0];
  let fromRadius = pen(0);
  for (let span = 0; span < spans; span += 1) {
    const start = points[span];
    const end = points[span + 1];
    const before = start.isSharp || span === 0 ? start : points[span - 1];
    const after = end.isSharp || span === spans - 1 ? end : points[span + 2];
    for (let piece = 1; piece <= PIECES; piece += 1) {
      const t = piece / PIECES;
      const to = {
        x: spline(before.x, start.x, end.x, after.x, t),
        y: spline(before.y, start.y, end.y, after.y, t),
        isSharp: false,
      };
      const toRadius = pen((span + t) / spans);
      drawPiece(pixels, from, to, fromRadius, toRadius);
      from = to;
      fromRadius = toRadius;
    }
  }
}

/**
 * Catmull-Rom between `b` and `c`.
 * @param {number} a @param {number} b @param {number} c @param {number} d @param {number} t in [0, 1]
 */
function spline(a, b, c, d, t) {
  return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)));
}

/**
 * Inks a straight piece with round ends; a pixel at the rim is as dark as the line covers it.
 * @param {Float32Array} pixels @param {Point} from @param {Point} to
 * @param {number} fromRadius @param {number} toRadius in pixels
 */
function drawPiece(pixels, from, to, fromRadius, toRadius) {
  const reach = Math.max(fromRadius, toRadius) + 0.5;
  const left = Math.max(0, Math.floor(Math.min(from.x, to.x) - reach));
  const right = Math.min(SIDE - 1, Math.ceil(Math.max(from.x, to.x) + reach));
  const top = Math.max(0, Math.floor(Math.min(from.y, to.y) - reach));
  const bottom = Math.min(SIDE - 1, Math.ceil(Math.max(from.y, to.y) + reach));
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const perLength = 1 / (dx * dx + dy * dy || 1);
  for (let row = top; row <= bottom; row += 1) {
    for (let column = left; column <= right; column += 1) {
      const [x, y] = [column + 0.5 - from.x, row + 0.5 - from.y];
      const along = Math.min(1, Math.max(0, (x * dx + y * dy) * perLength));
      const [restX, restY] = [x - along * dx, y - along * dy];
      const radius = fromRadius + along * (toRadius - fromRadius);
      const cover = radius + 0.5 - Math.sqrt(restX * restX + restY * restY);
      const at = row * SIDE + column;
      if (cover > pixels[at]) pixels[at] = Math.min(1, cover);
    }
  }
}

/**
 * Adds what ink and paper do: a pale pen, a soft focus now and then, grain, specks.
 * @param {Float32Array} pixels @param {Random} random
 */
function addPaper(pixels, random) {
  const ink = 0.7 + 0.3 * random();
  if (random() < 0.2) soften(pixels);
  const grain = 0.25 * random() * random();
  for (let at = 0; at < AREA; at += 1) pixels[at] = ink * pixels[at] + grain * (random() - 0.5);
  for (let specks = Math.floor(random() * 4); specks > 0; specks -= 1) {
    pixels[Math.floor(random() * AREA)] += random();
  }
  for (let at = 0; at < AREA; at += 1) pixels[at] = Math.min(1, Math.max(0, pixels[at]));
}

/** Averages each pixel with its neighbours, weighted 1-2-1 each way. @param {Float32Array} pixels */
function soften(pixels) {
  for (const step of [1, SIDE]) {
    const source = pixels.slice();
    for (let at = step; at < AREA - step; at += 1) {
      pixels[at] = 0.25 * source[at - step] + 0.5 * source[at] + 0.25 * source[at + step];
    }
  }
}

/** Bell-shaped with mean 0 and variance 1, in [-3, 3]: the sum of three uniforms. @param {Random} random */
function bell(random) {
  return 2 * (random() + random() + random() - 1.5);
}
