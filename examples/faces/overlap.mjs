/** Boxes that share more than this of their union show the same face. */
const MAX_OVERLAP = 0.3;

/**
 * Non-maximum suppression: of boxes that overlap, keeps the surest.
 * @template {import('./detect.mjs').Face} F
 * @param {F[]} faces
 * @returns {F[]} The surest first.
 */
export function dropOverlaps(faces, maxOverlap = MAX_OVERLAP) {
  const kept = [];
  for (const face of faces.toSorted((a, b) => b.score - a.score)) {
    if (kept.every((other) => overlap(face, other) <= maxOverlap)) kept.push(face);
  }
  return kept;
}

/** Intersection over union of two boxes, in [0, 1]. */
export function overlap(a, b) {
  const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  if (width <= 0 || height <= 0) return 0;
  const shared = width * height;
  return shared / (area(a) + area(b) - shared);
}

function area({ left, top, right, bottom }) {
  return (right - left) * (bottom - top);
}
