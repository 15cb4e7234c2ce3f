/** Opens the place that a model is optimised for. */

import type { OptimizeRuntime, TargetName } from '../optimize/runtime.ts';
import { openBrowserRuntime } from './browser.ts';
import { createNodeRuntime } from './node-cpu.ts';
import { createWasmRuntime } from './wasm.ts';

/** Options of {@link openTarget}. */
export interface TargetOptions {
  /** Path of the browser for `webgpu`. Default: the one that is found. */
  readonly browser?: string | undefined;
}

/**
 * Opens a target on this machine. `wasm` runs under Node, `webgpu` in a browser.
 * @throws {@link BackendError} if there is none.
 */
export async function openTarget(
  target: TargetName,
  { browser }: TargetOptions = {},
): Promise<OptimizeRuntime> {
  if (target === 'webgpu')
    return openBrowserRuntime({ device: 'webgpu', ...(browser !== undefined && { browser }) });
  return target === 'wasm' ? createWasmRuntime() : createNodeRuntime();
}
