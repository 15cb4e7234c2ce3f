import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Tensor } from 'inlay';
import { createGraph, encodePieces, parseModel } from 'inlay/onnx';
import { saveModelFile } from '../build/optimize-node/model-file.js';
import { median } from './measure.mjs';
import { figure } from './report.mjs';

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 7);
/** Layers of 8 nodes, with a weight of 320 × 320 each: 101 MB and 1,968 nodes. */
const LAYERS = 246;
const WIDTH = 320;
const CHILD = fileURLToPath(new URL('codec-child.mjs', import.meta.url));

/** What it costs to read and write ONNX files, beside protobufjs, with a process for each run. */
export async function run() {
  const folder = await mkdtemp(join(tmpdir(), 'inlay-bench-codec-'));
  try {
    const path = join(folder, 'model.onnx');
    const { sizeBytes } = await saveModelFile(path, largeModel());
    const name = `${Math.round(sizeBytes / 1e6)} MB, ${LAYERS * 8} nodes`;
    const row = (what, metric, runs, of, more) =>
      figure({
        bench: 'codec',
        case: `${name}, ${what}`,
        metric,
        value: median(runs.inlay.map(of)),
        ...(runs.protobufjs && { baseline: median(runs.protobufjs.map(of)) }),
        ...more,
      });
    const structure = await race('structure', ['inlay'], path);
    const parse = await race('parse', ['inlay', 'protobufjs'], path);
    const write = await race('write', ['inlay', 'protobufjs'], path);
    const cold = ({ coldMs }) => coldMs;
    const warm = ({ warmMs }) => warmMs;
    const extra = ({ extraBytes }) => extraBytes / 1e6;
    const least = { targetIs: 'ratio', target: 0.2 };
    return [
      row('structure from a file', 'time, first in a process', structure, cold, { unit: 'ms', target: 60 }),
      row('structure from a file', 'time', structure, warm, { unit: 'ms' }),
      row('parse', 'time, first in a process', parse, cold, { unit: 'ms', target: 60 }),
      row('parse', 'time', parse, warm, { unit: 'ms' }),
      row('write to a file', 'extra memory', write, extra, { unit: 'MB', target: 10 }),
      row('write to a file', 'extra memory beside protobufjs', write, extra, { unit: 'MB', ...least }),
      ...linear(),
    ];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function race(how, libraries, path) {
  const runs = Object.fromEntries(libraries.map((library) => [library, []]));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const library of libraries) {
      const args = ['--expose-gc', CHILD, how, library, path];
      const { stdout } = await promisify(execFile)(process.execPath, args);
      runs[library].push(JSON.parse(stdout));
    }
  }
  return runs;
}

/** Whether the time for a node stays the same in larger graphs. */
function linear() {
  const perNode = (nodes) => {
    const model = chain(nodes);
    const whole = Buffer.concat(encodePieces(model));
    const times = { write: [], parse: [] };
    for (let round = 0; round < 5; round += 1) {
      const began = performance.now();
      encodePieces(model);
      const written = performance.now();
      parseModel(whole);
      times.write.push(written - began);
      times.parse.push(performance.now() - written);
    }
    return { write: (median(times.write) / nodes) * 1000, parse: (median(times.parse) / nodes) * 1000 };
  };
  const few = perNode(10_000);
  const many = perNode(100_000);
  return ['write', 'parse'].map((what) =>
    figure({
      bench: 'codec',
      case: `100,000 nodes beside 10,000, ${what}`,
      metric: 'time for each node',
      value: many[what],
      baseline: few[what],
      unit: 'µs',
      targetIs: 'ratio',
      target: 2,
    }),
  );
}

function chain(nodes) {
  const graph = createGraph({ name: 'chain', opset: 17 });
  graph.input('x', 'float32', ['batch', WIDTH]);
  let value = 'x';
  for (let i = 0; i < nodes; i += 1) value = graph.node('Relu', [value]);
  graph.output(value, 'float32', ['batch', WIDTH]);
  return graph.toModel();
}

function largeModel() {
  const graph = createGraph({ name: 'large', opset: 17 });
  graph.input('x', 'float32', ['batch', WIDTH]);
  let value = 'x';
  for (let layer = 0; layer < LAYERS; layer += 1) {
    const weight = new Float32Array(WIDTH * WIDTH).map((_, i) => Math.sin(i + layer));
    graph.initializer(`w${layer}`, new Tensor('float32', [WIDTH, WIDTH], weight));
    graph.initializer(`b${layer}`, new Tensor('float32', [WIDTH], weight.subarray(0, WIDTH)));
    value = graph.node('Add', [graph.node('MatMul', [value, `w${layer}`]), `b${layer}`]);
    for (let i = 0; i < 6; i += 1) value = graph.node('Relu', [value]);
  }
  graph.output(value, 'float32', ['batch', WIDTH]);
  return graph.toModel();
}
