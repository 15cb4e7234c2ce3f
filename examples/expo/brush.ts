/** A sheet of 28 × 28 pixels, ink 1 and paper 0, as the model reads it: float32 [1, 1, 28, 28]. */
export type Sheet = Float32Array;

/** Pixels along each side of a sheet. */
export const SIDE = 28;
/** Reach of the pen in pixels; beyond half of it the ink gets paler. */
const REACH = 1.6;

/** A sheet without ink. */
export function blankSheet(): Sheet {
  return new Float32Array(SIDE * SIDE);
}

/**
 * Draws a straight line.
 * @param from where the pen was, in [0, 1] of the sheet's sides.
 * @returns a new sheet; the one before stays as it is.
 */
export function drawLine(sheet: Sheet, from: Point, to: Point): Sheet {
  const drawn = Float32Array.from(sheet);
  const steps = Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) * SIDE * 2) + 1;
  for (let step = 0; step <= steps; step += 1) {
    const part = step / steps;
    drawDot(drawn, {
      x: (from.x + (to.x - from.x) * part) * SIDE - 0.5,
      y: (from.y + (to.y - from.y) * part) * SIDE - 0.5,
    });
  }
  return drawn;
}

export interface Point {
  readonly x: number;
  readonly y: number;
}

function drawDot(sheet: Sheet, { x, y }: Point): void {
  for (let row = Math.max(0, Math.ceil(y - REACH)); row <= Math.min(SIDE - 1, y + REACH); row += 1) {
    for (
      let column = Math.max(0, Math.ceil(x - REACH));
      column <= Math.min(SIDE - 1, x + REACH);
      column += 1
    ) {
      const ink = 2 * (1 - Math.hypot(column - x, row - y) / REACH);
      const at = row * SIDE + column;
      sheet[at] = Math.max(sheet[at] ?? 0, Math.min(1, ink));
    }
  }
}
