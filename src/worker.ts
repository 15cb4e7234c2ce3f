/// <reference path="./workers/comlink-node-adapter.d.ts" />
/**
 * `inlay/worker`: the script of worker threads and of child processes, for bundlers that have to be told about it. It
 * is not imported.
 * @module inlay/worker
 */
import { parentPort, workerData } from 'node:worker_threads';
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs';
import { onnxruntimeNode } from './backends/onnxruntime-node.ts';
import { onnxruntimeWeb } from './backends/onnxruntime-web.ts';
import type { Backend } from './core/backend.ts';
import { hostBackend } from './workers/host.ts';
import {
  hostInProcess,
  watchLimits,
  type NodeProcessMessage,
  type ProcessLimits,
} from './workers/node-process-host.ts';
import type { NodeWorkerData, NodeWorkerMessage } from './workers/node.ts';
import { createGuard } from './workers/quiesce.ts';

const backends: Readonly<Record<NodeWorkerData['library'], (options: object) => Backend>> = {
  'onnxruntime-node': (options) => onnxruntimeNode({ ...options, ort: () => import('onnxruntime-node') }),
  'onnxruntime-web': (options) => onnxruntimeWeb({ ...options, ort: () => import('onnxruntime-web') }),
};
const createBackend = ({ library, options = {} }: NodeWorkerData): Backend => backends[library](options);

if (parentPort === null) {
  if (process.send === undefined) throw new Error('inlay/worker is started as a worker, not imported.');
  const message = JSON.parse(process.argv[2] ?? '') as NodeProcessMessage;
  hostInProcess(createBackend(message), message, new URL(import.meta.url));
} else {
  parentPort.on('messageerror', (error) => {
    // A call that cannot be read would wait for its answer for good; a lost worker does not.
    throw error;
  });
  const message = workerData as NodeWorkerMessage | ProcessLimits;
  if ('cell' in message) {
    hostBackend(createBackend(message), nodeEndpoint(parentPort), createGuard(message.cell));
  } else watchLimits(message);
}
