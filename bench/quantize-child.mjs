/** Quantizes a file, in a process of its own so that its memory is its own. */
import { readFileSync, writeFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { parseModel } from 'inlay/onnx';
import { applyTechnique, openModelFile, saveModelFile } from 'inlay/optimize';
import { mlp } from './zoo.mjs';

const TECHNIQUES = {
  int8: { kind: 'dynamic', mode: 'tensor' },
  int4: { kind: 'nbits', bits: 4 },
  fp16: { kind: 'float16' },
};
const [path, how, state] = process.argv.slice(2);
console.log(JSON.stringify(how === 'structure' ? await structure() : await convert(TECHNIQUES[how])));

async function structure() {
  const began = performance.now();
  await openModelFile(path, { weights: 'leave' });
  return { ms: performance.now() - began };
}

async function convert(technique) {
  // The compiler and what it makes of the code take as much for a small model, and belong to the process.
  if (state === 'warm') {
    const { model } = applyTechnique(parseModel(mlp({ width: 512, layers: 6 }).model), technique);
    await saveModelFile(`${path}.small`, model);
  }
  for (let i = 0; i < 3; i += 1) globalThis.gc();
  const before = process.memoryUsage.rss();
  // Linux counts the peak anew from here on.
  if (process.platform === 'linux') writeFileSync('/proc/self/clear_refs', '5');
  const began = performance.now();
  const { model } = await openModelFile(path);
  const rewritten = applyTechnique(model, technique);
  const { sizeBytes } = await saveModelFile(`${path}.${technique.kind}`, rewritten.model);
  const ms = performance.now() - began;
  const inputBytes = model.graph.initializer.reduce((sum, { rawData }) => sum + rawData.length, 0);
  const peak = peakBytes();
  return { ms, peakBytes: peak, extraBytes: peak - before - inputBytes - sizeBytes };
}

function peakBytes() {
  if (process.platform !== 'linux') return process.resourceUsage().maxRSS * 1024;
  const [, kibibytes] = /VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'));
  return Number(kibibytes) * 1024;
}
