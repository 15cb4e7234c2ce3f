import { copyFile, mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../../src/cli/program.ts';
import type { Root } from '../../src/trust/metadata.ts';
import { parseEnvelope } from '../../src/trust/parse.ts';
import { startTestServer, temporaryDirectory, testPlatform, type TestServer } from './server-fixture.ts';

export interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Somebody with a folder of their own. */
export interface Person {
  readonly cwd: string;
  /** Folder of their keys. */
  readonly keys: string;
  env: Record<string, string>;
  /** Answers what the terminal asks; without it nobody sits there. */
  answer?: (question: string) => string;
  /** Runs `inlay keys`. */
  run(...args: string[]): Promise<Result>;
  /** Runs any command. */
  inlay(...args: string[]): Promise<Result>;
  /** Runs `inlay keys` and fails unless it succeeds. @returns what it prints. */
  ok(...args: string[]): Promise<string>;
  /** Names of the files beside the keys. */
  files(): Promise<string[]>;
  root(): Promise<Root>;
}

async function createPerson(env: Record<string, string>): Promise<Person> {
  const cwd = await temporaryDirectory();
  const keys = join(cwd, 'inlay-keys');
  const person: Person = {
    cwd,
    keys,
    env,
    inlay: async (...args) => {
      const out: string[] = [];
      const err: string[] = [];
      const { answer } = person;
      const code = await runCommand(args, {
        print: (text) => out.push(text),
        printError: (text) => err.push(text),
        env: person.env,
        cwd,
        interrupted: () => Promise.resolve(),
        ...(answer && { askSecret: (question: string) => Promise.resolve(answer(question)) }),
      });
      return { code, out: out.join('\n'), err: err.join('\n') };
    },
    run: (...args) => person.inlay('keys', ...args),
    ok: async (...args) => {
      const { code, out, err } = await person.run(...args);
      if (code !== 0) throw new Error(`inlay keys ${args.join(' ')} ends with ${code}: ${err}`);
      return out;
    },
    files: async () => (await readdir(keys)).sort(),
    root: async () => parseEnvelope(await readFile(join(keys, 'root.json')), 'root').signed,
  };
  return person;
}

/** A server in the present, and the person who made its keys. */
export async function startWithKeys(
  ...flags: string[]
): Promise<{ server: TestServer; alice: Person; newPerson: () => Promise<Person> }> {
  const server = await startTestServer({ platform: testPlatform(Date.now()) });
  const env = { INLAY_SERVER: server.url, INLAY_TOKEN: server.token };
  const newPerson = (): Promise<Person> => createPerson({ ...env });
  const alice = await newPerson();
  await alice.ok('init', ...flags);
  return { server, alice, newPerson };
}

/** Hands a file from one folder to another person. */
export async function hand(from: string, to: Person, name: string): Promise<void> {
  await mkdir(to.keys, { recursive: true });
  await copyFile(from, join(to.keys, name));
}
