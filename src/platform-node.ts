import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Platform } from './core/platform.ts';
import { webPlatform } from './platform.ts';

/** The platform of Node: the web interfaces, native hashing, files, and timers that let the process end. */
export function nodePlatform(): Platform {
  return {
    ...webPlatform('node'),
    setTimer: (task, delayMs, keepAlive = false) => {
      const timer = setTimeout(task, delayMs);
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
    },
  };
}
