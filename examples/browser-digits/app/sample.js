import { STROKES } from '../../digits/strokes.mjs';

/** Points that a span between two points of a stroke is drawn with. */
const POINTS = 8;

/**
 * Strokes of a digit in somebody's hand: slanted, stretched and trembling a little differently each time.
 * @param {number} digit 0–9
 * @param {() => number} random uniform in [0, 1)
 * @returns {import('./picture.js').Stroke[]} Points are shares of the pad's side.
 */
export function sampleOf(digit, random) {
  const ways = STROKES[digit];
  const way = ways[Math.floor(random() * ways.length)];
  const around = (spread) => spread * (random() + random() - 1);
  const size = 0.05 + around(0.006);
  const slant = 0.1 + around(0.15);
  const stretch = 0.9 + around(0.12);
  const hand = ({ x, y, isSharp }) => {
    const [trembledX, trembledY] = [x + around(0.3), y + around(0.3)];
    return { x: 0.5 + size * stretch * (trembledX - slant * trembledY), y: 0.5 + size * trembledY, isSharp };
  };
  return way.map((stroke) => curveThrough(stroke.map(hand)));
}

/** Catmull-Rom through the points, with a corner where the pen turns sharply. */
function curveThrough(points) {
  const curve = [points[0]];
  for (let span = 0; span < points.length - 1; span += 1) {
    const [start, end] = [points[span], points[span + 1]];
    const before = start.isSharp || span === 0 ? start : points[span - 1];
    const after = end.isSharp || span === points.length - 2 ? end : points[span + 2];
    for (let piece = 1; piece <= POINTS; piece += 1) {
      const t = piece / POINTS;
      curve.push({
        x: spline(before.x, start.x, end.x, after.x, t),
        y: spline(before.y, start.y, end.y, after.y, t),
      });
    }
  }
  return curve;
}

function spline(a, b, c, d, t) {
  return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)));
}
