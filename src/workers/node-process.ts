/** Child processes of Node: slower to reach than threads, but they can be ended in the middle of native code. */
import { fork } from 'node:child_process';
import { ipcEndpoint } from './node-ipc.ts';
import { MEMORY_NOTE, type NodeProcessMessage } from './node-process-host.ts';
import type { NodeWorkerData } from './node.ts';
import type { LossReason, WorkerEnd, WorkerHandle } from './realm.ts';

/** A worker that is a process. */
export interface NodeProcessHandle extends WorkerHandle {
  readonly kill: () => void;
  readonly pid: number;
}

/** Options of {@link spawnNodeProcess}. */
export interface NodeProcessOptions {
  /** Resident bytes at which the process is killed, looked at some five times a second. Default: no limit. */
  readonly maxBytes?: number;
}

/** Characters of what a process wrote last that are kept. */
const TAIL = 1000;

/** Longest time, in milliseconds, that the end of a process waits for what it has written. */
const DRAIN_MS = 100;

/**
 * Starts a child process. It does not keep this process alive unless a call is in flight, and it ends with this
 * process, however that ends. Its standard output goes nowhere; the end of what it writes to its standard error is in
 * the cause of the error when it is lost.
 * @param script - the module `inlay/worker`.
 * @throws `Error` when the system starts no process.
 */
export function spawnNodeProcess(
  script: URL,
  data: NodeWorkerData,
  options: NodeProcessOptions = {},
): NodeProcessHandle {
  const { maxBytes } = options;
  const message: NodeProcessMessage = {
    ...data,
    parentPid: process.pid,
    ...(maxBytes !== undefined && { maxBytes }),
  };
  const child = fork(script, [JSON.stringify(message)], {
    serialization: 'advanced',
    // Flags of this process, such as a debugger's port, are not the child's.
    execArgv: [],
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  // It says nothing that the end of the process, or its absence, does not.
  child.on('error', () => {});
  const { pid } = child;
  if (pid === undefined) throw new Error('The system starts no further process.');
  // Bun's channel has neither method, and does not keep this process alive.
  const channel = child.channel as { ref?(): void; unref?(): void } | null | undefined;
  const setBusy = (busy: boolean): void => {
    if (busy) {
      child.ref();
      channel?.ref?.();
    } else {
      child.unref();
      channel?.unref?.();
    }
  };
  setBusy(false);

  let tail = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    tail = (tail + text).slice(-TAIL);
  });
  // A pipe is a socket, which would keep this process alive.
  (child.stderr as { unref?: () => void } | null)?.unref?.();

  const ended = new Promise<WorkerEnd>((resolve) => {
    child.once('exit', (code, signal) => {
      const finish = (): void => {
        clearTimeout(timer);
        resolve(endOf(code, signal, tail));
      };
      const timer = setTimeout(finish, DRAIN_MS);
      child.once('close', finish);
    });
  });

  const kill = (): void => {
    child.kill('SIGKILL');
  };
  return {
    pid,
    endpoint: ipcEndpoint(child),
    ended,
    setBusy,
    nextTurn: (task) => {
      setImmediate(task);
    },
    kill,
    end: async () => {
      child.ref();
      kill();
      await ended;
    },
  };
}

function endOf(code: number | null, signal: string | null, tail: string): WorkerEnd {
  const written = tail.trim();
  let reason: LossReason = signal === null ? 'exit' : 'killed';
  if (written.endsWith(MEMORY_NOTE)) reason = 'memory';
  const how = signal === null ? `exited with code ${code}` : `was ended by ${signal}`;
  return {
    reason,
    cause: new Error(`The process ${how}${written === '' ? '.' : `; it wrote: ${written}`}`),
  };
}
