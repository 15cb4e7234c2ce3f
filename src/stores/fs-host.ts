import { homedir, hostname } from 'node:os';
import { readlinkSync } from 'node:fs';
import { posix, resolve, win32 } from 'node:path';

/** What a file store needs to know of the process and the machine it runs on. */
export interface FsHost {
  /** As `process.platform`. */
  readonly platform: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  homedir(): string;
  readonly pid: number;
  /** Names what `pid` counts in: equal for two processes only if each can see whether the other lives. */
  machine(): string;
  /** Tells whether a process of this machine runs. */
  isAlive(pid: number): boolean;
  /** Wall clock, milliseconds since 1970. */
  now(): number;
  /** Monotonic clock, milliseconds. */
  monotonicMs(): number;
  pause(durationMs: number): Promise<void>;
  /** Uniform number in [0, 1), for jitter. */
  random(): number;
}

/** Describes this process. */
export function nodeHost(): FsHost {
  return {
    platform: process.platform,
    env: process.env,
    homedir,
    pid: process.pid,
    machine: () => `${hostname()} ${pidNamespace()}`.trimEnd(),
    isAlive,
    now: () => Date.now(),
    monotonicMs: () => performance.now(),
    pause: (durationMs) =>
      new Promise((done) => {
        setTimeout(done, durationMs);
      }),
    random: () => Math.random(),
  };
}

/**
 * Says where this system keeps caches: `INLAY_CACHE_DIR`, else `inlay` in `XDG_CACHE_HOME` or `~/.cache` (XDG Base
 * Directory 0.8 §3: relative values are ignored), `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows.
 */
export function cacheDirectory(host: Pick<FsHost, 'platform' | 'env' | 'homedir'>): string {
  const { INLAY_CACHE_DIR: own, LOCALAPPDATA: local, XDG_CACHE_HOME: xdg } = host.env;
  if (own) return resolve(own);
  if (host.platform === 'win32') {
    return win32.join(local || win32.join(host.homedir(), 'AppData', 'Local'), 'inlay', 'Cache');
  }
  if (host.platform === 'darwin') return posix.join(host.homedir(), 'Library', 'Caches', 'inlay');
  return posix.join(xdg && posix.isAbsolute(xdg) ? xdg : posix.join(host.homedir(), '.cache'), 'inlay');
}

// Containers may share a host name and a volume while each counts its own pids.
function pidNamespace(): string {
  try {
    return readlinkSync('/proc/self/ns/pid');
  } catch {
    return '';
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it runs, under another user.
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}
