import type { Command } from 'commander';
import { rolloutTable } from './rollout-list.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { formatBytes, table, type Terminal } from './terminal.ts';

/** Adds `inlay status`. */
export function addStatus(program: Command, terminal: Terminal): void {
  const command = program.command('status').description('show what is installed on the server');
  withServerFlags(command)
    .option('--json', 'print JSON')
    .action(async (flags: ServerFlags & { readonly json?: true }) => {
      const status = await connect(flags, terminal).status();
      if (flags.json) {
        terminal.print(JSON.stringify(status));
        return;
      }
      const { root, targets, expires, models, blobs, channels } = status;
      terminal.print(
        `root ${root}, targets ${targets}, ${blobs.count} blobs (${formatBytes(blobs.sizeBytes)})`,
      );
      const releases = Object.entries(models).flatMap(([model, versions]) =>
        versions.map(({ version, seq, length, sha256 }) => [
          model,
          version,
          String(seq),
          formatBytes(length),
          sha256.slice(0, 12),
        ]),
      );
      if (releases.length > 0) {
        terminal.print(`\n${table(['model', 'version', 'seq', 'size', 'sha256'], releases)}`);
      }
      const plans = rolloutTable(channels);
      if (plans !== undefined) terminal.print(`\n${plans}`);
      if (root > 0) terminal.print(`\n${table(['metadata', 'expires'], Object.entries(expires))}`);
      else terminal.print('Nothing is installed yet; run `inlay keys init`.');
    });
}
