import { InvalidArgumentError, type Command } from 'commander';
import type { RolloutAction } from '../publish/rollout.ts';
import type { SignedPlan } from '../update/plan.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import type { Terminal } from './terminal.ts';

interface Flags extends ServerFlags {
  readonly channel: string;
  readonly reason?: string;
  readonly now?: true;
  readonly dryRun?: true;
  readonly json?: true;
}

/** What each command says of itself, and of what it has done. */
const commands: Readonly<
  Record<RolloutAction, { readonly about: string; done(plan: SignedPlan): string; readonly next?: string }>
> = {
  pause: {
    about: 'let no further device begin; those that have begun go on',
    done: () => 'is paused: no further device begins',
    next: 'resume',
  },
  resume: {
    about: 'let a paused or halted rollout go on',
    done: ({ bp }) => `goes on, to ${bp / 100} % of the devices`,
    next: 'show',
  },
  halt: {
    about: 'stop a rollout: devices on trial go back, those that have kept the version keep it',
    done: () => 'is halted: devices on trial go back at their next poll, the others keep what they run',
    next: 'rollback',
  },
  rollback: {
    about: 'take a version back from every device; ends the rollout',
    done: ({ base }) =>
      `is rolled back: devices go to ${base ? base.version : 'what they had before'} at their next poll`,
    next: 'show',
  },
  promote: {
    about: 'give the version to all devices at once, past every stage',
    done: () => 'is complete: all devices take it at their next poll',
    next: 'show',
  },
  retry: {
    about: 'let devices try again that rejected the version',
    done: () => 'is tried again by the devices that rejected it',
    next: 'show',
  },
};

/** Adds the commands that change a rollout: `inlay rollout pause` and so on. */
export function addRolloutChange(rollout: Command, terminal: Terminal): void {
  for (const [action, words] of Object.entries(commands) as [
    RolloutAction,
    (typeof commands)[RolloutAction],
  ][]) {
    const command = rollout
      .command(action)
      .description(words.about)
      .argument('<name>', 'name of the model')
      .option('--channel <name>', 'channel that the devices follow', 'stable');
    if (action === 'promote') {
      command
        .requiredOption('--now', 'say that it is to be at once')
        .requiredOption('--reason <text>', 'why, for the audit log', parseReason);
    } else {
      command.option('--reason <text>', 'why, for the audit log');
    }
    withServerFlags(command)
      .option('--dry-run', 'show the plan that would be signed, and sign nothing')
      .option('--json', 'print JSON')
      .action(async (name: string, flags: Flags) => {
        const { channel, reason, dryRun = false } = flags;
        const plan = await connect(flags, terminal).changeRollout(channel, name, action, {
          ...(reason !== undefined && { reason }),
          ...(dryRun && { dryRun }),
        });
        if (flags.json) {
          terminal.print(JSON.stringify({ channel, ...plan }));
        } else if (dryRun) {
          terminal.print(
            `${JSON.stringify(plan, undefined, 2)}\n\nNothing was signed. Next: the same without --dry-run.`,
          );
        } else {
          const where = channel === 'stable' ? '' : ` --channel ${channel}`;
          terminal.print(`${name} ${plan.cand.version} ${words.done(plan)}.`);
          if (words.next !== undefined)
            terminal.print(`\nNext:\n  npx inlay rollout ${words.next} ${name}${where}`);
        }
      });
  }
}

function parseReason(text: string): string {
  if (text.trim() !== '') return text;
  throw new InvalidArgumentError('Say why.');
}
