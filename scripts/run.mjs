import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Root of the repository. */
export const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** A failure that a person can act on: only its message is printed, without a stack. */
export class SetupError extends Error {
  name = 'SetupError';
}

/**
 * Runs a program in the root of the repository with this process's standard streams.
 * @returns the exit code, as a shell would give it.
 */
export function run(command, args, { env = {}, ...options } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: root,
      stdio: ['ignore', 'inherit', 'inherit'],
      ...options,
      env: { ...process.env, ...env },
    });
    // A terminal sends SIGINT to the child as well; this process only has to outlive it.
    const wait = () => undefined;
    const forward = (signal) => child.kill(signal);
    process.on('SIGINT', wait).on('SIGTERM', forward);
    const done = () => process.off('SIGINT', wait).off('SIGTERM', forward);
    child.on('error', (error) => {
      done();
      reject(error);
    });
    child.on('close', (code, signal) => {
      done();
      resolve(code ?? 128 + (constants.signals[signal] ?? 0));
    });
  });
}

/** Runs a script of this repository, or a module of a package, with this Node. */
export function runNode(path, args = [], options = {}) {
  return run(process.execPath, [join(root, path), ...args], options);
}

/** Runs a program that a package in `node_modules` brings. */
export function runBin(name, args = [], options = {}) {
  const windows = process.platform === 'win32';
  return run(join(root, 'node_modules', '.bin', windows ? `${name}.cmd` : name), args, {
    shell: windows,
    ...options,
  });
}

/** Runs the npm that started this process, or the one on the path. */
export function runNpm(args, options = {}) {
  const cli = process.env.npm_execpath;
  if (cli?.endsWith('.js')) return run(process.execPath, [cli, ...args], options);
  const windows = process.platform === 'win32';
  return run(windows ? 'npm.cmd' : 'npm', args, { shell: windows, ...options });
}

/** Runs `main`, prints what to do if it fails, and sets the exit code. */
export async function runMain(main) {
  try {
    process.exitCode = (await main()) ?? 0;
  } catch (error) {
    console.error(error instanceof SetupError ? `\n${error.message}` : error);
    process.exitCode = 1;
  }
}
