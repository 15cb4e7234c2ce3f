/* global SYNC -- where the sync server is and which key signs for it; put in by `../main.mjs`. */
import { createChart } from './chart.js';
import { createPad } from './pad.js';
import { SIDE } from './picture.js';
import { openReader } from './reader.js';
import { sampleOf } from './sample.js';

const PROVIDERS = { wasm: 'WebAssembly', webgpu: 'WebGPU' };
const PLACES = { worker: 'in a worker', inline: 'in this page' };
const STORES = { opfs: 'files of this browser', indexeddb: 'a database of this browser' };

const element = (id) => document.getElementById(id);
const say = (id, text) => {
  element(id).textContent = text;
};
const showShares = createChart(element('bars'));
const screen = element('seen').getContext('2d');
const latencies = [];
let drawing = [];
let reader;

/** Reads what is on the pad. While one reading is under way, only the newest drawing waits for it. */
const show = latestOnly(async () => {
  if (reader === undefined) return;
  if (drawing.length === 0) {
    showShares();
    screen.clearRect(0, 0, SIDE, SIDE);
    say('answer', '·');
    say('sureness', 'Nothing is drawn yet.');
    return;
  }
  try {
    const { shares, digit, seen, tookMs } = await reader.read(drawing);
    showShares(shares);
    screen.putImageData(seen, 0, 0);
    say('answer', digit);
    say('sureness', `${Math.round(100 * shares[digit])} % sure`);
    latencies.push(tookMs);
    if (latencies.length > 25) latencies.shift();
    say('latency', `${median(latencies).toFixed(1)} ms`);
  } catch (error) {
    say('sureness', error.message);
  }
});

const pad = createPad(element('pad'), (strokes) => {
  drawing = strokes;
  const isBlank = strokes.length === 0;
  element('hint').style.opacity = isBlank ? 1 : 0;
  element('undo').disabled = element('clear').disabled = isBlank;
  void show();
});
element('sample').addEventListener('click', () => draw(Math.floor(Math.random() * 10)));
element('undo').addEventListener('click', pad.undo);
element('clear').addEventListener('click', pad.clear);
addEventListener('keydown', ({ key, ctrlKey, metaKey, altKey }) => {
  if (ctrlKey || metaKey || altKey) return;
  if (/^\d$/.test(key)) draw(Number(key));
  else if (key === 'Escape') pad.clear();
});
for (const type of ['online', 'offline']) addEventListener(type, showNetwork);
navigator.serviceWorker?.addEventListener('controllerchange', showNetwork);
showNetwork();
void start();

function draw(digit) {
  pad.play(sampleOf(digit, Math.random));
}

async function start() {
  try {
    reader = await openReader(SYNC);
  } catch (error) {
    say('sureness', `The model could not be loaded: ${error.message}`);
    return;
  }
  showModel();
  reader.model.on('swapped', ({ from, to }) => {
    showModel();
    say('news', `The model went from ${from} to ${to} while this page was open.`);
    void show();
  });
  await show();
  // What a visit without network needs is fetched when this visit has what it needs.
  await navigator.serviceWorker?.register('/sw.js').catch(console.warn);
}

function showModel() {
  const { models, store } = reader.info();
  const [{ name, version, provider, placement }] = models;
  say('version', `${name} ${version}`);
  say('place', `${PROVIDERS[provider] ?? provider}, ${PLACES[placement] ?? placement}`);
  say('store', STORES[store.kind] ?? store.kind);
}

function showNetwork() {
  const isReady = Boolean(navigator.serviceWorker?.controller);
  say('network', navigator.onLine ? `online${isReady ? ', and ready without' : ''}` : 'offline');
}

/** Lets one run of `task` follow another; of the calls that come in between, one is left. */
function latestOnly(task) {
  let isRunning = false;
  let isDue = false;
  return async () => {
    isDue = true;
    if (isRunning) return;
    isRunning = true;
    while (isDue) {
      isDue = false;
      await task();
    }
    isRunning = false;
  };
}

function median(values) {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}
