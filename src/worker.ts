/// <reference path="./workers/comlink-node-adapter.d.ts" />
/**
 * `inlay/worker`: the script of worker threads, for bundlers that have to be told about it. It is not imported.
 * @module inlay/worker
 */
import { parentPort, workerData } from 'node:worker_threads';
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs';
import { onnxruntimeNode } from './backends/onnxruntime-node.ts';
import { onnxruntimeWeb } from './backends/onnxruntime-web.ts';
import type { Backend } from './core/backend.ts';
import { hostBackend } from './workers/host.ts';
import type { NodeWorkerMessage } from './workers/node.ts';
import { createGuard } from './workers/quiesce.ts';

const backends: Readonly<Record<NodeWorkerMessage['library'], (options: object) => Backend>> = {
  'onnxruntime-node': (options) => onnxruntimeNode({ ...options, ort: () => import('onnxruntime-node') }),
  'onnxruntime-web': (options) => onnxruntimeWeb({ ...options, ort: () => import('onnxruntime-web') }),
};

if (parentPort === null) throw new Error('inlay/worker is started as a worker thread, not imported.');
parentPort.on('messageerror', (error) => {
  // A call that cannot be read would wait for its answer for good; a lost worker does not.
  throw error;
});
const { library, options = {}, cell } = workerData as NodeWorkerMessage;
hostBackend(backends[library](options), nodeEndpoint(parentPort), createGuard(cell));
