import { createHash } from 'node:crypto';
import { createReadStream, readFileSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Hasher } from './core/hash.ts';
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
    instance: nodeInstance(),
    traits: {
      os: OS_NAMES[process.platform] ?? process.platform,
      arch: process.arch,
      memoryMiB: Math.floor(totalmem() / 2 ** 20),
      locale: Intl.DateTimeFormat().resolvedOptions().locale,
    },
    memoryBytes: () => process.memoryUsage.rss(),
    processorMs: () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1000;
    },
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
    createSha256: () => createHasher('sha256'),
    createSha512: () => createHasher('sha512'),
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
      read: async (path) => new Uint8Array(await readFile(path)),
      sha256: async (path) => {
        const hash = createHash('sha256');
        for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
        return hash.digest('hex');
      },
    },
  };
}

/** Names as rollouts have them, where Node has others. */
const OS_NAMES: Readonly<Record<string, string>> = { darwin: 'macos', win32: 'windows' };

/** A process is told from a later one with the same number by when it began, where the system says so. */
function nodeInstance(): NonNullable<Platform['instance']> {
  return {
    id: `${process.pid}-${beganAt(process.pid)}`,
    isAlive: async (id) => {
      const [pid = 0, began] = id.split('-').map(Number);
      if (!Number.isSafeInteger(pid) || pid <= 0) return false;
      try {
        process.kill(pid, 0);
      } catch (error) {
        // Somebody else's process has the number: that is not ours to signal, but it is there.
        if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false;
      }
      return beganAt(pid) === began;
    },
  };
}

/** When a process began, in ticks since the system did (`proc(5)`, field 22); 0 where the system does not say. */
function beganAt(pid: number): number {
  try {
    const line = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name of the program, in brackets, may hold anything.
    return Number(line.slice(line.lastIndexOf(')') + 2).split(' ')[19] ?? 0);
  } catch {
    return 0;
  }
}

function createHasher(algorithm: 'sha256' | 'sha512'): Hasher {
  const hash = createHash(algorithm);
  return {
    update: (bytes) => {
      hash.update(bytes);
    },
    digest: () => new Uint8Array(hash.digest()),
  };
}
