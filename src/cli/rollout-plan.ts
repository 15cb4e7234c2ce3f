import { InvalidArgumentError, Option, type Command } from 'commander';
import { ServerError } from '../core/errors.ts';
import type { StagePower } from '../server/api/answers.ts';
import { connect, withServerFlags, type ServerFlags } from './connection.ts';
import { formatShare } from './format.ts';
import { strategies, toProgramme, withStageOptions, type ProgrammeFlags } from './rollout-start.ts';
import { table, type Terminal } from './terminal.ts';

interface Flags extends ServerFlags, ProgrammeFlags {
  readonly devices?: number;
  readonly json?: true;
}

/** Adds `inlay rollout plan`. */
export function addRolloutPlan(rollout: Command, terminal: Terminal): void {
  const command = rollout
    .command('plan')
    .description('show what each stage can detect, and with how many devices; nothing is started')
    .argument('[name]', 'name of the model, to go by the devices that report on it')
    .option('--devices <number>', 'devices of the fleet (default: those that report)', parseDevices)
    .addOption(new Option('--strategy <name>', 'how it gets there').choices(strategies).default('canary'))
    .option('--programme <file>', 'a programme in JSON instead of these options');
  withServerFlags(withStageOptions(command))
    .option('--json', 'print JSON')
    .action(async (name: string | undefined, flags: Flags) => {
      const { devices } = flags;
      const answer = await connect(flags, terminal).ask<{ stages: StagePower[] }>('rollouts/power', 'POST', {
        programme: toProgramme(flags, terminal.cwd),
        ...(devices !== undefined && { devices }),
        ...(name !== undefined && { model: name }),
      });
      if (
        name !== undefined &&
        devices === undefined &&
        answer.stages.every(({ treated }) => treated === 0)
      ) {
        throw new ServerError(
          'ERR_INLAY_NOT_FOUND',
          `No device reports on ${name}, or there is no such model; give the size of the fleet with --devices.`,
        );
      }
      if (flags.json) {
        terminal.print(JSON.stringify(answer.stages));
        return;
      }
      for (const stage of answer.stages) terminal.print(`${describe(stage)}\n`);
    });
}

function describe({ bp, treated, control, rows, text }: StagePower): string {
  const count = (devices: number): string => Math.round(devices).toLocaleString('en');
  const drawn = rows.map(({ guard, baseRate, ratio, median, p90, detectable }) => [
    guard,
    formatShare(baseRate),
    `${ratio}×`,
    count(median),
    count(p90),
    detectable ? 'yes' : 'no',
  ]);
  const head = ['guard', 'bad before', 'worse by', 'devices (median)', 'devices (90 %)', 'found here'];
  return [
    `${bp / 100} %: ${count(treated)} devices, ${count(control)} in control`,
    ...(drawn.length > 0 ? [table(head, drawn)] : []),
    text,
  ].join('\n');
}

function parseDevices(text: string): number {
  if (/^\d{1,9}$/.test(text) && Number(text) > 0) return Number(text);
  throw new InvalidArgumentError('It is a whole number above 0.');
}
