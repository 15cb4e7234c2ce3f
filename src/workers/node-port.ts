import { performance } from 'node:perf_hooks';
import { receiveMessageOnPort, type MessagePort } from 'node:worker_threads';

/** What comlink's Node adapter needs of a port. */
export type Port = Pick<MessagePort, 'on' | 'off' | 'postMessage'>;

/**
 * How long the thread looks for the next call before it goes to sleep, milliseconds. Waking a sleeping thread takes
 * 20 to 80 µs, which is most of what a call through a worker costs; a caller in a loop comes back within that time.
 */
const LOOK_MS = 0.1;

/** Looking pays only while it finds something: below this share of recent successes it is left off … */
const WORTH_IT = 0.3;
/** … but for one time in so many, to notice when callers come faster again. */
const PROBE_EVERY = 32;
/** Weight of the latest look in the share of successes. */
const LATEST = 1 / 8;

/**
 * Wraps a worker's port so that, once every call was answered, the thread looks for the next one for a moment.
 * Every message in is taken for a call, and every message out for its answer.
 */
export function createAttentivePort(port: MessagePort): Port {
  const listeners = new Set<(message: unknown) => void>();
  let unanswered = 0;
  let successes = 1;
  let skipped = 0;

  const deliver = (message: unknown): void => {
    unanswered += 1;
    for (const listener of listeners) listener(message);
  };
  const look = (): void => {
    const until = performance.now() + LOOK_MS;
    let found = receiveMessageOnPort(port);
    while (found === undefined && performance.now() < until) found = receiveMessageOnPort(port);
    successes += LATEST * (Number(found !== undefined) - successes);
    skipped = 0;
    if (found !== undefined) deliver(found.message);
  };
  port.on('message', deliver);

  const attentive: Port = {
    postMessage: (message, transfer) => {
      port.postMessage(message, transfer);
      unanswered -= 1;
      if (unanswered > 0) return;
      if (successes > WORTH_IT || skipped >= PROBE_EVERY) look();
      else skipped += 1;
    },
    on: (_event: string, listener: (message: unknown) => void) => {
      listeners.add(listener);
      return port;
    },
    off: (_event: string, listener: (message: unknown) => void) => {
      listeners.delete(listener);
      return port;
    },
  };
  return attentive;
}
