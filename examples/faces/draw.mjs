const COLOUR = [57, 255, 20, 255];

/**
 * Draws the outline of a box into an image, as thick as the image is large, inside its borders.
 * @param {import('./image.mjs').Image} image
 * @param {import('./detect.mjs').Box} box
 */
export function drawBox(image, { left, top, right, bottom }) {
  const thickness = Math.max(2, Math.round(Math.min(image.width, image.height) / 150));
  const [x0, y0, x1, y1] = [left, top, right, bottom].map(Math.round);
  fill(image, x0, y0, x1, y0 + thickness);
  fill(image, x0, y1 - thickness, x1, y1);
  fill(image, x0, y0, x0 + thickness, y1);
  fill(image, x1 - thickness, y0, x1, y1);
}

function fill({ width, height, data }, left, top, right, bottom) {
  for (let y = Math.max(top, 0); y < Math.min(bottom, height); y += 1) {
    for (let x = Math.max(left, 0); x < Math.min(right, width); x += 1) data.set(COLOUR, (y * width + x) * 4);
  }
}
