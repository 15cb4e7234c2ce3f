import { toHex } from './core/bytes.ts';
import { createSha256 } from './core/hash.ts';
import type { Platform } from './core/platform.ts';
import { createEd25519 } from './ed25519.ts';
import { openPageLife, type PageLife } from './page-life.ts';
import { createSignatures } from './signatures.ts';

/** JavaScript knows no longer timers, in milliseconds. */
export const LONGEST_MS: number = 2 ** 31 - 1;

/**
 * The platform of any runtime with the standard web interfaces: browsers, Deno, Bun, workers.
 * @param runtime name shown by `info()`.
 */
export function webPlatform(runtime = 'web'): Platform {
  // A page that came over plain HTTP has no `subtle`; engines without a browser have no `navigator`.
  const subtle = globalThis.crypto.subtle as Crypto['subtle'] | undefined;
  const verifyEd25519 = createEd25519(subtle);
  const navigator = globalThis.navigator as typeof globalThis.navigator | undefined;
  const cores = navigator?.hardwareConcurrency;
  const page = openPageLife();
  return {
    runtime,
    ...(cores !== undefined && { cores, hardware: `${navigator?.userAgent} ×${cores}` }),
    ...(navigator !== undefined && { traits: traitsOf(navigator) }),
    ...(navigator?.locks !== undefined && { instance: webInstance(navigator.locks, page) }),
    ...(page && { onHide: page.onHide }),
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
    verifyEd25519,
    verifySignature: createSignatures(subtle, verifyEd25519),
    fetch: (url, init) => globalThis.fetch(url, init),
  };
}

/** What browsers tell beyond the standard. */
interface MoreNavigator {
  /** GiB, rounded; Chromium only. */
  readonly deviceMemory?: number;
  readonly userAgentData?: { readonly platform?: string };
}

function traitsOf(navigator: typeof globalThis.navigator & MoreNavigator): NonNullable<Platform['traits']> {
  const { deviceMemory, language, userAgentData } = navigator;
  const os = userAgentData?.platform?.toLowerCase();
  return {
    ...(os !== undefined && os !== '' && { os }),
    ...(deviceMemory !== undefined && { memoryMiB: deviceMemory * 1024 }),
    ...((language as string | undefined) !== undefined && { locale: language }),
  };
}

/** Each page holds a lock for as long as it lives, whose name says that it does. */
function webInstance(locks: LockManager, page: PageLife | undefined): NonNullable<Platform['instance']> {
  const nameOf = (id: string): string => `inlay-run-${id}`;
  let own: string | undefined;
  return {
    ...(page && { wasLeft: page.wasLeft }),
    get id() {
      if (own === undefined) {
        own = toHex(globalThis.crypto.getRandomValues(new Uint8Array(8)));
        page?.noteLeaving(own);
        // Pages without storage of their own, such as those in sandboxes, have no locks either.
        locks.request(nameOf(own), () => new Promise(() => {})).catch(() => {});
      }
      return own;
    },
    isAlive: async (id) => {
      const { held = [] } = await locks.query();
      return held.some(({ name }) => name === nameOf(id));
    },
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
