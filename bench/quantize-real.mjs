/** Two real models with their tasks: faces in photographs, and speech in a recording. */
import { existsSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { Tensor } from 'inlay';
import { encodeModel, parseModel } from 'inlay/onnx';
import { optimizeModel } from 'inlay/optimize';
import { imageToTensor } from 'inlay/process';
import { toFaces } from '../examples/faces/detect.mjs';
import { decodeImage } from '../examples/faces/image.mjs';
import { decodeWav } from '../examples/speech/audio.mjs';
import { findSegments } from '../examples/speech/segments.mjs';
import { createVad, SAMPLE_RATE, WINDOW } from '../examples/speech/vad.mjs';
import {
  DATA,
  isQuick,
  openWorkpiece,
  race,
  readData,
  row,
  sizeRow,
  speedRow,
  sqnrOf,
  TECHNIQUES,
} from './quantize-race.mjs';

export async function reals(runtime) {
  const rows = [];
  for (const task of isQuick ? [speech] : [faces, speech]) {
    const missing = task.files.find((file) => !existsSync(new URL(file, DATA)));
    if (missing === undefined) rows.push(...(await judge(runtime, await task.open(runtime))));
    else console.error(`Skipped: ../shared/data/${missing} is not there.`);
  }
  return rows;
}

/** Tries each technique and the automatic choice on a task. */
async function judge(runtime, { name, bytes, calibration, evaluation, agreement, isSensitive }) {
  const choose = async (measure, options) => {
    const { model, decision, isChanged } = await optimizeModel(parseModel(bytes), {
      runtime,
      samples: evaluation,
      calibration: { data: calibration },
      monotonicMs: () => performance.now(),
      ...options,
    });
    return [
      `automatic by ${measure}: ${decision.chosen ?? 'the original'}`,
      isChanged ? encodeModel(model) : bytes,
    ];
  };
  const score = async (session) => {
    const shares = (await agreement(session)).map(({ value, baseline }) => value / baseline);
    return Math.min(...shares);
  };
  const models = Object.fromEntries([
    await choose('SQNR'),
    ...(isSensitive ? [await choose('its task', { evaluate: { score } })] : []),
  ]);
  const workpiece = await openWorkpiece(bytes, runtime, calibration);
  for (const [technique, how] of Object.entries(TECHNIQUES)) {
    const made = await workpiece.make(how);
    if (made !== undefined) models[technique] = made;
  }
  const others = Object.entries(models).filter(([, made]) => made !== bytes);
  const times = await race(runtime, { float: bytes, ...Object.fromEntries(others) }, evaluation[0]);
  const rows = [];
  for (const [technique, made] of Object.entries(models)) {
    const what = `${name}, ${technique}`;
    const isChosen = technique.startsWith('automatic');
    const task = await withSession(runtime, made, agreement);
    const sqnrDb = await sqnrOf(runtime, bytes, made, evaluation);
    rows.push(
      speedRow(what, times[technique] ?? times.float, times.float, isChosen ? 0.97 : undefined),
      sizeRow(what, made, bytes),
      ...(sqnrDb < Infinity ? [row(what, 'SQNR', sqnrDb, { unit: 'dB' })] : []),
      ...task.map(({ metric, value, baseline }) => row(what, metric, value, { baseline })),
    );
  }
  return rows;
}

async function withSession(runtime, model, use) {
  const session = await runtime.open(model);
  try {
    return await use(session);
  } finally {
    await session.release();
  }
}

const PHOTOGRAPHS = ['portrait.jpg', 'street.jpg', 'wolves.jpg'];
const FACE_INPUT = { size: { width: 320, height: 240, filter: 'bilinear' }, scale: 1, mean: 127, std: 128 };
const FACE_SCORE = 0.7;
/** Boxes that share as much of their union are of the same face. */
const SAME_FACE = 0.9;
/** Parts of each photograph that activations are calibrated on. */
const CROPS = 8;

/** Faces in photographs; calibrated on parts of these. */
const faces = {
  files: ['ultraface-rfb-320.onnx', ...PHOTOGRAPHS],
  open: async (runtime) => {
    const bytes = readData('ultraface-rfb-320.onnx');
    const images = PHOTOGRAPHS.map((file) => decodeImage(readData(file)));
    const toFeeds = (image) => ({ input: imageToTensor(image, FACE_INPUT) });
    const evaluation = images.map(toFeeds);
    const find = async (session) => {
      const found = [];
      for (const [i, feeds] of evaluation.entries()) {
        const { scores, boxes } = await session.run(feeds);
        found.push(toFaces(scores.data, boxes.data, images[i], FACE_SCORE));
      }
      return found;
    };
    const expected = await withSession(runtime, bytes, find);
    return {
      name: 'UltraFace',
      isSensitive: false,
      bytes,
      calibration: images.flatMap((image) => cropsOf(image).map(toFeeds)),
      evaluation,
      agreement: async (session) => {
        const actual = await find(session);
        const same = expected.reduce((sum, own, i) => sum + sameFaces(own, actual[i]), 0);
        const all = expected.reduce((sum, own, i) => sum + Math.max(own.length, actual[i].length), 0);
        return [{ metric: 'same faces of all', value: same, baseline: all }];
      },
    };
  },
};

/** How many of the faces are found in both lists; each is matched once. */
function sameFaces(expected, actual) {
  const left = [...actual];
  return expected.filter((face) => {
    const at = left.findIndex((other) => overlap(face, other) >= SAME_FACE);
    if (at >= 0) left.splice(at, 1);
    return at >= 0;
  }).length;
}

/** Intersection over union. */
function overlap(a, b) {
  const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  if (width <= 0 || height <= 0) return 0;
  const area = ({ left, top, right, bottom }) => (right - left) * (bottom - top);
  return (width * height) / (area(a) + area(b) - width * height);
}

function cropsOf(image) {
  return Array.from({ length: CROPS }, (_, i) => {
    const share = 0.4 + (0.6 * i) / CROPS;
    const [width, height] = [Math.floor(image.width * share), Math.floor(image.height * share)];
    const left = Math.floor((image.width - width) * (((i * 37) % 11) / 11));
    const top = Math.floor((image.height - height) * (((i * 53) % 7) / 7));
    return crop(image, { left, top, width, height });
  });
}

function crop(image, { left, top, width, height }) {
  const data = new Uint8Array(width * height * 4);
  for (let y = 0; y < height; y += 1) {
    const start = ((top + y) * image.width + left) * 4;
    data.set(image.data.subarray(start, start + width * 4), y * width * 4);
  }
  return { width, height, data };
}

/** How far the ends of a segment may be from where they were. */
const EDGE_MS = 64;
const WINDOW_MS = (WINDOW * 1000) / SAMPLE_RATE;
/** Every so many-th window of the recording is calibrated on; others in between are compared. */
const EVERY = 25;

/** Speech in a recording; calibrated on windows of it, with the state that they met. */
const speech = {
  files: ['silero-vad-16k.onnx', 'speech-16k.wav'],
  open: async (runtime) => {
    const bytes = readData('silero-vad-16k.onnx');
    const samples = decodeWav(readData('speech-16k.wav'), SAMPLE_RATE);
    const durationMs = (samples.length * 1000) / SAMPLE_RATE;
    const seen = [];
    const listen = async (session, see) => {
      const run = async (feeds) => {
        const bound = { ...feeds, sr: new Tensor('int64', [], BigInt64Array.of(BigInt(feeds.sr))) };
        see?.(bound);
        return session.run(bound);
      };
      const vad = createVad({ run, signature: { inputs: session.inputs, outputs: session.outputs } });
      const probabilities = [...(await vad.process(samples)), ...(await vad.finish())];
      return {
        decisions: probabilities.map((probability) => probability >= 0.5),
        segments: findSegments(probabilities, { windowMs: WINDOW_MS, durationMs }),
      };
    };
    const expected = await withSession(runtime, bytes, (session) =>
      listen(session, (feeds) => seen.push(feeds)),
    );
    const nth = (offset) => seen.filter((_, i) => i % EVERY === offset);
    return {
      name: 'Silero VAD',
      // Errors of one window go into the state of the next, which a ratio over single windows does not tell.
      isSensitive: true,
      bytes,
      calibration: nth(0),
      evaluation: nth(12),
      agreement: async (session) => {
        const { decisions, segments } = await listen(session);
        const same = decisions.filter((decision, i) => decision === expected.decisions[i]).length;
        const isNear = (a, b) => Math.abs(a - b) <= EDGE_MS;
        const found = expected.segments.filter(({ start, end }) =>
          segments.some((other) => isNear(start, other.start) && isNear(end, other.end)),
        ).length;
        const most = Math.max(segments.length, expected.segments.length);
        return [
          { metric: 'same windows of all', value: same, baseline: decisions.length },
          { metric: `same segments within ${EDGE_MS} ms of all`, value: found, baseline: most },
        ];
      },
    };
  },
};
