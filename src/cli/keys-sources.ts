/** Where offline keys are found: files of the folder, then the environment, then programs that sign. */

import { webcrypto } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isInlayError, ServerError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { openCommandSigner } from '../publish/key-command.ts';
import type { OfflineRole } from '../publish/root.ts';
import { isSealed, parseStoredKey, unsealKeyFile, type SealParts } from '../publish/seal.ts';
import { openSigner, type KeyFile, type Signer } from '../publish/signer.ts';
import { keyIdOf, type NamedKey } from '../trust/keys.ts';
import { commandRunner, parseSigners, signingCommandOf, type SigningCommand } from './keys-command.ts';
import { nodeScrypt, type Passphrases } from './passphrase.ts';

/** A key at hand. */
export interface KeySource extends NamedKey {
  /** Role that it was made for. */
  readonly role: OfflineRole;
  /** Name of the file in the folder, of the variable or of the program. */
  readonly where: string;
  readonly kind: 'file' | 'environment' | 'command';
  readonly isSealed: boolean;
  /** Opens it, once; asks for its passphrase if it has one. */
  open(): Promise<Signer>;
}

/** The keys at hand. */
export interface KeySources {
  /** Files, and keys of the environment; nothing is opened. */
  stored(): Promise<readonly KeySource[]>;
  /** Keys of programs; each is asked for its public key, once. */
  commands(): Promise<readonly KeySource[]>;
  /** Opens those of some keys that are at hand; programs are asked only for what is still missing. */
  signers(keyids: readonly string[]): Promise<readonly Signer[]>;
}

/** What {@link createKeySources} works with. */
export interface KeySourcesOptions {
  /** Folder of the keys; it need not exist. */
  readonly path: string;
  readonly platform: Platform;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Folder in which programs are run. */
  readonly cwd: string;
  readonly passphrases: Passphrases;
}

/** Variables that hold the text of a key file. */
const variables: Readonly<Record<OfflineRole, string>> = {
  root: 'INLAY_ROOT_KEY',
  targets: 'INLAY_TARGETS_KEY',
};
const keyFileName = /^(root|targets)(?:-[0-9a-z]+)?\.key\.json$/;
const { subtle } = webcrypto;

/** Tells which role a file of the folder holds a private key for; `undefined` for other files. */
export function roleOfKeyFile(name: string): OfflineRole | undefined {
  return keyFileName.exec(name)?.[1] as OfflineRole | undefined;
}

/** What sealing takes on Node. */
export function nodeSealParts(platform: Platform): SealParts {
  return { subtle, platform, scrypt: nodeScrypt };
}

/** Finds the keys at hand. Nothing is read before it is asked for. */
export function createKeySources(options: KeySourcesOptions): KeySources {
  const { path, platform, env, cwd, passphrases } = options;
  const opened = new Map<string, Promise<Signer>>();
  let asked: Promise<readonly KeySource[]> | undefined;

  const toSource = (
    text: string,
    role: OfflineRole,
    kind: 'file' | 'environment',
    where: string,
  ): KeySource => {
    const named = kind === 'file' ? join(path, where) : where;
    const file = parseStoredKey(text, named);
    const { keytype, scheme } = file;
    const key = { keytype, scheme, keyval: { public: file.public } };
    const keyid = keyIdOf(platform, key);
    const open = async (): Promise<Signer> =>
      openSigner({ subtle, platform }, isSealed(file) ? await unseal(file, named) : file);
    return {
      keyid,
      key,
      role,
      where,
      kind,
      isSealed: isSealed(file),
      open: () => once(opened, keyid, open),
    };
  };

  const unseal = async (file: Parameters<typeof unsealKeyFile>[1], named: string): Promise<KeyFile> => {
    for (let attempt = 1, last: unknown; ; attempt += 1) {
      const passphrase = await passphrases.toOpen(named, attempt);
      if (passphrase === undefined) throw last;
      try {
        return await unsealKeyFile(nodeSealParts(platform), file, passphrase, named);
      } catch (error) {
        if (!isInlayError(error) || error.code !== 'ERR_INLAY_UNAUTHORIZED') throw error;
        last = error;
      }
    }
  };

  const stored = async (): Promise<readonly KeySource[]> => {
    const sources: KeySource[] = [];
    for (const name of [...(await namesIn(path))].sort()) {
      const role = roleOfKeyFile(name);
      if (role) sources.push(toSource(await readFile(join(path, name), 'utf8'), role, 'file', name));
    }
    for (const role of ['root', 'targets'] as const) {
      const text = env[variables[role]];
      if (text) sources.push(toSource(text, role, 'environment', variables[role]));
    }
    return sources;
  };

  const askCommands = async (): Promise<readonly KeySource[]> => {
    const sources: KeySource[] = [];
    const listed = (await namesIn(path)).includes('signers.json');
    const file = join(path, 'signers.json');
    const named = listed ? parseSigners(await readFile(file, 'utf8'), file) : [];
    for (const command of [...signingCommandOf(env), ...named]) {
      for (const role of command.roles) sources.push(await askCommand(command, role));
    }
    return sources;
  };

  const askCommand = async (command: SigningCommand, role: OfflineRole): Promise<KeySource> => {
    const name = command.command[0] ?? '';
    const run = commandRunner(command, cwd);
    const signer = await openCommandSigner({ platform, run, role, name });
    const { keyid, key } = signer;
    return {
      keyid,
      key,
      role,
      where: name,
      kind: 'command',
      isSealed: false,
      open: () => Promise.resolve(signer),
    };
  };

  const commands = (): Promise<readonly KeySource[]> => (asked ??= askCommands());

  return {
    stored,
    commands,
    signers: async (keyids) => {
      const found = new Map<string, Signer>();
      const take = async (sources: readonly KeySource[]): Promise<void> => {
        for (const source of sources) {
          if (keyids.includes(source.keyid) && !found.has(source.keyid)) {
            found.set(source.keyid, await source.open());
          }
        }
      };
      await take(await stored());
      if (keyids.some((keyid) => !found.has(keyid))) await take(await commands());
      return [...found.values()];
    },
  };
}

/** Names the variables and programs that a missing key could come from, for messages. */
export function missingKey(role: OfflineRole, path: string): ServerError {
  const file = join(path, `${role}.key.json`);
  return new ServerError(
    'ERR_INLAY_NOT_FOUND',
    `There is no ${file}; create keys with \`inlay keys init\`, name their folder with --keys, ` +
      `or give the key by ${variables[role]} or INLAY_SIGN_COMMAND.`,
    { details: { path: file } },
  );
}

async function namesIn(path: string): Promise<readonly string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

function once(
  known: Map<string, Promise<Signer>>,
  keyid: string,
  open: () => Promise<Signer>,
): Promise<Signer> {
  const signer = known.get(keyid) ?? open();
  known.set(keyid, signer);
  return signer;
}
