import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { ServerError } from '../core/errors.ts';
import { nodePlatform } from '../platform-node.ts';
import { installDrafts, mergeDraft } from '../publish/root-rotate.ts';
import { parseEnvelope } from '../trust/parse.ts';
import type { AdminClient } from './admin-client.ts';
import {
  connect,
  openKeys,
  withKeyFlags,
  withServerFlags,
  type KeyFlags,
  type ServerFlags,
} from './connection.ts';
import type { KeyDirectory } from './key-directory.ts';
import { findDraft, parseDraft } from './keys-sign.ts';
import { printInstalled } from './keys-rotate.ts';
import type { Terminal } from './terminal.ts';

interface Flags extends ServerFlags, KeyFlags {
  readonly json?: true;
}

/** Adds `inlay keys install`. */
export function addKeysInstall(keys: Command, terminal: Terminal): void {
  const command = keys
    .command('install')
    .description(
      'send what the key folder holds to the server: drafts once they have all signatures, or else root.json and targets.json',
    )
    .argument('[drafts...]', 'copies of drafts that others signed');
  withServerFlags(withKeyFlags(command))
    .option('--json', 'print JSON')
    .action(async (files: readonly string[], flags: Flags) => {
      const directory = openKeys(flags, terminal);
      const server = connect(flags, terminal);
      const platform = nodePlatform();
      const parts = { server, keys: directory, platform };
      await directory.root();
      for (const file of files) {
        const path = await findDraft(file, directory, terminal);
        await mergeDraft(parts, parseDraft(await readFile(path), file));
      }
      if ((await directory.drafts()).length > 0) {
        printInstalled(terminal, directory, await installDrafts(parts), flags);
        return;
      }
      const installed = await installFirst(directory, server);
      if (flags.json) terminal.print(JSON.stringify(installed));
      else {
        terminal.print(`Installed.\n\nNext:\n  npx inlay publish MODEL.onnx --name NAME --version 1.0.0`);
      }
    });
}

/** Brings a server that has less to the roots and the targets of the folder. No private key is read. */
async function installFirst(
  directory: KeyDirectory,
  server: AdminClient,
): Promise<{ readonly root: number; readonly targets: number }> {
  const newest = await directory.root();
  const { version } = parseEnvelope(newest, 'root').signed;
  const bytes = await directory.read('targets.json');
  if (!bytes) {
    throw new ServerError(
      'ERR_INLAY_NOT_FOUND',
      `There is no targets.json in ${directory.path}; create it with \`inlay keys init\`.`,
    );
  }
  const targets = parseEnvelope(bytes, 'targets').signed.version;
  const present = await server.status();
  for (let next = present.root + 1; next < version; next += 1) {
    const root = await directory.read(`root.${next}.json`);
    if (!root) {
      throw new ServerError(
        'ERR_INLAY_NOT_FOUND',
        `There is no root.${next}.json in ${directory.path}, which the server needs before root ${version}; ` +
          'restore it from a backup.',
      );
    }
    await server.putRoot(root);
  }
  // The same bytes again change nothing, and other bytes of the same version are told apart by the server.
  if (present.root <= version) await server.putRoot(newest);
  if (present.targets <= targets) await server.putTargets(bytes);
  return { root: Math.max(present.root, version), targets: Math.max(present.targets, targets) };
}
