/** The child process's half: it lives as long as its parent, however busy it is and however the parent ends. */
import { writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import type { Backend } from '../core/backend.ts';
import { hostBackend } from './host.ts';
import { ipcEndpoint, type IpcPort } from './node-ipc.ts';
import type { NodeWorkerData } from './node.ts';

/** What arrives in the child, as JSON in its first argument. */
export interface NodeProcessMessage extends NodeWorkerData, ProcessLimits {}

/** What ends a child process. */
export interface ProcessLimits {
  /** It does not outlive this process. */
  readonly parentPid: number;
  /** Resident bytes that are too much. */
  readonly maxBytes?: number;
}

/** The last words of a process that took too much memory. */
export const MEMORY_NOTE = 'inlay: over the memory limit';

/**
 * Serves a backend to the parent process.
 * @param guardian - a script that calls {@link watchLimits} with the `workerData` of the thread it runs in.
 */
export function hostInProcess(backend: Backend, limits: ProcessLimits, guardian: URL): void {
  // A terminal and a service manager signal the whole group, and the parent may have calls to finish.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
  process.on('disconnect', endNow);
  // A thread of its own: native code blocks this one.
  new Worker(guardian, {
    workerData: limits,
    name: 'inlay guardian',
    resourceLimits: { maxOldGenerationSizeMb: 16 },
  }).unref();
  hostBackend(backend, ipcEndpoint(process as IpcPort), { enter: () => {}, leave: () => {} });
}

/** Milliseconds between two looks. */
const LOOK_MS = 200;

/** Ends the process of the calling thread when a limit is passed. */
export function watchLimits({ parentPid, maxBytes = Number.POSITIVE_INFINITY }: ProcessLimits): void {
  setInterval(() => {
    if (process.ppid !== parentPid || !isAlive(parentPid)) endNow();
    if (process.memoryUsage.rss() > maxBytes) {
      try {
        writeSync(2, `\n${MEMORY_NOTE}\n`);
      } finally {
        endNow();
      }
    }
  }, LOOK_MS);
}

/** Windows keeps the number of a parent that is gone. */
function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function endNow(): void {
  process.kill(process.pid, 'SIGKILL');
}
