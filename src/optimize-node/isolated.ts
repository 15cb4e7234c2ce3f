/** Models in a process of their own: one that crashes the native library ends that process and nothing else. */

import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { BackendError, fromErrorRecord, type ErrorRecord } from '../core/errors.ts';
import { Tensor } from '../core/tensor.ts';
import type { OptimizeRuntime } from '../optimize/runtime.ts';
import { createRemoteRuntime, type Ask, type Verb, type Verbs } from './remote.ts';

/** Runtimes that a process can have. */
export type IsolatedTarget = 'node-cpu' | 'wasm';

/** A question as it travels between the processes. */
export interface Question {
  readonly id: number;
  readonly verb: Verb;
  readonly body: Verbs[Verb]['body'];
}

/** An answer as it travels. */
export interface Answer {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: ErrorRecord;
}

/** A process that runs. */
interface Running {
  readonly child: ChildProcess;
  readonly ask: Ask;
}

const builtHost = new URL('./isolated-host.js', import.meta.url);

/** Tells whether the script of the process is beside this module. */
export function hasIsolatedHost(): boolean {
  return existsSync(builtHost);
}

/**
 * Creates a runtime whose library lives in a child process, started when it is first needed and again after it died.
 * What a process owes when it dies rejects with {@link BackendError} `ERR_INLAY_WORKER_LOST`; so does what is asked of
 * sessions that it had.
 * @param host - the script of the process. Default: the one that is built beside this module.
 */
export function createIsolatedRuntime(
  target: IsolatedTarget,
  description: string,
  host: URL = builtHost,
): OptimizeRuntime {
  let running: Running | undefined;
  const start = (): Running => {
    const started = startProcess(target, host, () => {
      if (running === started) running = undefined;
    });
    return started;
  };
  return createRemoteRuntime({
    target,
    description,
    connect: () => (running ??= start()).ask,
    can: target === 'node-cpu' ? ['optimized', 'memory'] : ['memory'],
    close: async () => {
      const child = running?.child;
      running = undefined;
      if (child === undefined) return;
      const ended = once(child, 'close');
      child.kill('SIGKILL');
      await ended;
    },
  });
}

function startProcess(target: IsolatedTarget, host: URL, died: () => void): Running {
  const child = fork(fileURLToPath(host), [target], {
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    execArgv: [],
  });
  const waiting = new Map<number, { done(result: unknown): void; fail(error: unknown): void }>();
  let lastId = 0;
  let lost: BackendError | undefined;

  const end = (how: string, cause?: unknown): void => {
    if (lost !== undefined) return;
    lost = new BackendError(
      'ERR_INLAY_WORKER_LOST',
      `The process that had the model ended (${how}): the model crashes the library or takes all memory; try it without the last change.`,
      { cause, details: { target } },
    );
    for (const { fail } of waiting.values()) fail(lost);
    waiting.clear();
    died();
  };
  child.on('error', (error) => {
    end(error.message, error);
  });
  child.on('close', (code, signal) => {
    end(signal ?? `exit code ${code}`);
  });
  child.on('message', (message) => {
    const { id, result, error } = message as Answer;
    const waiter = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) waiter?.done(revive(result));
    else waiter?.fail(fromErrorRecord(error));
  });

  const ask: Ask = (verb, body) =>
    new Promise((done: (result: never) => void, fail) => {
      if (lost !== undefined) {
        fail(lost);
        return;
      }
      lastId += 1;
      child.send({ id: lastId, verb, body } satisfies Question);
      waiting.set(lastId, { done, fail });
    });
  return { child, ask };
}

/** Gives tensors their class back, which does not travel. */
export function revive(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return value;
  if ('dtype' in value && 'shape' in value && 'data' in value) {
    const { dtype, shape, data } = value as Tensor;
    return new Tensor(dtype, shape, data);
  }
  return Array.isArray(value)
    ? value
    : Object.fromEntries(Object.entries(value).map(([name, one]) => [name, revive(one)]));
}
