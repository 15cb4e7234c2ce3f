/** Variants that the optimiser makes of several versions of a model, by the same technique. */
import { createNodeRuntime } from 'inlay/optimize';
import { Tensor } from 'inlay';
import { openWorkpiece } from './quantize-race.mjs';

const TECHNIQUES = {
  'int8, dynamic': { kind: 'dynamic', mode: 'tensor' },
  'int8, static': { kind: 'static' },
  'int4 in blocks of 32': { kind: 'nbits', bits: 4 },
};
/** Inputs that ranges are taken from. */
const SAMPLES = 64;

/**
 * @param {readonly Uint8Array[]} files versions, with an input `x`
 * @param {readonly Float32Array[]} examples
 * @returns {Promise<Record<string, Uint8Array[]>>} all versions by technique
 */
export async function variantsOf(files, examples) {
  const runtime = createNodeRuntime();
  const samples = examples.slice(0, SAMPLES).map((x) => ({ x: new Tensor('float32', [1, x.length], x) }));
  try {
    const pieces = [];
    for (const file of files) pieces.push(await openWorkpiece(file, runtime, samples));
    const variants = {};
    for (const [name, technique] of Object.entries(TECHNIQUES)) {
      variants[name] = [];
      for (const piece of pieces) variants[name].push(await piece.make(technique));
    }
    return variants;
  } finally {
    await runtime.close();
  }
}
