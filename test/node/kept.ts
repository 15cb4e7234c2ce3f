import { spawn } from 'node:child_process';
import { chmod, chown, mkdtemp } from 'node:fs/promises';
import { accessSync, constants, existsSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';

/** A user that programs run as which refuse to be root. */
export interface User {
  readonly uid: number;
  readonly gid: number;
}

/** Programs that end with this process, in a folder that goes with them. */
export interface Kept {
  readonly directory: string;
  /** Starts a program. @param end signal that ends it. @returns its process. */
  start(
    name: string,
    command: string,
    args: readonly string[],
    options: object,
    end: string,
  ): Promise<number>;
  /** Sends a signal and waits for the end. */
  stop(name: string, signal: string): Promise<void>;
  /** Waits for the end of a program. */
  ended(name: string): Promise<void>;
  /** Ends all. */
  close(): void;
}

/** Creates a folder and a process that watches over it. */
export async function keep(prefix: string, user?: User): Promise<Kept> {
  const directory = await mkdtemp(join(tmpdir(), prefix));
  await chmod(directory, 0o755);
  if (user) await chown(directory, user.uid, user.gid);
  const keeper = spawn(
    process.execPath,
    [fileURLToPath(new URL('keeper.mjs', import.meta.url)), directory],
    // A process group of its own: Ctrl-C ends the test, and the keeper ends its programs after it.
    { stdio: ['pipe', 'pipe', 'inherit'], detached: true },
  );
  keeper.unref();
  for (const pipe of [keeper.stdin, keeper.stdout] as (Writable & Readable & { unref?(): void })[])
    pipe.unref?.();

  // The one who started this process is gone; whatever still runs here has nobody to tell.
  process.once('disconnect', () => keeper.stdin.end());

  const listeners = new Map<string, (() => void)[]>();
  const pids = new Map<string, number>();
  createInterface({ input: keeper.stdout }).on('line', (line) => {
    const { name, pid } = JSON.parse(line) as { name: string; pid?: number };
    const event = `${name} ${pid === undefined ? 'end' : 'begin'}`;
    if (pid !== undefined) pids.set(name, pid);
    for (const listener of listeners.get(event)?.splice(0) ?? []) listener();
  });
  const hear = (event: string): Promise<void> =>
    new Promise((resolve) => {
      listeners.set(event, [...(listeners.get(event) ?? []), resolve]);
    });
  const tell = (message: object): void => {
    keeper.stdin.write(`${JSON.stringify(message)}\n`);
  };

  return {
    directory,
    start: async (name, command, args, options, end) => {
      const begun = hear(`${name} begin`);
      tell({ name, command, args, options: { ...user, ...options }, end });
      await begun;
      return pids.get(name) ?? 0;
    },
    stop: async (name, signal) => {
      const ended = hear(`${name} end`);
      tell({ name, signal });
      await ended;
    },
    ended: (name) => hear(`${name} end`),
    close: () => keeper.stdin.end(),
  };
}

/** Finds a program. */
export function findProgram(name: string): string | undefined {
  const base = '/usr/lib/postgresql';
  const versions = existsSync(base) ? readdirSync(base).sort((a, b) => Number(b) - Number(a)) : [];
  return [...(process.env['PATH'] ?? '').split(':'), ...versions.map((version) => join(base, version, 'bin'))]
    .filter(Boolean)
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/** Whom to be instead of root; `undefined` for a process that is not root. */
export function otherUser(): User | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const entry = /^(?:postgres|nobody):[^:]*:(\d+):(\d+):/m.exec(readFileSync('/etc/passwd', 'utf8'));
  return entry ? { uid: Number(entry[1]), gid: Number(entry[2]) } : undefined;
}
