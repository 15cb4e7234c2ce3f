/** Keys that a program keeps: a KMS, an HSM, a smart card. The program signs, and is not believed. */

import { fromHex, showUtf8 } from '../core/bytes.ts';
import { ServerError, TrustError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { toSignatureKey, type NamedKey } from '../trust/keys.ts';
import { parsePublicKey } from './key-public.ts';
import type { Signer } from './signer.ts';

/** How a program ended. */
export interface CommandResult {
  /** Exit code; `undefined` if it was ended by a signal. */
  readonly code: number | undefined;
  /** Whether it ran out of time and was ended. */
  readonly timedOut: boolean;
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
}

/** Runs a program to its end. Rejects if it cannot be started. */
export type RunCommand = (args: readonly string[], stdin: Uint8Array) => Promise<CommandResult>;

/** What a command signer is made of. */
export interface CommandSignerOptions {
  readonly platform: Pick<Platform, 'createSha256' | 'verifyEd25519' | 'verifySignature'>;
  readonly run: RunCommand;
  /** First argument of the program when it signs. */
  readonly role: string;
  /** Name of the program, for messages. */
  readonly name: string;
}

/**
 * Opens the key of a program. `public ROLE` makes it write its public key, as hex, PEM or JSON; `ROLE PUBLICKEY` makes it
 * sign what it reads, and write the signature as hex or base64 (ECDSA: DER; RSA: PSS with SHA-256 and 32 bytes of salt).
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` if the program fails, hangs or says something else; `TypeError` if it
 * writes no public key.
 */
export async function openCommandSigner(options: CommandSignerOptions): Promise<Signer> {
  const { platform, role, name } = options;
  const said = await runToEnd(options, ['public', role], new Uint8Array());
  const { keyid, key } = parsePublicKey(platform, showUtf8(said), `the output of ${name} public ${role}`);
  return {
    keyid,
    key,
    sign: async (bytes) => {
      const text = showUtf8(await runToEnd(options, [role, key.keyval.public], bytes)).trim();
      const signature = parseSignature(text);
      if (signature && (await isSignature(platform, { keyid, key }, signature, bytes))) return signature;
      throw new TrustError(
        'ERR_INLAY_SIGNATURE',
        `What ${name} wrote for the role ${role} is no signature of its key ${keyid}; nothing was signed.`,
        { details: { role, keyid } },
      );
    },
  };
}

/** Tells whether a signature is one of a key over these bytes. Never throws. */
export async function isSignature(
  platform: CommandSignerOptions['platform'],
  { key }: NamedKey,
  signature: Uint8Array,
  bytes: Uint8Array,
): Promise<boolean> {
  const read = toSignatureKey(key);
  try {
    if (read?.scheme === 'ed25519') return await platform.verifyEd25519(read.public, signature, bytes);
    return read !== undefined && (await platform.verifySignature?.(read, signature, bytes)) === true;
  } catch {
    return false;
  }
}

function parseSignature(text: string): Uint8Array<ArrayBuffer> | undefined {
  if (/^([0-9a-f]{2})+$/i.test(text)) return fromHex(text);
  const base64 = text.replace(/\s+/g, '');
  if (base64 === '' || base64.length % 4 !== 0 || !/^[\w+/]+={0,2}$/.test(base64)) return undefined;
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}

async function runToEnd(
  { run, name, role }: CommandSignerOptions,
  args: readonly string[],
  stdin: Uint8Array,
): Promise<Uint8Array> {
  const refuse = (problem: string, cause?: unknown): ServerError =>
    new ServerError('ERR_INLAY_REFUSED', `The signing command ${name} ${problem}; nothing was signed.`, {
      details: { role },
      ...(cause !== undefined && { cause }),
    });
  const result = await run(args, stdin).catch((cause: unknown) => {
    throw refuse(`cannot be run (${cause instanceof Error ? cause.message : String(cause)})`, cause);
  });
  const { code, timedOut, stdout, stderr } = result;
  if (timedOut) throw refuse('did not end in time and was stopped');
  if (code === 0) return stdout;
  // Its last line says best what went wrong; it is the host's own program.
  const reason = showUtf8(stderr).trim().split('\n').at(-1)?.slice(0, 200) ?? '';
  const ended = code === undefined ? 'was ended by a signal' : `ended with ${code}`;
  throw refuse(`${ended}${reason === '' ? '' : `: ${reason}`}`);
}
