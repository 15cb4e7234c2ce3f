import { InvalidArgumentError, Option, type Command } from 'commander';
import type { Programme, Stage, Strategy } from '../server/guards/programme.ts';
import type { ProgrammeInput } from '../server/guards/read-programme.ts';
import type { RolloutEvidence } from '../server/api/answers.ts';
import { rolloutPath } from './admin-client.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { readJsonFile } from './json-file.ts';
import {
  formatDuration,
  parseDuration,
  parseShare,
  parseTime,
  toPlanOptions,
  withPlanOptions,
  type PlanFlags,
} from './rollout-options.ts';
import type { Terminal } from './terminal.ts';

/** Options that say what a programme is. */
export interface ProgrammeFlags {
  readonly strategy: Strategy;
  readonly stages?: readonly number[];
  readonly soak: number;
  readonly max?: number;
  readonly over?: number;
  readonly control?: number;
  readonly alpha?: number;
  readonly calls?: number;
  readonly margin?: number;
  readonly inconclusive?: Programme['inconclusive'];
  readonly onFail?: Programme['onFail'];
  readonly soakOnly?: true;
  readonly arm?: readonly Arm[];
  readonly programme?: string;
  readonly start?: number;
}

type Arm = NonNullable<Programme['arms']>[number];

interface Flags extends ServerFlags, ProgrammeFlags, PlanFlags {
  readonly channel: string;
  readonly reason?: string;
  readonly json?: true;
}

/** Names of the strategies. */
export const strategies: readonly Strategy[] = [
  'canary',
  'blue-green',
  'shadow',
  'ab',
  'bandit',
  'rolling',
  'pin',
];

/** Adds `inlay rollout start`. */
export function addRolloutStart(rollout: Command, terminal: Terminal): void {
  const command = rollout
    .command('start')
    .description('give a published version to the devices in stages, each judged before the next')
    .argument('<name>', 'name of the model')
    .argument('<version>', 'published version')
    .option('--channel <name>', 'channel that the devices follow', 'stable')
    .addOption(new Option('--strategy <name>', 'how it gets there').choices(strategies).default('canary'))
    .option('--arm <name=version:share>', 'another arm of ab or bandit; may be repeated', collectArm)
    .option('--start <time>', 'when the first stage begins, such as 2030-01-01T08:00:00Z', parseTime)
    .option('--programme <file>', 'a programme in JSON instead of the options of the stages')
    .option('--reason <text>', 'why, for the audit log');
  withServerFlags(withPlanOptions(withStageOptions(command)))
    .option('--json', 'print JSON')
    .addHelpText('after', example)
    .action(async (name: string, version: string, flags: Flags) => {
      const { channel, reason } = flags;
      const programme = toProgramme(flags, terminal.cwd);
      const options = toPlanOptions(flags, terminal.cwd);
      const evidence = await connect(flags, terminal).ask<RolloutEvidence>(
        `${rolloutPath(channel, name)}/programme`,
        'POST',
        { version, programme, options, ...(reason !== undefined && { reason }) },
      );
      if (flags.json) {
        terminal.print(JSON.stringify(evidence));
        return;
      }
      const where = channel === 'stable' ? '' : ` --channel ${channel}`;
      const { plan } = evidence;
      const stages = evidence.programme?.stages ?? [];
      terminal.print(`${name} ${version} begins on ${plan.bp / 100} % of channel ${channel}.`);
      if (stages.length > 1) {
        const shares = stages.map(({ bp }) => `${bp / 100} %`).join(', ');
        terminal.print(
          `Stages: ${shares}; each soaks for ${formatDuration(stages[0]?.soakS ?? flags.soak)} and is judged by its guards.`,
        );
      }
      terminal.print(`\nNext:\n  npx inlay rollout watch ${name}${where}`);
    });
}

