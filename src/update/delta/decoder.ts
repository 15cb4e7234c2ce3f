/** What is loaded with the first patch. */

export { applyPatch } from './apply.ts';
export { openLoops } from './wasm.ts';
