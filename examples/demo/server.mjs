import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/** Starts `inlay server` in a folder, and gives the means to talk to it with the command line, as a user would. */
export async function createServer(folder, flags = []) {
  const child = spawn(
    process.execPath,
    [CLI, 'server', '--port', '0', '--data', join(folder, 'server'), '--json', ...flags],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  const firstLine = once(createInterface(child.stdout), 'line').then(([line]) => JSON.parse(line));
  const { url, token } = await Promise.race([
    firstLine,
    once(child, 'exit').then(([code]) => {
      throw new Error(`The server ended with exit code ${code}.`);
    }),
  ]);
  const env = { ...process.env, INLAY_SERVER: url, INLAY_TOKEN: token };
  return {
    url,
    token,
    /** What an app embeds, once `inlay keys init` has run. */
    root: join(folder, 'inlay-keys', 'root.json'),
    cli: (...args) => promisify(execFile)(process.execPath, [CLI, ...args], { cwd: folder, env }),
    /**
     * Follows a rollout with the command line until it ends.
     * @param {(evidence: object) => void} onLook gets what is known of it, again and again
     * @returns how it ended, and a way to stop before
     */
    watch(model, onLook) {
      const args = [CLI, 'rollout', 'watch', model, '--every', '1s', '--json'];
      const watcher = spawn(process.execPath, args, {
        cwd: folder,
        env,
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      createInterface(watcher.stdout).on('line', (line) => onLook(JSON.parse(line)));
      return { ended: once(watcher, 'close').then(([code]) => code), stop: () => watcher.kill() };
    },
    /** Resolves when the server has ended. */
    ended: once(child, 'exit'),
    async stop() {
      if (child.exitCode !== null) return;
      child.kill('SIGTERM');
      await once(child, 'exit');
    },
  };
}
