import type { Command } from 'commander';
import { ServerError } from '../core/errors.ts';
import type { VerificationAnswer } from '../server/api/answers.ts';
import { rolloutPath } from './admin-client.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { none } from './format.ts';
import { table, type Terminal } from './terminal.ts';

interface Flags extends ServerFlags {
  readonly channel: string;
  readonly json?: true;
}

/** Adds `inlay rollout verify`. */
export function addRolloutVerify(rollout: Command, terminal: Terminal): void {
  const command = rollout
    .command('verify')
    .description('compute the verdicts again from the log of looks; ends with 1 if one does not follow')
    .argument('<name>', 'name of the model')
    .option('--channel <name>', 'channel that the devices follow', 'stable');
  withServerFlags(command)
    .option('--json', 'print JSON')
    .action(async (name: string, flags: Flags) => {
      const { stages } = await connect(flags, terminal).ask<VerificationAnswer>(
        `${rolloutPath(flags.channel, name)}/verify`,
      );
      const isBroken = stages.some(({ broken }) => broken.length > 0);
      if (flags.json) {
        terminal.print(JSON.stringify(stages));
      } else if (stages.length === 0) {
        terminal.print(`The guards have not looked at ${name} yet.`);
      } else {
        const rows = stages.map(({ stage, looks, broken }) => [
          String(stage + 1),
          String(looks),
          broken.join(', ') || none,
        ]);
        terminal.print(table(['stage', 'looks', 'that do not follow'], rows));
        if (!isBroken) terminal.print('\nEvery verdict follows from what was seen.');
      }
      if (isBroken) {
        throw new ServerError(
          'ERR_INLAY_SERVER',
          `Some verdicts on ${name} do not follow from what was seen; the log was changed, or another version of the server wrote it.`,
          { details: { model: name } },
        );
      }
    });
}
