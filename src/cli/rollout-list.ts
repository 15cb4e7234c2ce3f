import type { Command } from 'commander';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import type { ServerStatus } from '../server/status.ts';
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
      terminal.print(
        rolloutTable(channels) ??
          'No rollouts yet; start one with `inlay rollout set NAME VERSION --percent 10`.',
      );
    });
}

/** Draws what every channel runs; `undefined` while there is nothing. */
export function rolloutTable(channels: ServerStatus['channels']): string | undefined {
  const rows = Object.entries(channels).flatMap(([channel, plans]) =>
    plans.map(({ model, cand, bp, state, base }) => [
      channel,
      model,
      cand.version,
      state,
      `${bp / 100} %`,
      state === 'complete' ? '-' : (base?.version ?? 'none'),
    ]),
  );
  return rows.length === 0
    ? undefined
    : table(['channel', 'model', 'version', 'state', 'share', 'others run'], rows);
}
