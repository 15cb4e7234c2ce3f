import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Platform } from './core/platform.ts';
import { LONGEST_MS, webPlatform } from './platform.ts';
import { countCores } from './workers/node-cores.ts';

/** The platform of Node, Bun and Deno: the web interfaces, native hashing, files, and timers that let the process end. */
export function nodePlatform(): Platform {
  const settled = Promise.resolve();
  // Whoever defers thousands of times a second defers the same task.
  let deferred: (() => void) | undefined;
  let hop = (): void => {};
  return {
    ...webPlatform(['bun', 'deno'].find((name) => name in process.versions) ?? 'node'),
    cores: countCores().usable,
    hardware: `${process.arch} ${cpus()[0]?.model ?? ''} ×${availableParallelism()}`,
    // Tasks of `nextTick` come after the promise reactions that are due only if they are added by one of those.
    defer: (task) => {
      if (task !== deferred) {
        deferred = task;
        hop = () => {
          process.nextTick(task);
        };
      }
      void settled.then(hop);
    },
    setTimer: (task, delayMs, keepAlive = false) => {
      const timer = setTimeout(task, Math.min(delayMs, LONGEST_MS));
      if (!keepAlive) timer.unref();
      return () => {
        clearTimeout(timer);
      };
    },
    createSha256: () => {
      const hash = createHash('sha256');
      return {
        update: (bytes) => {
          hash.update(bytes);
        },
        digest: () => new Uint8Array(hash.digest()),
      };
    },
    files: {
      resolve: (path) =>
        path instanceof URL || path.startsWith('file:') ? fileURLToPath(path) : resolve(path),
      size: async (path) => {
        const entry = await stat(path).catch(() => undefined);
        return entry?.isFile() ? entry.size : undefined;
      },
      stamp: async (path) => {
        const entry = await stat(path).catch(() => undefined);
        return entry && `${entry.size} ${entry.mtimeMs}`;
      },
      sha256: async (path) => {
        const hash = createHash('sha256');
        for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
        return hash.digest('hex');
      },
    },
  };
}
