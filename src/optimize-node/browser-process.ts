/** The process of a browser. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BackendError } from '../core/errors.ts';

/** A browser that runs. */
export interface Launched {
  /** Ends it, waits until it is gone, and removes its profile. */
  close(): Promise<void>;
}

/** How long a browser may take to go by itself. */
const LEAVE_MS = 3_000;

/**
 * Starts a browser without a window on one page.
 * @param flags - further ones.
 * @param ended - hears how it ended, if it did so by itself.
 * @throws {@link BackendError} `ERR_INLAY_BACKEND_UNAVAILABLE` if the program cannot be started.
 */
export async function launchBrowser(
  path: string,
  flags: readonly string[],
  url: string,
  ended: (how: string) => void,
): Promise<Launched> {
  const profile = await mkdtemp(join(tmpdir(), 'inlay-browser-'));
  const removeProfile = (): Promise<void> => rm(profile, { recursive: true, force: true, maxRetries: 5 });
  // The browser leaves when the pipe for its debugger breaks: it does not outlive this process, however that ends.
  const child = spawn(path, [...flagsFor(profile), ...flags, url], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    // Where it leaves its sockets behind; other systems clean up, and have names too long for that.
    env: process.platform === 'linux' ? { ...process.env, TMPDIR: profile } : process.env,
  });
  for (const pipe of child.stdio) pipe?.on('error', () => undefined);
  try {
    await once(child, 'spawn');
  } catch (cause) {
    await removeProfile();
    throw new BackendError(
      'ERR_INLAY_BACKEND_UNAVAILABLE',
      `The browser "${path}" cannot be started; pass the path of Chrome, Chromium or Edge.`,
      { cause },
    );
  }
  const gone = once(child, 'exit');
  child.on('exit', (code, signal) => {
    ended(signal ?? `exit code ${code}`);
  });
  return {
    close: async () => {
      child.kill('SIGTERM');
      const impatient = setTimeout(() => child.kill('SIGKILL'), LEAVE_MS);
      if (child.exitCode === null && child.signalCode === null) await gone;
      clearTimeout(impatient);
      await removeProfile();
    },
  };
}

function flagsFor(profile: string): readonly string[] {
  return [
    '--headless',
    `--user-data-dir=${profile}`,
    '--remote-debugging-pipe',
    '--enable-unsafe-webgpu',
    // Without a window there is no surface, and without Vulkan no GPU on Linux.
    ...(process.platform === 'linux' ? ['--enable-features=Vulkan', '--disable-vulkan-surface'] : []),
    '--no-first-run',
    '--no-default-browser-check',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-extensions',
    '--disable-sync',
    // Small in containers.
    '--disable-dev-shm-usage',
    // Its sandbox does not start for root.
    ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
  ];
}
