import { InvalidArgumentError, type Command } from 'commander';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import type { Terminal } from './terminal.ts';

interface Flags extends ServerFlags {
  readonly percent: number;
  readonly channel: string;
  readonly json?: true;
}

/** Adds `inlay rollout set`. */
export function addRolloutSet(rollout: Command, terminal: Terminal): void {
  const command = rollout
    .command('set')
    .description('give a published version to a share of the devices; 100 completes the rollout')
    .argument('<name>', 'name of the model')
    .argument('<version>', 'published version')
    .requiredOption(
      '--percent <share>',
      'share of the devices, 0.01 to 100; only rises within a rollout',
      parsePercent,
    )
    .option('--channel <name>', 'channel that the devices follow', 'stable');
  withServerFlags(command)
    .option('--json', 'print JSON')
    .action(async (name: string, version: string, flags: Flags) => {
      const { channel, percent } = flags;
      const plan = await connect(flags, terminal).setRollout(channel, name, { version, percent });
      if (flags.json) {
        terminal.print(JSON.stringify({ channel, ...plan }));
        return;
      }
      const rest = plan.base ? `the others run ${plan.base.version}` : 'the others keep what they have';
      const complete = plan.state === 'complete';
      terminal.print(
        `${name} ${version} runs on ${plan.bp / 100} % of channel ${channel}${complete ? '.' : `; ${rest}.`}`,
      );
      if (!complete) terminal.print(`\nNext:\n  npx inlay rollout set ${name} ${version} --percent 100`);
    });
}

function parsePercent(text: string): number {
  const percent = /^\d+(\.\d+)?%?$/.test(text) ? Number.parseFloat(text) : Number.NaN;
  if (percent > 0 && percent <= 100) return percent;
  throw new InvalidArgumentError('It is a number above 0 and up to 100.');
}
