import { resolve } from 'node:path';
import type { Command } from 'commander';
import { nodePlatform } from '../platform-node.ts';
import { createAdminClient, type AdminClient } from './admin-client.ts';
import { openKeyDirectory, type KeyDirectory } from './key-directory.ts';
import {
  createPassphrases,
  withPassphraseFlags,
  type PassphraseFlags,
  type Passphrases,
} from './passphrase.ts';
import type { Terminal } from './terminal.ts';

/** Options of commands that talk to a server. */
export interface ServerFlags {
  readonly server?: string;
  readonly token?: string;
}

/** Options of commands that sign. */
export interface KeyFlags extends PassphraseFlags {
  readonly keys: string;
}

/** Where a server listens unless told otherwise. */
export const defaultServer = 'http://127.0.0.1:8787';

/** Adds `--server` and `--token`. */
export function withServerFlags(command: Command): Command {
  return command
    .option('--server <url>', `sync server (default: $INLAY_SERVER or ${defaultServer})`)
    .option('--token <token>', 'admin token (default: $INLAY_TOKEN)');
}

/** Adds `--keys`. */
export function withKeyFlags(command: Command): Command {
  return withPassphraseFlags(command.option('--keys <dir>', 'folder of the offline keys', './inlay-keys'));
}

/** Creates the client that the flags and the environment name. */
export function connect({ server, token }: ServerFlags, { env }: Terminal): AdminClient {
  return createAdminClient({
    server: server ?? (env['INLAY_SERVER'] || defaultServer),
    token: token ?? (env['INLAY_TOKEN'] || undefined),
    platform: nodePlatform(),
  });
}

/** Opens the key folder that the flags name. Keys may also come from the environment and from programs. */
export function openKeys(
  flags: KeyFlags,
  terminal: Terminal,
  passphrases: Passphrases = createPassphrases(flags, terminal),
): KeyDirectory {
  const { env, cwd } = terminal;
  return openKeyDirectory(resolve(cwd, flags.keys), nodePlatform(), { env, cwd, passphrases });
}
