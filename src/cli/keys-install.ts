import type { Command } from 'commander';
import { ServerError } from '../core/errors.ts';
import {
  connect,
  openKeys,
  withKeyFlags,
  withServerFlags,
  type KeyFlags,
  type ServerFlags,
} from './connection.ts';
import type { Terminal } from './terminal.ts';

/** Adds `inlay keys install`. */
export function addKeysInstall(keys: Command, terminal: Terminal): void {
  const command = keys
    .command('install')
    .description('send root.json and targets.json of the key folder to the server; no private key is read');
  withServerFlags(withKeyFlags(command)).action(async (flags: ServerFlags & KeyFlags) => {
    const directory = openKeys(flags, terminal);
    const root = await directory.root();
    const targets = await directory.read('targets.json');
    if (!targets) {
      throw new ServerError(
        'ERR_INLAY_NOT_FOUND',
        `There is no targets.json in ${directory.path}; create it with \`inlay keys init\`.`,
      );
    }
    const client = connect(flags, terminal);
    await client.putRoot(root);
    await client.putTargets(targets);
    terminal.print('Installed.\n\nNext:\n  npx inlay publish MODEL.onnx --name NAME --version 1.0.0');
  });
}
