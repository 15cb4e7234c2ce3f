import type { Command } from 'commander';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import {
  formatDuration,
  parseShare,
  toRolloutBody,
  withRolloutOptions,
  type RolloutFlags,
} from './rollout-options.ts';
import type { RolloutAnswer } from '../server/catalog.ts';
import type { Terminal } from './terminal.ts';

interface Flags extends ServerFlags, RolloutFlags {
  readonly percent: number;
  readonly channel: string;
  readonly reason?: string;
  readonly dryRun?: true;
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
      'share of the devices, 0.01 to 100, or 0 with a shadow; only rises within a rollout',
      parseShare,
    )
    .option('--channel <name>', 'channel that the devices follow', 'stable');
  withServerFlags(withRolloutOptions(command))
    .option('--reason <text>', 'why, for the audit log')
    .option('--dry-run', 'show the plan that would be signed, and sign nothing')
    .option('--json', 'print JSON')
    .action(async (name: string, version: string, flags: Flags) => {
      const { channel, percent, reason, dryRun = false } = flags;
      const answer: RolloutAnswer = await connect(flags, terminal).setRollout(channel, name, {
        version,
        percent,
        ...toRolloutBody(flags, terminal.cwd),
        ...(reason !== undefined && { reason }),
        ...(dryRun && { dryRun }),
      });
      if (flags.json) {
        terminal.print(JSON.stringify({ channel, ...answer }));
        return;
      }
      const { notices = [], ...plan } = answer;
      if (dryRun) {
        terminal.print(
          `${[JSON.stringify(plan, undefined, 2), notices.join('\n')].filter((part) => part !== '').join('\n\n')}\n\nNothing was signed. Next: the same without --dry-run.`,
        );
        return;
      }
      const rest = plan.base ? `the others run ${plan.base.version}` : 'the others keep what they have';
      const complete = plan.state === 'complete';
      const share = plan.shadow ? `, and beside the others on ${plan.shadow.bp / 100} %` : '';
      const over = plan.durationS ? `, reached over ${formatDuration(plan.durationS)}` : '';
      terminal.print(
        `${name} ${version} runs on ${plan.bp / 100} % of channel ${channel}${share}${over}${complete ? '.' : `; ${rest}.`}`,
      );
      for (const notice of notices) terminal.print(notice);
      if (!complete) terminal.print(`\nNext:\n  npx inlay rollout set ${name} ${version} --percent 100`);
    });
}
