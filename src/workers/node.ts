/// <reference path="./comlink-node-adapter.d.ts" />
/** Worker threads of Node. */
import { Worker } from 'node:worker_threads';
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs';
import { createCell, quiesce, quiesceAtExit, type Cell } from './quiesce.ts';
import type { WorkerHandle } from './realm.ts';

/** What a worker is told to host. */
export interface NodeWorkerData {
  /** Package that the worker imports. */
  readonly library: 'onnxruntime-node' | 'onnxruntime-web';
  /** Options of the library's backend, as far as they are plain data. */
  readonly options?: Readonly<Record<string, unknown>>;
}

/** What arrives in the worker. */
export interface NodeWorkerMessage extends NodeWorkerData {
  readonly cell: Cell;
}

/**
 * Starts a worker thread. It does not keep the process alive unless a call is in flight, and it is ended only outside
 * native code, also when the process exits.
 * @param script - the module `inlay/worker`.
 */
export function spawnNodeWorker(script: URL, data: NodeWorkerData): WorkerHandle {
  const cell = createCell();
  const workerData: NodeWorkerMessage = { ...data, cell };
  const worker = new Worker(script, {
    workerData,
    name: `inlay ${data.library}`,
    // This flag of `node --eval` is inherited by workers, which refuse to load files with it.
    ...(process.execArgv.some((argument) => argument.startsWith('--input-type')) && { execArgv: [] }),
  });
  worker.unref();
  const unwatch = quiesceAtExit(cell);

  let reason: unknown;
  let ending: Promise<void> | undefined;
  const end = async (): Promise<void> => {
    await quiesce(cell);
    await worker.terminate();
  };
  const endOnce = (): Promise<void> => (ending ??= end());

  worker.on('error', (error) => {
    reason = error;
  });
  worker.on('messageerror', (error) => {
    // A reply that cannot be read leaves its call without an answer.
    reason = error;
    void endOnce();
  });
  const ended = new Promise<unknown>((resolve) => {
    worker.once('exit', (code) => {
      unwatch();
      resolve(reason ?? new Error(`The worker thread exited with code ${code}.`));
    });
  });

  return {
    endpoint: nodeEndpoint(worker),
    ended,
    setBusy: (busy) => {
      if (busy) worker.ref();
      else worker.unref();
    },
    nextTurn: (task) => {
      setImmediate(task);
    },
    end: endOnce,
  };
}
