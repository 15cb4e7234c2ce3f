import { createHash } from 'node:crypto';
import { readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { root } from './run.mjs';

const POLL_MS = 250;
/** Longer than any set-up takes: an older lock belongs to a process that was killed, even if its id lives again. */
const STALE_MS = 30 * 60_000;

/** Runs `task` while no other process sets this checkout up. */
export async function withLock(task) {
  const key = createHash('sha256').update(root).digest('hex').slice(0, 16);
  const path = join(tmpdir(), `inlay-setup-${key}.lock`);
  await acquire(path);
  const release = () => rm(path, { force: true });
  const abort = (signal) => void release().finally(() => process.exit(signal === 'SIGINT' ? 130 : 143));
  process.once('SIGINT', abort).once('SIGTERM', abort);
  try {
    return await task();
  } finally {
    process.off('SIGINT', abort).off('SIGTERM', abort);
    await release();
  }
}

async function acquire(path) {
  for (let waited = false; ; await delay(POLL_MS)) {
    try {
      await writeFile(path, String(process.pid), { flag: 'wx' });
      return;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    if (await isStale(path)) {
      // Two processes may see the same stale lock: only one of them wins the rename.
      const grave = `${path}.${process.pid}`;
      await rename(path, grave).then(
        () => rm(grave, { force: true }),
        () => undefined,
      );
    } else if (!waited) {
      waited = true;
      console.log('Another process is setting this checkout up; waiting for it.');
    }
  }
}

async function isStale(path) {
  try {
    const [pid, { mtimeMs }] = [Number(await readFile(path, 'utf8')), await stat(path)];
    if (Date.now() - mtimeMs > STALE_MS) return true;
    // The owner writes its id just after it creates the file.
    return pid > 0 && !isAlive(pid);
  } catch {
    return false;
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}
