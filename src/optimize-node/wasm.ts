/** WebAssembly on the processor, through `onnxruntime-web` under Node: what browsers without WebGPU run. */

import { createOrtRealm, guardSession, type OrtWebModule } from '../backends/onnxruntime-web-realm.ts';
import { BackendError, closedError } from '../core/errors.ts';
import type { LibraryLoader } from '../core/library.ts';
import type { OptimizeRuntime } from '../optimize/runtime.ts';
import { createIsolatedRuntime } from './isolated.ts';
import { describeLibrary } from './library-version.ts';
import { toRuntimeSession, toSource } from './ort-session.ts';

/** Options of {@link createWasmRuntime}. */
export interface WasmRuntimeOptions {
  /** The module `onnxruntime-web`, or a function that imports it. Default: the installed one. */
  readonly ort?: LibraryLoader<OrtWebModule>;
  /**
   * Runs models in a process of their own: a model that breaks WebAssembly down breaks it for the whole process, and
   * memory that a model took is given back with the process only. Default false.
   */
  readonly isolated?: boolean;
}

const NAME = 'onnxruntime-web';
const PROVIDER = 'wasm';

/** Creates the runtime of `onnxruntime-web` in Node: SIMD, one thread. Runs block the calling thread. */
export function createWasmRuntime({
  ort = () => import('onnxruntime-web'),
  isolated = false,
}: WasmRuntimeOptions = {}): OptimizeRuntime {
  const description = describeLibrary(NAME);
  if (isolated) return createIsolatedRuntime('wasm', description);
  const realm = createOrtRealm(ort, {});
  let isClosed = false;
  return {
    target: 'wasm',
    description,
    open: async (model, { level = 'all', threads = 1 } = {}) => {
      if (isClosed) throw closedError('The runtime');
      if (threads !== 1) {
        throw new BackendError(
          'ERR_INLAY_BACKEND_UNAVAILABLE',
          `WebAssembly has one thread in Node, not ${threads}; measure several in a browser.`,
          { details: { threads } },
        );
      }
      const settings = { graphOptimizationLevel: level };
      const session = await realm.inTurn(() => realm.create(toSource(model), PROVIDER, 1, settings));
      return toRuntimeSession(guardSession(session, realm.inTurn), PROVIDER, 1);
    },
    memoryBytes: async () => process.memoryUsage.rss(),
    close: async () => {
      isClosed = true;
    },
  };
}
