import type { Backend } from '../core/backend.ts';
import { spawnNodeProcess } from '../workers/node-process.ts';
import { createWorkerBackend } from '../workers/realm.ts';

/**
 * Opens the backend in which models are tried out before they are published: a child process, which a model may crash.
 * @param timeoutMs longest time that opening a model, or one run, may take.
 */
export function openCheckBackend(timeoutMs: number): Backend {
  const script = new URL('../worker.js', import.meta.url);
  return createWorkerBackend({
    name: 'onnxruntime-node',
    placement: 'process',
    runTimeoutMs: timeoutMs,
    createTimeoutMs: timeoutMs,
    // What ends the process once does so again.
    maxLosses: 1,
    spawn: () => spawnNodeProcess(script, { library: 'onnxruntime-node' }),
  });
}
