/** Opens the place that a model is optimised for. */

import type { OptimizeRuntime, TargetName } from '../optimize/runtime.ts';
import { openBrowserRuntime } from './browser.ts';
import { hasIsolatedHost } from './isolated.ts';
import { createNodeRuntime } from './node-cpu.ts';
import { createWasmRuntime } from './wasm.ts';

/** Options of {@link openTarget}. */
export interface TargetOptions {
  /** Path of the browser for `webgpu`. Default: the one that is found. */
  readonly browser?: string | undefined;
}

/**
 * Opens a target on this machine. `wasm` runs under Node, `webgpu` in a browser; native code runs in a process of its own,
 * since there are models that end the process which opens them, unless the script of that process is not there, as in a
 * bundle.
 * @throws {@link BackendError} if there is none.
 */
export async function openTarget(
  target: TargetName,
  { browser }: TargetOptions = {},
): Promise<OptimizeRuntime> {
  if (target === 'webgpu')
    return openBrowserRuntime({ device: 'webgpu', ...(browser !== undefined && { browser }) });
  return target === 'wasm' ? createWasmRuntime() : createNodeRuntime({ isolated: hasIsolatedHost() });
}
