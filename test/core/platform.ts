import { createSha256 } from '../../src/core/hash.ts';
import type { Platform } from '../../src/core/platform.ts';

/** A platform whose time, timers, randomness and network the test controls; its cryptography is the real one. */
export interface TestPlatform extends Platform {
  /** Moves the clocks and runs the timers that fall due, in order. */
  advance(ms: number): void;
  /** Sets the wall clock. */
  setNow(ms: number): void;
  /** Delays of the timers that wait, milliseconds from now, ascending. */
  timers(): readonly number[];
  /** Whether the process would wait for one of them. */
  isKeptAlive(): boolean;
  /** Resolves when no signature is being verified: that happens on threads of their own, at their own speed. */
  verified(): Promise<void>;
}

/** 2030-01-01T00:00:00Z. */
export const testStart: number = Date.UTC(2030, 0, 1);

/** Creates a test platform. Without `fetch`, every request fails as in a plane. */
export function testPlatform(options: { seed?: number; fetch?: Platform['fetch'] } = {}): TestPlatform {
  let now = testStart;
  let monotonic = 0;
  let state = options.seed ?? 1;
  const waiting = new Set<{ at: number; task: () => void; keepAlive: boolean }>();
  const verifying = new Set<Promise<boolean>>();

  /** mulberry32 */
  const random = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };

  return {
    runtime: 'test',
    now: () => now,
    monotonicMs: () => monotonic,
    setTimer: (task, delayMs, keepAlive = false) => {
      const timer = { at: monotonic + delayMs, task, keepAlive };
      waiting.add(timer);
      return () => {
        waiting.delete(timer);
      };
    },
    defer: (task) => {
      setTimeout(task, 0);
    },
    random,
    randomBytes: (length) => Uint8Array.from({ length }, () => Math.floor(random() * 256)),
    createSha256,
    verifyEd25519: async (publicKey, signature, message) => {
      const verdict = verifyNatively(publicKey, signature, message);
      verifying.add(verdict);
      return verdict.finally(() => {
        verifying.delete(verdict);
      });
    },
    verified: async () => {
      await Promise.allSettled(verifying);
    },
    fetch: options.fetch ?? (() => Promise.reject(new TypeError('fetch failed'))),
    advance: (ms) => {
      const end = monotonic + ms;
      for (;;) {
        const next = [...waiting].sort((a, b) => a.at - b.at)[0];
        if (next === undefined || next.at > end) break;
        waiting.delete(next);
        now += next.at - monotonic;
        monotonic = next.at;
        next.task();
      }
      now += end - monotonic;
      monotonic = end;
    },
    setNow: (ms) => {
      now = ms;
    },
    isKeptAlive: () => [...waiting].some(({ keepAlive }) => keepAlive),
    timers: () => [...waiting].map(({ at }) => at - monotonic).sort((a, b) => a - b),
  };
}

async function verifyNatively(
  publicKey: Uint8Array,
  signature: Uint8Array,
  message: Uint8Array,
): Promise<boolean> {
  const { subtle } = globalThis.crypto;
  const key = await subtle.importKey('raw', publicKey.slice(), 'Ed25519', false, ['verify']);
  return subtle.verify('Ed25519', key, signature.slice(), message.slice());
}

/** Lets pending work go on, one turn of the event loop at a time, until something holds. */
export async function until(holds: () => boolean, turns = 5000): Promise<void> {
  for (let turn = 0; !holds(); turn += 1) {
    if (turn === turns) throw new Error('What the test waits for does not happen.');
    await new Promise((resolve) => {
      setTimeout(resolve, 0);
    });
  }
}
