/** A session of ONNX Runtime as the optimiser sees it, whichever build it is of. */

import type { ModelSource, TensorMap } from '../core/backend.ts';
import { callingThread } from '../core/library.ts';
import type { Tensor } from '../core/tensor.ts';
import type { RuntimeSession } from '../optimize/runtime.ts';
import { runError, toOrt, wrapSession, type OrtSession } from '../backends/onnxruntime.ts';

/**
 * Wraps a library session.
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNSUPPORTED` if an input is no tensor, or no output is one.
 */
export function toRuntimeSession(ort: OrtSession, provider: string, threads: number): RuntimeSession {
  const session = wrapSession(ort, { provider, slots: callingThread(), intraOpThreads: threads });
  const { inputs, outputs } = session.signature;
  const fetches = outputs.map(({ name }) => name);
  let timing: Promise<unknown> = Promise.resolve();

  const time = async (feeds: TensorMap, runs: number): Promise<readonly number[]> => {
    const ortFeeds = Object.fromEntries(
      Object.entries(feeds).map(([name, tensor]: [string, Tensor]) => [name, toOrt(tensor)]),
    );
    const times: number[] = [];
    try {
      for (let run = 0; run < runs; run += 1) {
        const startedMs = performance.now();
        await ort.run(ortFeeds, fetches);
        times.push(performance.now() - startedMs);
      }
    } catch (error) {
      throw runError(error, feeds);
    }
    return times;
  };

  return {
    inputs,
    outputs,
    run: (feeds, names) => session.run(feeds, names && { outputs: names }),
    time: (feeds, runs) => {
      const timed = time(feeds, runs);
      timing = timed.catch(() => undefined);
      return timed;
    },
    release: async () => {
      await timing;
      await session.release();
    },
  };
}

/** A model that comes as bytes; the library refuses views on shared memory. */
export function toSource(model: Uint8Array): ModelSource & { readonly bytes: Uint8Array } {
  return { bytes: model.buffer instanceof SharedArrayBuffer ? new Uint8Array(model) : model };
}