/** Adds the options that `plan` and `start` share. */
export function withStageOptions(command: Command): Command {
  return command
    .option('--stages <shares>', 'shares of the stages in per cent, such as 1,10,50,100', parseStages)
    .option('--soak <time>', 'shortest time of a stage', parseDuration, 3600)
    .option(
      '--max <time>',
      'longest time of a stage without a verdict (default: a day, or longer for a longer soak)',
      parseDuration,
    )
    .option('--over <time>', 'time over which the share of each stage fills up', parseDuration)
    .option('--control <share>', 'share that is measured on the version before', parseShare)
    .option('--alpha <chance>', 'chance of ever halting a good version (default: 0.05)', parseNumber)
    .option('--calls <number>', 'calls after which a device is judged (default: 50)', parseNumber)
    .option(
      '--margin <ratio>',
      'how many times worse is bad enough to want to know (default: 2)',
      parseNumber,
    )
    .addOption(
      new Option('--inconclusive <what>', 'what a stage does at its longest time without a verdict').choices([
        'hold',
        'promote',
        'rollback',
      ]),
    )
    .addOption(
      new Option('--on-fail <what>', 'what a failed guard does').choices(['rollback', 'halt', 'hold']),
    )
    .option('--soak-only', 'pass by time and clean tripwires alone, for fleets too small for statistics');
}

/** Gives the options the form in which the server takes them. */
export function toProgramme(flags: ProgrammeFlags, cwd: string): ProgrammeInput {
  const begin = flags.start !== undefined && { startAt: flags.start };
  if (flags.programme !== undefined) {
    return { ...(readJsonFile('programme', flags.programme, cwd) as ProgrammeInput), ...begin };
  }
  const { strategy, stages, soak, max, over, control, inconclusive, onFail, soakOnly, arm } = flags;
  const toStage = (bp: number): Stage => ({
    bp,
    soakS: soak,
    // A stage may not end before it has filled up and soaked.
    maxS: max ?? Math.max(86_400, soak + (over ?? 0)),
    ...(over !== undefined && { durationS: over }),
    ...(control !== undefined && { ctl: Math.min(Math.round(control * 100), 10_000 - bp) }),
  });
  const guard = toGuard(flags);
  return {
    strategy,
    ...(stages && { stages: stages.map(toStage) }),
    ...(Object.keys(guard).length > 0 && { guard }),
    ...(inconclusive && { inconclusive }),
    ...(onFail && { onFail }),
    ...(soakOnly && { soakOnly }),
    ...begin,
    ...(arm && { arms: arm }),
  };
}

/** What the guards are told. */
function toGuard({
  alpha,
  calls,
  margin,
}: Pick<ProgrammeFlags, 'alpha' | 'calls' | 'margin'>): NonNullable<ProgrammeInput['guard']> {
  return {
    ...(alpha !== undefined && { alpha }),
    ...(calls !== undefined && { calls }),
    ...(margin !== undefined && { marginRatio: margin }),
  };
}

const example = `
Example:
  $ npx inlay rollout start digits 1.1.0 --stages 1,10,50,100 --soak 1h --max 24h

See what the stages can detect first with \`inlay rollout plan\`.`;

function parseStages(text: string): readonly number[] {
  const stages = text.split(',').map((share) => Math.round(parseShare(share.trim()) * 100));
  if (stages.every((bp) => bp > 0)) return stages;
  throw new InvalidArgumentError('Each share is above 0.');
}

function parseNumber(text: string): number {
  const value = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && value > 0) return value;
  throw new InvalidArgumentError('It is a number above 0.');
}

function collectArm(text: string, before: readonly Arm[] = []): readonly Arm[] {
  const [, name = '', version = '', share = ''] = /^([^=]+)=([^:]+):(.+)$/.exec(text) ?? [];
  if (name === '') throw new InvalidArgumentError('Write it like b=1.2.0:50.');
  return [...before, { name, version, weightBp: Math.round(parseShare(share) * 100) }];
}
