import { createSha256 } from './core/hash.ts';
import type { Platform } from './core/platform.ts';

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
      const timer = setTimeout(task, delayMs);
      return () => {
        clearTimeout(timer);
      };
    },
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
