#!/usr/bin/env node
import { askSecret } from './passphrase-prompt.ts';
import { runCommand } from './program.ts';

// A reader that has seen enough, such as `head`, is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

process.exitCode = await runCommand(process.argv.slice(2), {
  print: (text) => {
    process.stdout.write(`${text}\n`);
  },
  printError: (text) => {
    process.stderr.write(`${text}\n`);
  },
  env: process.env,
  cwd: process.cwd(),
  ...(process.stdin.isTTY && process.stderr.isTTY && { askSecret }),
  interrupted: () =>
    new Promise((done) => {
      process.once('SIGINT', () => {
        done();
      });
      process.once('SIGTERM', () => {
        done();
      });
    }),
});
