import { createNodeRuntime, createWasmRuntime } from 'inlay/optimize';
import { autos } from './quantize-auto.mjs';
import { costs } from './quantize-cost.mjs';
import { defaults, parity } from './quantize-golden.mjs';
import { reals } from './quantize-real.mjs';
import { invariance, speeds, wasmSpeeds } from './quantize-speed.mjs';

/**
 * What the optimiser makes of models: beside what Python's tools make of them, how much smaller and faster it is, and
 * what the automatic choice takes. `INLAY_BENCH_QUANTIZE=quick` measures a part of it; any other value of the variable
 * names the parts.
 */
export async function run() {
  const node = createNodeRuntime();
  const wasm = createWasmRuntime();
  const parts = {
    parity: () => parity(node),
    defaults: () => defaults(node),
    speeds: () => speeds(node),
    wasm: () => wasmSpeeds(node, wasm),
    invariance: () => invariance(node, wasm),
    auto: () => autos(node, wasm),
    cost: () => costs(),
    real: () => reals(node),
  };
  const asked = process.env.INLAY_BENCH_QUANTIZE ?? 'all';
  const names = ['all', 'quick'].includes(asked) ? Object.keys(parts) : asked.split(',');
  try {
    const figures = [];
    for (const name of names) figures.push(...(await parts[name]()));
    return figures;
  } finally {
    await wasm.close();
    await node.close();
  }
}
