/** People who type `inlay` commands. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../../src/cli/program.ts';
import { startTestServer, temporaryDirectory, testPlatform, type TestServer } from './server-fixture.ts';

/** How a command ended. */
export interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** A publisher in a folder of their own, with keys on the server. */
export interface User {
  readonly cwd: string;
  readonly server: TestServer;
  /** Path of a file of theirs. */
  path(name: string): string;
  write(name: string, content: Uint8Array | string): Promise<void>;
  /** Runs `inlay` in this process. */
  run(...args: readonly string[]): Promise<Result>;
  /** Runs a command that must succeed. @returns what it prints. */
  ok(...args: readonly string[]): Promise<string>;
  /** Runs a command that must succeed and print JSON. */
  json<Value>(...args: readonly string[]): Promise<Value>;
}

/** Starts a server in the present, creates keys, and installs them. */
export async function startUser(): Promise<User> {
  const server = await startTestServer({ platform: testPlatform(Date.now()) });
  const cwd = await temporaryDirectory();
  const run = async (...args: readonly string[]): Promise<Result> => {
    const out: string[] = [];
    const err: string[] = [];
    const code = await runCommand(args, {
      print: (text) => out.push(text),
      printError: (text) => err.push(text),
      env: { INLAY_SERVER: server.url, INLAY_TOKEN: server.token },
      cwd,
      interrupted: () => Promise.resolve(),
    });
    return { code, out: out.join('\n'), err: err.join('\n') };
  };
  const ok = async (...args: readonly string[]): Promise<string> => {
    const { code, out, err } = await run(...args);
    if (code !== 0) throw new Error(`inlay ${args.join(' ')} ends with ${code}: ${err}`);
    return out;
  };
  await ok('keys', 'init', '--no-passphrase');
  return {
    cwd,
    server,
    path: (name) => join(cwd, name),
    write: (name, content) => writeFile(join(cwd, name), content),
    run,
    ok,
    json: async <Value>(...args: readonly string[]) => JSON.parse(await ok(...args, '--json')) as Value,
  };
}
