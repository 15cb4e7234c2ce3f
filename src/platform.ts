import { createSha256 } from './core/hash.ts';
import type { Platform } from './core/platform.ts';

/** JavaScript knows no longer timers, in milliseconds. */
export const LONGEST_MS: number = 2 ** 31 - 1;

/**
 * The platform of any runtime with the standard web interfaces: browsers, Deno, Bun, workers.
 * @param runtime name shown by `info()`.
 */
export function webPlatform(runtime = 'web'): Platform {
  const { subtle } = globalThis.crypto;
  return {
    runtime,
    now: () => Date.now(),
    monotonicMs: () => performance.now(),
    setTimer: (task, delayMs) => {
      const timer = setTimeout(task, Math.min(delayMs, LONGEST_MS));
      return () => {
        clearTimeout(timer);
      };
    },
    defer: createDefer(),
    random: () => Math.random(),
    randomBytes: (length) => globalThis.crypto.getRandomValues(new Uint8Array(length)),
    createSha256,
    verifyEd25519: async (publicKey, signature, message) => {
      const key = await subtle.importKey('raw', publicKey.slice(), 'Ed25519', false, ['verify']);
      return subtle.verify('Ed25519', key, signature.slice(), message.slice());
    },
    fetch: (url, init) => globalThis.fetch(url, init),
  };
}

/** A message to oneself arrives when the promise reactions that are due are through, and before timers. */
function createDefer(): Platform['defer'] {
  // Where an open port keeps the process alive, it does so only for tasks that wait.
  let ports: Record<'port1' | 'port2', MessagePort & { ref?(): void; unref?(): void }> | undefined;
  let tasks: (() => void)[] = [];
  const runAll = (): void => {
    ports?.port1.unref?.();
    const due = tasks;
    tasks = [];
    for (const task of due) task();
  };
  return (task) => {
    if (ports === undefined) {
      ports = new MessageChannel();
      ports.port1.onmessage = runAll;
    }
    if (tasks.push(task) > 1) return;
    ports.port1.ref?.();
    ports.port2.postMessage(0);
  };
}
