/** The process in which an app of these tests tries releases. */
import { isMainThread, workerData } from 'node:worker_threads';
import {
  hostInProcess,
  watchLimits,
  type NodeProcessMessage,
  type ProcessLimits,
} from '../../src/workers/node-process-host.ts';
import { createTinyBackend } from './heal-backend.ts';

if (isMainThread) {
  const message = JSON.parse(process.argv[2] ?? '') as NodeProcessMessage;
  hostInProcess(createTinyBackend(), message, new URL(import.meta.url));
} else watchLimits(workerData as ProcessLimits);
