import { createChart } from './chart.js';
import { createPad } from './pad.js';
import { createPainter } from './picture.js';

const element = (id) => document.getElementById(id);
const paint = createPainter();
const showShares = createChart(element('bars'));
let drawing = [];
let isRunning = false;
let isDue = false;

const pad = createPad(element('pad'), (strokes) => {
  drawing = strokes;
  isDue = true;
  const isBlank = strokes.length === 0;
  element('hint').style.opacity = isBlank ? 1 : 0;
  element('undo').disabled = element('clear').disabled = isBlank;
  void show();
});
element('undo').addEventListener('click', pad.undo);
element('clear').addEventListener('click', pad.clear);
const { backend, placement, electron } = await globalThis.digits.info();
element('place').textContent = `${backend}, ${placement} of the main process`;
element('version').textContent = electron ?? '–';

/** Asks the main process about what is on the pad; while it answers, only the newest drawing waits. */
async function show() {
  if (isRunning) return;
  isRunning = true;
  while (isDue) {
    isDue = false;
    if (drawing.length === 0) {
      showShares();
      element('answer').textContent = '·';
      element('sureness').textContent = 'Nothing is drawn yet.';
      continue;
    }
    try {
      const { shares, digit, tookMs } = await globalThis.digits.read(paint(drawing));
      showShares(shares);
      element('answer').textContent = digit;
      element('sureness').textContent = `${Math.round(100 * shares[digit])} % sure`;
      element('latency').textContent = `${tookMs.toFixed(1)} ms`;
    } catch (error) {
      element('sureness').textContent = error.message;
    }
  }
  isRunning = false;
}
