/** In place of `src/optimize-node/target.ts`: a runtime whose times do not depend on what else the machine does. */
import type { OptimizeRuntime } from '../../src/optimize/runtime.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';

/** A runtime in which a model takes as many milliseconds as it has megabytes. */
export function timedBySize(runtime: OptimizeRuntime): OptimizeRuntime {
  return {
    ...runtime,
    open: async (model, options) => {
      const session = await runtime.open(model, options);
      return { ...session, time: async (_, runs) => Array.from({ length: runs }, () => model.length / 1e6) };
    },
  };
}

export async function openTarget(): Promise<OptimizeRuntime> {
  return timedBySize(createNodeRuntime());
}
