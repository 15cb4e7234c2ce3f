/**
 * Starts programs for a test and ends them when the test does, however it does: the pipe to this process closes then.
 * Lines of JSON come in, `{ name, command, args, options, end }` to start and `{ name, signal }` to end one; `{ name, pid }`
 * and `{ name, code }` go out. The folder named by the one argument is removed at the end.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { createInterface } from 'node:readline';

const [directory] = process.argv.slice(2);
const running = new Map();
const tell = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
process.stdout.on('error', () => undefined);

for await (const line of createInterface({ input: process.stdin })) {
  const { name, command, args, options, end, signal } = JSON.parse(line);
  if (signal) {
    running.get(name)?.child.kill(signal);
    continue;
  }
  const child = spawn(command, args, { stdio: 'ignore', ...options });
  running.set(name, { child, end, ended: once(child, 'exit') });
  child.on('error', () => tell({ name, code: -1 }));
  child.on('exit', (code) => tell({ name, code }));
  tell({ name, pid: child.pid });
}

for (const { child, end } of running.values()) child.kill(end);
const slow = setTimeout(() => {
  for (const { child } of running.values()) child.kill('SIGKILL');
}, 2000);
await Promise.allSettled(
  [...running.values()].map(({ child, ended }) => (child.exitCode === null ? ended : 0)),
);
clearTimeout(slow);
if (directory) rmSync(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
