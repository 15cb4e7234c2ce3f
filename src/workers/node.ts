/// <reference path="./comlink-node-adapter.d.ts" />
/** Worker threads of Node. */
import { Worker } from 'node:worker_threads';
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs';
import { createCell, markEnded, quiesce, quiesceAtExit, type Cell } from './quiesce.ts';
import type { LossReason, WorkerEnd, WorkerHandle } from './realm.ts';

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

/** Options of {@link spawnNodeWorker}. */
export interface NodeWorkerOptions {
  /** Bytes of the JavaScript heap, at least 4 MiB; native memory does not count. Default: what Node allows. */
  readonly maxHeapBytes?: number;
}

/**
 * Starts a worker thread. It does not keep the process alive unless a call is in flight, and it is ended only outside
 * native code, also when the process exits; one that runs WebAssembly may be killed at any time.
 * @param script - the module `inlay/worker`.
 */
export function spawnNodeWorker(
  script: URL,
  data: NodeWorkerData,
  options: NodeWorkerOptions = {},
): WorkerHandle {
  const { maxHeapBytes } = options;
  const cell = createCell();
  const workerData: NodeWorkerMessage = { ...data, cell };
  const worker = new Worker(script, {
    workerData,
    name: `inlay ${data.library}`,
    ...(maxHeapBytes !== undefined && {
      resourceLimits: { maxOldGenerationSizeMb: Math.max(4, maxHeapBytes / 2 ** 20) },
    }),
    // This flag of `node --eval` is inherited by workers, which refuse to load files with it.
    ...(process.execArgv.some((argument) => argument.startsWith('--input-type')) && { execArgv: [] }),
  });
  worker.unref();
  const unwatch = quiesceAtExit(cell);

  let failure: NodeJS.ErrnoException | undefined;
  let killed = false;
  let ending: Promise<void> | undefined;
  const end = async (): Promise<void> => {
    await quiesce(cell);
    killed = true;
    await worker.terminate();
  };
  const endOnce = (): Promise<void> => (ending ??= end());
  const reasonOf = (): LossReason => {
    if (failure?.code === 'ERR_WORKER_OUT_OF_MEMORY') return 'memory';
    return failure === undefined && killed ? 'killed' : 'exit';
  };

  worker.on('error', (error) => {
    failure = error;
  });
  worker.on('messageerror', (error) => {
    // A reply that cannot be read leaves its call without an answer.
    failure = error;
    void endOnce();
  });
  const ended = new Promise<WorkerEnd>((resolve) => {
    worker.once('exit', (code) => {
      unwatch();
      markEnded(cell);
      const cause = failure ?? new Error(`The worker thread exited with code ${code}.`);
      resolve({ reason: reasonOf(), cause });
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
    ...(data.library === 'onnxruntime-web' && {
      kill: () => {
        killed = true;
        void worker.terminate();
      },
    }),
    end: endOnce,
  };
}
