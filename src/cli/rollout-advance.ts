import { InvalidArgumentError, type Command } from 'commander';
import type { RolloutEvidence } from '../server/api/answers.ts';
import { rolloutPath } from './admin-client.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import type { Terminal } from './terminal.ts';

interface Flags extends ServerFlags {
  readonly channel: string;
  readonly reason: string;
  readonly json?: true;
}

/** Adds `inlay rollout advance`. */
export function addRolloutAdvance(rollout: Command, terminal: Terminal): void {
  const command = rollout
    .command('advance')
    .description('begin the next stage of a rollout, whatever the evidence says')
    .argument('<name>', 'name of the model')
    .requiredOption('--reason <text>', 'why, for the audit log', parseReason)
    .option('--channel <name>', 'channel that the devices follow', 'stable');
  withServerFlags(command)
    .option('--json', 'print JSON')
    .action(async (name: string, flags: Flags) => {
      const { channel, reason } = flags;
      const evidence = await connect(flags, terminal).ask<RolloutEvidence>(
        `${rolloutPath(channel, name)}/advance`,
        'POST',
        { reason },
      );
      if (flags.json) {
        terminal.print(JSON.stringify(evidence));
        return;
      }
      const { plan } = evidence;
      terminal.print(`${name} ${plan.cand.version} goes on to ${plan.bp / 100} % of the devices.`);
    });
}

function parseReason(text: string): string {
  if (text.trim() !== '') return text;
  throw new InvalidArgumentError('Say why.');
}
