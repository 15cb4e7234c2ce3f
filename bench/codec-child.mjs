/** One contestant of the codec bench, in a process of its own so that it is cold and its memory its own. */
import { readFileSync, writeFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';
import { parseModel } from 'inlay/onnx';
import { FIELDS } from '../build/onnx/schema.js';
import { openModelFile, saveModelFile } from '../build/optimize-node/model-file.js';
import { median } from './measure.mjs';

const WARM_RUNS = 15;
const [how, library, path] = process.argv.slice(2);
const libraries = {
  inlay: {
    parse: parseModel,
    read: async () => (await openModelFile(path)).model,
    write: (model) => saveModelFile(`${path}.copy`, model),
  },
  protobufjs: {
    parse: (bytes) => modelType().decode(bytes),
    read: async () => modelType().decode(readFileSync(path)),
    write: (model) => writeFile(`${path}.copy`, modelType().encode(model).finish()),
  },
};
const { parse, read, write } = libraries[library];
const cases = { structure, parse: parseAll, write: writeFileOut };
console.log(JSON.stringify(await cases[how]()));

/** Reads the structure from the file. */
async function structure() {
  return timed(() => openModelFile(path, { weights: 'leave' }));
}

/** Parses bytes that are there. */
async function parseAll() {
  const bytes = readFileSync(path);
  if (library === 'protobufjs') modelType();
  return timed(() => parse(bytes));
}

/** Reads a model and writes it to a file. */
async function writeFileOut() {
  const model = await read();
  const before = residentBytes();
  forgetPeak();
  await write(model);
  const extraBytes = peakBytes() - before;
  await rm(`${path}.copy`);
  return { extraBytes };
}

async function timed(work) {
  const times = [];
  for (let run = 0; run <= WARM_RUNS; run += 1) {
    const began = performance.now();
    await work();
    times.push(performance.now() - began);
  }
  return { coldMs: times[0], warmMs: median(times.slice(1)) };
}

function residentBytes() {
  for (let i = 0; i < 3; i += 1) globalThis.gc();
  return process.memoryUsage.rss();
}

/** Linux counts the peak anew from here on; elsewhere it is that of the whole process. */
function forgetPeak() {
  if (process.platform === 'linux') writeFileSync('/proc/self/clear_refs', '5');
}

function peakBytes() {
  if (process.platform !== 'linux') return process.resourceUsage().maxRSS * 1024;
  const [, kibibytes] = /VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'));
  return Number(kibibytes) * 1024;
}

/** The schema in protobufjs, which comes with onnxruntime-web. */
function modelType() {
  modelType.found ??= loadModelType();
  return modelType.found;
}

function loadModelType() {
  const { Root } = createRequire(createRequire(import.meta.url).resolve('onnxruntime-web'))('protobufjs');
  const toField = ({ name, number, kind, mode, isList }) => [
    name,
    {
      type: kind === 'size' ? 'int64' : kind,
      id: number,
      ...(isList && { rule: 'repeated', options: { packed: mode === 'packed' } }),
    },
  ];
  const nested = Object.entries(FIELDS).map(([message, fields]) => [
    message,
    { fields: Object.fromEntries(fields.map(toField)) },
  ]);
  const type = Root.fromJSON({ nested: Object.fromEntries(nested) }).lookupType('ModelProto');
  // Compiles its functions now.
  return type.setup();
}
