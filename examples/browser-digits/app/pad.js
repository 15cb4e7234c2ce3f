import { ink } from './picture.js';

/** Width of the pen line, as a share of the pad. */
const PEN = 0.06;
/** Milliseconds for one point of a stroke that is drawn by itself. */
const POINT_MS = 9;

/**
 * Creates a pad to draw on: with a mouse, a pen, fingers, or by itself.
 * @param {HTMLCanvasElement} canvas
 * @param {(strokes: readonly import('./picture.js').Stroke[]) => void} onChange Hears of every change. Points are
 * shares of the pad's side.
 */
export function createPad(canvas, onChange) {
  const context = canvas.getContext('2d');
  /** @type {import('./picture.js').Stroke[]} */
  let strokes = [];
  /** Strokes under way, by the pointer that draws them. */
  const pens = new Map();
  let player = 0;
  let isDue = false;

  const paint = () => {
    isDue = false;
    const side = canvas.width;
    context.clearRect(0, 0, side, side);
    context.strokeStyle = getComputedStyle(canvas).color;
    const scaled = strokes.map((stroke) => stroke.map(({ x, y }) => ({ x: x * side, y: y * side })));
    ink(context, scaled, PEN * side);
  };
  const repaint = () => {
    if (!isDue) requestAnimationFrame(paint);
    isDue = true;
  };
  const changed = () => {
    repaint();
    onChange(strokes);
  };
  const pointOf = ({ clientX, clientY }) => {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    return { x: (clientX - left) / width, y: (clientY - top) / height };
  };

  canvas.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    player += 1;
    const stroke = [pointOf(event)];
    pens.set(event.pointerId, stroke);
    strokes.push(stroke);
    changed();
  });
  canvas.addEventListener('pointermove', (event) => {
    const stroke = pens.get(event.pointerId);
    if (stroke === undefined) return;
    // Pens report more often than frames are shown.
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length > 0 ? events : [event]) stroke.push(pointOf(each));
    changed();
  });
  for (const type of ['pointerup', 'pointercancel']) {
    canvas.addEventListener(type, (event) => pens.delete(event.pointerId));
  }
  new ResizeObserver(([{ contentRect }]) => {
    canvas.width = canvas.height = Math.round(contentRect.width * devicePixelRatio);
    paint();
  }).observe(canvas);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', repaint);

  const replace = (next) => {
    player += 1;
    pens.clear();
    strokes = next;
    changed();
  };
  return {
    clear: () => replace([]),
    undo: () => replace(strokes.slice(0, -1)),
    /**
     * Draws strokes at the speed of a hand, or at once for those who do not want things to move.
     * @param {readonly import('./picture.js').Stroke[]} drawing
     */
    play(drawing) {
      const isStill = matchMedia('(prefers-reduced-motion: reduce)').matches;
      replace(isStill ? [...drawing] : []);
      if (isStill) return;
      const own = player;
      const points = drawing.flatMap((stroke, index) => stroke.map((point) => ({ index, point })));
      const started = performance.now();
      let drawn = 0;
      const step = (now) => {
        if (own !== player) return;
        const due = Math.min(points.length, Math.ceil((now - started) / POINT_MS));
        for (; drawn < due; drawn += 1) (strokes[points[drawn].index] ??= []).push(points[drawn].point);
        changed();
        if (drawn < points.length) requestAnimationFrame(step);
      };
      requestAnimationFrame(step);
    },
  };
}
