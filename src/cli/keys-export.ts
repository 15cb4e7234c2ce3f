import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import { nodePlatform } from '../platform-node.ts';
import type { OfflineRole } from '../publish/root.ts';
import { toUtf8 } from '../core/bytes.ts';
import type { NamedKey } from '../trust/keys.ts';
import { openKeys, withKeyFlags, type KeyFlags } from './connection.ts';
import { replaceFile, type KeyDirectory } from './key-directory.ts';
import { readPublicKey } from './keys-rotate.ts';
import { missingKey } from './keys-sources.ts';
import { createPassphrases } from './passphrase.ts';
import type { Terminal } from './terminal.ts';

interface ExportFlags extends KeyFlags {
  readonly role: OfflineRole;
  readonly new?: true;
  readonly command?: true;
  readonly out?: string;
}

/** Adds `inlay keys export`. */
export function addKeysExport(keys: Command, terminal: Terminal): void {
  const command = keys
    .command('export')
    .description('print the public half of a key, for somebody else to add to the root');
  withKeyFlags(command)
    .addOption(roleOption())
    .option('--new', 'create the key, on a machine that has none yet')
    .option('--command', 'ask the program that INLAY_SIGN_COMMAND or signers.json names')
    .option('--no-passphrase', 'write a plain key file')
    .option('--out <file>', 'write to a file instead')
    .action(async (flags: ExportFlags) => {
      const passphrases = createPassphrases(flags, terminal);
      const directory = openKeys(flags, terminal, passphrases);
      const { keyid, key } = flags.new
        ? await directory.createKey(flags.role, await passphrases.toSeal(true))
        : await findKey(directory, flags);
      const text = JSON.stringify({ role: flags.role, keyid, key }, undefined, 2);
      if (flags.out === undefined) terminal.print(text);
      else await replaceFile(resolve(terminal.cwd, flags.out), toUtf8(`${text}\n`), nodePlatform());
    });
}

/** Adds `inlay keys add`. */
export function addKeysAdd(keys: Command, terminal: Terminal): void {
  const command = keys
    .command('add')
    .description('keep the public key of somebody else; the next `keys rotate` lists it')
    .argument('<file>', 'public key, as `keys export` writes it, PEM or hex');
  withKeyFlags(command)
    .addOption(
      new Option('--role <role>', 'what it signs (default: what the file says, or root)').choices(roles),
    )
    .action(async (file: string, flags: KeyFlags & { readonly role?: OfflineRole }) => {
      const directory = openKeys(flags, terminal);
      const { role, keyid, key } = await readPublicKey(resolve(terminal.cwd, file), file);
      const given = flags.role ?? role;
      await directory.add(given, { keyid, key });
      terminal.print(`Kept ${keyid} for the role ${given} in ${directory.path}.`);
      terminal.print('\nNext, once all keys are there:\n  npx inlay keys rotate');
    });
}

const roles: readonly OfflineRole[] = ['root', 'targets'];

function roleOption(): Option {
  return new Option('--role <role>', 'what the key signs').choices(roles).default('root');
}

async function findKey(directory: KeyDirectory, { role, command }: ExportFlags): Promise<NamedKey> {
  const sources = command ? await directory.commands() : await directory.stored();
  const found = sources.find((source) => source.role === role);
  if (found) return found;
  throw missingKey(role, directory.path);
}
