/** Programs that sign: how they are named, and how they are run. */

import { spawn } from 'node:child_process';
import type { RunCommand } from '../publish/key-command.ts';
import type { OfflineRole } from '../publish/root.ts';
import { isFields } from '../trust/parse.ts';

/** A program that keeps a key. */
export interface SigningCommand {
  /** Program and its first arguments; no shell reads them. */
  readonly command: readonly string[];
  /** Roles that it is asked for. */
  readonly roles: readonly OfflineRole[];
  /** Time for one answer. */
  readonly timeoutMs: number;
}

/** A KMS behind a slow network answers within this; somebody who has to touch a token, too. */
const usualTimeoutMs = 60_000;
const maxOutputBytes = 64 * 1024;

/** Reads `INLAY_SIGN_COMMAND`: words, or a JSON list of them where one has a space. `INLAY_SIGN_TIMEOUT_MS` is its time. */
export function signingCommandOf(
  env: Readonly<Record<string, string | undefined>>,
): readonly SigningCommand[] {
  const text = env['INLAY_SIGN_COMMAND']?.trim();
  if (!text) return [];
  const timeoutMs = Number(env['INLAY_SIGN_TIMEOUT_MS'] || usualTimeoutMs);
  return [parseCommand({ command: text, timeoutMs }, 'INLAY_SIGN_COMMAND')];
}

/**
 * Reads `signers.json`: a list of `{ "command", "roles"?, "timeoutMs"? }`, or one of them.
 * @throws `TypeError` if it is something else.
 */
export function parseSigners(text: string, path: string): readonly SigningCommand[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw malformed(path);
  }
  return (Array.isArray(value) ? value : [value]).map((entry: unknown) => parseCommand(entry, path));
}

/** Runs the program without a shell, and ends it when its time is over or when it writes without end. */
export function commandRunner({ command, timeoutMs }: SigningCommand, cwd: string): RunCommand {
  const [program = '', ...first] = command;
  return (args, stdin) =>
    new Promise((done, fail) => {
      const child = spawn(program, [...first, ...args], {
        cwd,
        env: withoutSecrets(process.env),
        stdio: ['pipe', 'pipe', 'pipe'],
      });
      const stdout: Buffer[] = [];
      const stderr: Buffer[] = [];
      let sizeBytes = 0;
      let timedOut = false;
      const timer = setTimeout(() => {
        timedOut = true;
        stop();
      }, timeoutMs);
      const stop = (): void => {
        child.kill('SIGKILL');
        // A child of the child may hold the pipes open.
        child.stdout.destroy();
        child.stderr.destroy();
      };
      const keep = (parts: Buffer[]) => (part: Buffer) => {
        sizeBytes += part.length;
        if (sizeBytes > maxOutputBytes) stop();
        else parts.push(part);
      };
      child.stdout.on('data', keep(stdout));
      child.stderr.on('data', keep(stderr));
      // A program that does not read what it signs is found out by its answer.
      child.stdin.on('error', () => undefined);
      child.stdin.end(stdin);
      child.on('error', (error) => {
        clearTimeout(timer);
        fail(error);
      });
      child.on('close', (code) => {
        clearTimeout(timer);
        done({
          code: code ?? undefined,
          timedOut,
          stdout: Buffer.concat(stdout),
          stderr: Buffer.concat(stderr),
        });
      });
    });
}

/** A program that keeps its own key has no use for those of others. */
function withoutSecrets(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const secrets = ['INLAY_KEY_PASSPHRASE', 'INLAY_ROOT_KEY', 'INLAY_TARGETS_KEY', 'INLAY_TOKEN'];
  return Object.fromEntries(Object.entries(env).filter(([name]) => !secrets.includes(name)));
}

function parseCommand(entry: unknown, path: string): SigningCommand {
  if (!isFields(entry)) throw malformed(path);
  const { command: given, roles = ['root', 'targets'], timeoutMs = usualTimeoutMs } = entry;
  const command = typeof given === 'string' ? wordsOf(given, path) : given;
  const isList = (value: unknown): value is readonly string[] =>
    Array.isArray(value) &&
    value.length > 0 &&
    value.every((item) => typeof item === 'string' && item !== '');
  const isRoles = (value: readonly string[]): value is readonly OfflineRole[] =>
    value.every((role) => role === 'root' || role === 'targets');
  const isTime = typeof timeoutMs === 'number' && timeoutMs >= 1 && timeoutMs <= 3_600_000;
  if (!isList(command) || !isList(roles) || !isRoles(roles) || !isTime) throw malformed(path);
  return { command, roles, timeoutMs };
}

function wordsOf(text: string, path: string): unknown {
  if (!text.startsWith('[')) return text.trim().split(/\s+/);
  try {
    return JSON.parse(text);
  } catch {
    throw malformed(path);
  }
}

function malformed(path: string): TypeError {
  return new TypeError(
    `There is no signing command in ${path}; it is like { "command": ["kms-sign", "--key", "inlay"], "roles": ["targets"] }.`,
  );
}
