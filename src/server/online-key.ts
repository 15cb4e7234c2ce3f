import { execFile } from 'node:child_process';
import { scrypt, webcrypto } from 'node:crypto';
import { open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { Platform } from '../core/platform.ts';
import { ServerError } from '../core/errors.ts';
import { openCommandSigner, type RunCommand } from '../publish/key-command.ts';
import { isSealed, parseStoredKey, sealKeyFile, unsealKeyFile, type SealParts } from '../publish/seal.ts';
import { generateKeyPair, openSigner, toKeyFile, type Signer } from '../publish/signer.ts';

/** Environment of the process that holds the online key. */
export type KeyEnvironment = Readonly<Record<string, string | undefined>>;

/** Longest time that a signing command may take, milliseconds. */
const commandTimeoutMs = 30_000;

/**
 * Opens the server's own key. `INLAY_ONLINE_SIGN_COMMAND` names a program that keeps it; otherwise it is a file of the
 * data directory, readable by its owner only, created at first, and sealed by `INLAY_ONLINE_PASSPHRASE` where that is set.
 * @throws `TypeError` or {@link ServerError} if the key cannot be opened.
 */
export async function openOnlineKey(
  directory: string,
  platform: Platform,
  env: KeyEnvironment = {},
): Promise<Signer> {
  const { subtle } = webcrypto;
  const command = env['INLAY_ONLINE_SIGN_COMMAND'] ?? '';
  if (command.trim() !== '') {
    const [program = '', ...args] = command.trim().split(/\s+/);
    return openCommandSigner({ platform, run: runCommand(program, args), role: 'online', name: program });
  }

  const path = join(directory, 'online-key.json');
  const passphrase = env['INLAY_ONLINE_PASSPHRASE'] ?? '';
  const parts: SealParts = { subtle, platform, scrypt: nodeScrypt };
  let text: string | undefined;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as { code?: unknown }).code !== 'ENOENT') throw error;
  }
  if (text === undefined) {
    const keyFile = toKeyFile(await generateKeyPair(subtle));
    await writeKey(path, passphrase === '' ? keyFile : await sealKeyFile(parts, keyFile, passphrase));
    return openSigner({ subtle, platform }, keyFile);
  }
  const stored = parseStoredKey(text, path);
  if (!isSealed(stored)) return openSigner({ subtle, platform }, stored);
  if (passphrase === '') {
    throw new ServerError(
      'ERR_INLAY_UNAUTHORIZED',
      `The online key ${path} is sealed; set INLAY_ONLINE_PASSPHRASE.`,
      { details: { path } },
    );
  }
  return openSigner({ subtle, platform }, await unsealKeyFile(parts, stored, passphrase, path));
}

async function writeKey(path: string, content: unknown): Promise<void> {
  const part = `${path}.part`;
  const file = await open(part, 'w', 0o600);
  try {
    await file.writeFile(JSON.stringify(content));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(part, path);
}

const nodeScrypt: SealParts['scrypt'] = (passphrase, salt, { n, r, p }, length) =>
  new Promise((done, fail) => {
    scrypt(passphrase, salt, length, { N: n, r, p, maxmem: 256 * n * r }, (error, key) => {
      if (error) fail(error);
      else done(new Uint8Array(key));
    });
  });

function runCommand(program: string, given: readonly string[]): RunCommand {
  return (args, stdin) =>
    new Promise((done, fail) => {
      const options = { timeout: commandTimeoutMs, killSignal: 'SIGKILL', encoding: 'buffer' } as const;
      const child = execFile(program, [...given, ...args], options, (error, stdout, stderr) => {
        if (typeof error?.code === 'string') return fail(error);
        const code = child.exitCode ?? undefined;
        done({ code, timedOut: error?.killed === true, stdout, stderr });
      });
      // A program that does not read what it is to sign says so by its answer.
      child.stdin?.on('error', () => undefined);
      child.stdin?.end(stdin);
    });
}
