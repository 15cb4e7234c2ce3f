/** Where passphrases come from: a file, the environment, or whoever sits at the terminal. */

import { scrypt } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { ServerError } from '../core/errors.ts';
import type { Scrypt } from '../publish/seal.ts';
import type { Terminal } from './terminal.ts';

/** Options about passphrases. */
export interface PassphraseFlags {
  readonly passphraseFile?: string;
  /** False with `--no-passphrase`. */
  readonly passphrase?: boolean;
}

/** Gives passphrases, and asks for each one once. */
export interface Passphrases {
  /**
   * Gives the passphrase that a key file was sealed with.
   * @param attempt from 1 on; a later one asks again, where somebody can be asked.
   * @returns `undefined` if a later attempt would be the same.
   * @throws {@link ServerError} `ERR_INLAY_UNAUTHORIZED` if there is none.
   */
  toOpen(file: string, attempt: number): Promise<string | undefined>;
  /**
   * Gives the passphrase for new key files.
   * @param isWanted whether somebody is asked; otherwise only one that is given counts.
   * @returns `undefined` for plain files.
   */
  toSeal(isWanted: boolean): Promise<string | undefined>;
}

const maxAttempts = 3;

/** Adds `--passphrase-file`. */
export function withPassphraseFlags(command: Command): Command {
  return command.option(
    '--passphrase-file <file>',
    'file of the passphrase of the keys (default: $INLAY_KEY_PASSPHRASE, or the terminal asks)',
  );
}

/** Creates the source of passphrases that the flags and the environment name. */
export function createPassphrases(
  flags: PassphraseFlags,
  terminal: Pick<Terminal, 'env' | 'cwd' | 'askSecret'>,
): Passphrases {
  const { passphraseFile, passphrase: isAllowed = true } = flags;
  const { askSecret } = terminal;
  let asked: string | undefined;

  const given = async (): Promise<string | undefined> => {
    if (passphraseFile === undefined) return terminal.env['INLAY_KEY_PASSPHRASE'] || undefined;
    const text = await readFile(resolve(terminal.cwd, passphraseFile), 'utf8').catch((cause: unknown) => {
      throw new ServerError(
        'ERR_INLAY_NOT_FOUND',
        `The file ${passphraseFile} cannot be read; name another one.`,
        {
          cause,
        },
      );
    });
    const [line = ''] = text.split(/\r?\n/);
    if (line !== '') return line;
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `The first line of ${passphraseFile} is empty; write a passphrase there.`,
    );
  };

  return {
    toOpen: async (file, attempt) => {
      const known = await given();
      if (known !== undefined) return attempt === 1 ? known : undefined;
      if (!askSecret) {
        throw new ServerError(
          'ERR_INLAY_UNAUTHORIZED',
          `${file} is sealed; set INLAY_KEY_PASSPHRASE, or pass --passphrase-file.`,
          { details: { file } },
        );
      }
      if (attempt > maxAttempts) return undefined;
      if (attempt > 1 || asked === undefined) {
        asked = await askSecret(`${attempt > 1 ? 'Wrong. ' : ''}Passphrase of ${file}: `);
      }
      return asked;
    },
    toSeal: async (isWanted) => {
      if (!isAllowed) return undefined;
      const known = (await given()) ?? asked;
      if (known !== undefined || !isWanted || !askSecret) return known;
      const first = await askSecret('Passphrase for the new keys (empty: none): ');
      if (first === '') return undefined;
      if ((await askSecret('The same again: ')) !== first) {
        throw new ServerError('ERR_INLAY_REFUSED', 'The two passphrases differ; no key was made.');
      }
      asked = first;
      return first;
    },
  };
}

/** scrypt (RFC 7914) in native code, off this thread. */
export const nodeScrypt: Scrypt = (passphrase, salt, { n, r, p }, length) =>
  new Promise((done, fail) => {
    // Node refuses what needs more than 32 MiB unless told otherwise; the block buffers come on top of 128·N·r.
    const maxmem = 128 * r * (n + p + 2);
    scrypt(passphrase, salt, length, { N: n, r, p, maxmem }, (error, key) => {
      if (error) fail(error);
      else done(new Uint8Array(key));
    });
  });
