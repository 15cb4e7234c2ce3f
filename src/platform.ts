import { createSha256 } from './core/hash.ts';
import type { Platform } from './core/platform.ts';
import { createEd25519 } from './ed25519.ts';

/** JavaScript knows no longer timers, in milliseconds. */
export const LONGEST_MS: number = 2 ** 31 - 1;

/**
 * The platform of any runtime with the standard web interfaces: browsers, Deno, Bun, workers.
 * @param runtime name shown by `info()`.
 */
export function webPlatform(runtime = 'web'): Platform {
  // A page that came over plain HTTP has no `subtle`; engines without a browser have no `navigator`.
  const subtle = globalThis.crypto.subtle as Crypto['subtle'] | undefined;
  const navigator = globalThis.navigator as typeof globalThis.navigator | undefined;
  const cores = navigator?.hardwareConcurrency;
  return {
    runtime,
    ...(cores !== undefined && { cores, hardware: `${navigator?.userAgent} ×${cores}` }),
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
    ...(subtle && {
      digest: async (bytes) =>
        new Uint8Array(await subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>)),
    }),
    verifyEd25519: createEd25519(subtle),
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
