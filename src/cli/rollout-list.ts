import type { Command } from 'commander';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { table, type Terminal } from './terminal.ts';

/** Adds `inlay rollout list`. */
export function addRolloutList(rollout: Command, terminal: Terminal): void {
  const command = rollout.command('list').description('show what every channel runs');
  withServerFlags(command)
    .option('--json', 'print JSON')
    .action(async (flags: ServerFlags & { readonly json?: true }) => {
      const { channels } = await connect(flags, terminal).status();
      if (flags.json) {
        terminal.print(JSON.stringify(channels));
        return;
      }
      const rows = Object.entries(channels).flatMap(([channel, plans]) =>
        plans.map(({ model, cand, bp, state, base }) => [
          channel,
          model,
          cand.version,
          `${bp / 100} %`,
          state === 'complete' ? '-' : (base?.version ?? 'none'),
        ]),
      );
      terminal.print(
        rows.length === 0
          ? 'No rollouts yet; start one with `inlay rollout set NAME VERSION --percent 10`.'
          : table(['channel', 'model', 'version', 'share', 'others run'], rows),
      );
    });
}
