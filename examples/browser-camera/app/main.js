import { createInlay } from 'inlay';
import { detectFaces } from './detect.js';
import { followFrames } from './frames.js';
import { drawFaces } from './overlay.js';

const PROVIDERS = { wasm: 'WebAssembly', webgpu: 'WebGPU' };
const PLACES = { worker: 'in a worker', inline: 'in this page' };
/** What to say when there is no camera to be had (Media Capture and Streams §10.2). */
const REFUSALS = {
  NotAllowedError: 'The camera was not allowed. Allow it in the address bar, or choose a video.',
  NotFoundError: 'There is no camera here. Choose a video instead.',
  NotReadableError: 'The camera is in use by something else.',
};
/** Milliseconds over which frames per second are counted. */
const WINDOW_MS = 2000;

const element = (id) => document.getElementById(id);
const say = (id, text) => {
  element(id).textContent = text;
};
const video = element('video');
const inlay = createInlay();
/** Counts what was started, so that whoever waits for a camera notices that something else is wanted by now. */
let turn = 0;
let model;
let release = () => {};

element('camera').addEventListener('click', () => void startCamera());
element('file').addEventListener('change', ({ target }) => {
  const [file] = target.files;
  if (file !== undefined) void startVideo(file);
  target.value = '';
});
element('stop').addEventListener('click', () => stop('Stopped.'));
void load();

async function load() {
  try {
    model = await inlay.load('/ultraface.onnx');
    const [{ provider, placement }] = inlay.info().models;
    say('place', `${PROVIDERS[provider] ?? provider}, ${PLACES[placement] ?? placement}`);
    say('message', 'Start the camera, or choose a video.');
    element('camera').disabled = element('file').disabled = false;
  } catch (error) {
    say('message', `The model could not be loaded: ${error.message}`);
  }
}

async function startCamera() {
  const own = stop('Waiting for the camera …');
  try {
    if (navigator.mediaDevices === undefined) {
      throw new Error('Only a page of https or of localhost gets a camera.');
    }
    const stream = await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: 'user' },
    });
    const close = () => {
      for (const track of stream.getTracks()) track.stop();
      video.srcObject = null;
    };
    if (own !== turn) return close();
    release = close;
    for (const track of stream.getTracks())
      track.addEventListener('ended', () => stop('The camera is gone.'));
    video.srcObject = stream;
    element('frame').classList.add('is-mirror');
    await follow();
  } catch (error) {
    if (own === turn) stop(REFUSALS[error.name] ?? error.message);
  }
}

async function startVideo(file) {
  const own = stop('Opening the video …');
  const url = URL.createObjectURL(file);
  release = () => {
    video.removeAttribute('src');
    video.load();
    URL.revokeObjectURL(url);
  };
  try {
    video.src = url;
    video.loop = true;
    element('frame').classList.remove('is-mirror');
    await follow();
  } catch {
    if (own === turn) stop(`${file.name} is no video that this browser can play.`);
  }
}

/** Lets go of what is going on. @returns the turn that begins. */
function stop(text) {
  release();
  release = () => {};
  drawFaces(element('boxes'), element('boxes'), []);
  element('stop').disabled = true;
  say('message', text);
  turn += 1;
  return turn;
}

/** Looks for faces in whatever the video plays, until it is stopped. */
async function follow() {
  const own = turn;
  await video.play();
  if (own !== turn) return;
  say('message', '');
  element('stop').disabled = false;
  const finished = [];
  const leave = followFrames(video, async ({ dropped }) => {
    const { videoWidth: width, videoHeight: height } = video;
    const began = performance.now();
    try {
      const faces = await detectFaces(model, video);
      if (own !== turn) return;
      drawFaces(element('boxes'), { width, height }, faces);
      say('faces', faces.length);
    } catch (error) {
      if (own === turn) stop(`The model failed: ${error.message}`);
      return;
    }
    const now = performance.now();
    finished.push(now);
    while (finished[0] < now - WINDOW_MS) finished.shift();
    say('rate', `${((1000 * (finished.length - 1)) / (now - finished[0] || 1)).toFixed(0)} per second`);
    say('dropped', `${dropped} frames`);
    say('latency', `${(now - began).toFixed(0)} ms`);
  });
  const close = release;
  release = () => {
    leave();
    close();
  };
}
