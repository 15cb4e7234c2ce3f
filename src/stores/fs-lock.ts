import { randomBytes } from 'node:crypto';
import { equalBytes, toUtf8 } from '../core/bytes.ts';
import { StoreError } from '../core/errors.ts';
import type { Disk } from './fs-disk.ts';
import type { FsHost } from './fs-host.ts';

/** A lock file that this process created. */
export interface FileLock {
  /** Tells whether the lock is still this one: another process breaks a lock that it takes for abandoned. */
  isHeld(): Promise<boolean>;
  /** Removes the lock if it is still this one. Never throws: a lock that stays behind is broken by the next owner. */
  release(): Promise<void>;
}

// A lock is held for a few flushes of the disk. One that a waiter has seen unchanged for this long is abandoned,
// even if its pid is in use again. Measured by the waiter's own clock, because machines disagree on the time.
const abandonedMs = 10_000;
// Its owner writes its name into it at once: one that stays without a name was left by a process that was killed in
// between, and no start waits for it for long. Should its owner live after all, it finds out before it changes anything.
const namelessMs = 500;
// Longer than the above, so that no crash, wherever it happened, makes an update fail.
const patienceMs = 15_000;

/**
 * Waits for a lock file, breaking one whose owner is gone.
 * @throws {@link StoreError} `ERR_INLAY_STORE_IO` after 15 seconds in which others held it.
 */
export async function acquireLock(disk: Disk, host: FsHost, path: string): Promise<FileLock> {
  const machine = host.machine();
  const token = randomBytes(16).toString('hex');
  const text = toUtf8(JSON.stringify({ pid: host.pid, machine, token }));
  const began = host.monotonicMs();
  let seen: string | undefined;
  let seenSince = began;

  while (!(await disk.create(path, text))) {
    const present = await inspect(disk, path);
    const now = host.monotonicMs();
    if (present?.identity !== seen) {
      seen = present?.identity;
      seenSince = now;
    }
    const owner = present?.owner;
    const isGone = owner?.machine === machine && !host.isAlive(owner.pid);
    const lastsMs = owner === undefined ? namelessMs : abandonedMs;
    if (seen !== undefined && (isGone || now - seenSince > lastsMs)) {
      await breakLock(disk, host, path, seen);
      continue;
    }
    if (now - began > patienceMs) {
      throw new StoreError(
        'ERR_INLAY_STORE_IO',
        `Process ${owner?.pid ?? 'unknown'} keeps ${path} locked; end that process or remove that file.`,
        { details: { path, ...owner } },
      );
    }
    await host.pause(1 + host.random() * 15);
  }

  const isHeld = async (): Promise<boolean> => {
    const present = await disk.read(path);
    return present !== undefined && equalBytes(present, text);
  };
  return {
    isHeld,
    release: async () => {
      try {
        if (await isHeld()) await disk.remove(path);
      } catch {
        // The update itself is settled by now, and a lock that stays behind is broken by whoever comes next.
      }
    },
  };
}

interface Owner {
  readonly pid: number;
  readonly machine: string;
}

/** Removes the lock that was seen, never the one that another process created since: a second lock guards this. */
async function breakLock(disk: Disk, host: FsHost, path: string, seen: string): Promise<void> {
  const guard = await acquireLock(disk, host, `${path}.break`);
  try {
    const present = await inspect(disk, path);
    if (present?.identity === seen) await disk.remove(path);
  } finally {
    await guard.release();
  }
}

async function inspect(disk: Disk, path: string): Promise<{ identity: string; owner?: Owner } | undefined> {
  // The time, only ever compared for equality, tells two locks apart that nothing was written to yet.
  const stats = await disk.stat(path);
  const bytes = await disk.read(path);
  if (!stats || !bytes) return undefined;
  const text = new TextDecoder().decode(bytes);
  const owner = parseOwner(text);
  return { identity: `${stats.mtimeMs} ${text}`, ...(owner && { owner }) };
}

function parseOwner(text: string): Owner | undefined {
  try {
    const { pid, machine } = JSON.parse(text) as Record<string, unknown>;
    return typeof pid === 'number' && typeof machine === 'string' ? { pid, machine } : undefined;
  } catch {
    return undefined;
  }
}
