import type { Command } from 'commander';
import { nodePlatform } from '../platform-node.ts';
import { installDrafts, proposeRoot, proposeTargets, readAndKeep } from '../publish/root-rotate.ts';
import {
  connect,
  openKeys,
  withKeyFlags,
  withServerFlags,
  type KeyFlags,
  type ServerFlags,
} from './connection.ts';
import { printDraft, printInstalled } from './keys-rotate.ts';
import type { Terminal } from './terminal.ts';

interface Flags extends ServerFlags, KeyFlags {
  readonly targetsOnly?: true;
  readonly draft?: true;
  readonly json?: true;
}

/** Adds `inlay keys renew`. */
export function addKeysRenew(keys: Command, terminal: Terminal): void {
  const command = keys
    .command('renew')
    .description('sign root and targets anew with the same keys and a later expiry, and install them');
  withServerFlags(withKeyFlags(command))
    .option('--targets-only', 'leave the root as it is, where its keys are not at hand')
    .option('--draft', 'only write the next root and targets down, for others to sign')
    .option('--json', 'print JSON')
    .action(async (flags: Flags) => {
      const directory = openKeys(flags, terminal);
      const parts = { server: connect(flags, terminal), keys: directory, platform: nodePlatform() };
      const current = await readAndKeep(parts);
      const isBegun = (await directory.drafts()).length > 0;
      if (!isBegun || flags.draft) {
        if (flags.targetsOnly) await proposeTargets(parts, current.root, current, true);
        else {
          const proposed = await proposeRoot(parts, { renewTargets: true }, current);
          if (flags.draft) {
            printDraft(terminal, directory, proposed, flags);
            return;
          }
        }
      }
      printInstalled(terminal, directory, await installDrafts(parts), flags);
    });
}
