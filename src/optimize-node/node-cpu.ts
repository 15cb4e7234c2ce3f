/** The processor, through `onnxruntime-node`. */

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  createError,
  type OrtModule,
  type OrtSession,
  type OrtSessionOptions,
} from '../backends/onnxruntime.ts';
import { closedError } from '../core/errors.ts';
import { createLoader, type LibraryLoader } from '../core/library.ts';
import type { OptimizationLevel, OptimizeRuntime } from '../optimize/runtime.ts';
import { createIsolatedRuntime } from './isolated.ts';
import { describeLibrary } from './library-version.ts';
import { toRuntimeSession, toSource } from './ort-session.ts';

/** Options of {@link createNodeRuntime}. */
export interface NodeRuntimeOptions {
  /** The module `onnxruntime-node`, or a function that imports it. Default: the installed one. */
  readonly ort?: LibraryLoader<OrtModule>;
  /** Runs models in a process of their own, so that one that kills it is an error like others. Default false. */
  readonly isolated?: boolean;
}

const NAME = 'onnxruntime-node';
const PROVIDER = 'cpu';

/**
 * Creates the runtime of `onnxruntime-node` on the processor. Opening and running block the calling thread, unless they
 * are isolated.
 */
export function createNodeRuntime({
  ort = () => import('onnxruntime-node'),
  isolated = false,
}: NodeRuntimeOptions = {}): OptimizeRuntime {
  const description = describeLibrary(NAME);
  if (isolated) return createIsolatedRuntime('node-cpu', description);
  const load = createLoader(ort, NAME);
  let isClosed = false;

  const create = async (
    model: Uint8Array,
    settings: Pick<OrtSessionOptions, 'graphOptimizationLevel' | 'optimizedModelFilePath'>,
    threads: number,
  ): Promise<OrtSession> => {
    if (isClosed) throw closedError('The runtime');
    const library = await load();
    const source = toSource(model);
    try {
      return await library.InferenceSession.create(source.bytes, {
        executionProviders: [PROVIDER],
        intraOpNumThreads: threads,
        interOpNumThreads: 1,
        logSeverityLevel: 4,
        // As in apps: threads that spin while they wait take the processor from whatever else is measured.
        extra: { session: { intra_op: { allow_spinning: '0' }, inter_op: { allow_spinning: '0' } } },
        ...settings,
      });
    } catch (error) {
      throw createError(error, source, PROVIDER);
    }
  };

  const optimized = async (model: Uint8Array, level: OptimizationLevel): Promise<Uint8Array> => {
    const folder = await mkdtemp(join(tmpdir(), 'inlay-optimized-'));
    try {
      const path = join(folder, 'model.onnx');
      const settings = { graphOptimizationLevel: level, optimizedModelFilePath: path };
      await (await create(model, settings, 1)).release();
      const { buffer, byteOffset, byteLength } = await readFile(path);
      return new Uint8Array(buffer, byteOffset, byteLength);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  };

  return {
    target: 'node-cpu',
    description,
    open: async (model, { level = 'all', threads = 1 } = {}) =>
      toRuntimeSession(await create(model, { graphOptimizationLevel: level }, threads), PROVIDER, threads),
    optimized,
    memoryBytes: async () => process.memoryUsage.rss(),
    close: async () => {
      isClosed = true;
    },
  };
}
