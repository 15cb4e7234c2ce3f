import { InvalidArgumentError, type Command } from 'commander';
import { DEFAULT_STAGES } from '../server/guards/defaults.ts';
import { readProgramme, type ProgrammeInput } from '../server/guards/read-programme.ts';
import { expectedExposure, type Exposure } from '../server/simulate/expected.ts';
import { readRegression, REGRESSION_FORMS, type Regression } from '../server/simulate/regression.ts';
import { simulateRollout, type SimulationResult } from '../server/simulate/simulate.ts';
import { formatNumber } from './format.ts';
import { parseDuration, parseShare } from './rollout-options.ts';
import { table, type Terminal } from './terminal.ts';

interface Flags {
  readonly devices: number;
  readonly stage: number;
  readonly control?: number;
  readonly regression?: Regression;
  readonly poll: number;
  readonly report: number;
  readonly hours: number;
  readonly seed: number;
  readonly runs: number;
  readonly json?: true;
}

/** Seconds from a poll to the calls of a verdict, for the estimate: six minutes to fetch, and 50 calls at 240 an hour. */
const beginS = 360 + 750;
/** Seconds between two looks of the guards. */
const lookS = 60;

/** Adds `inlay simulate`. */
export function addSimulate(program: Command, terminal: Terminal): void {
  program
    .command('simulate')
    .description('play a rollout through with a simulated fleet and the real guards; nothing is published')
    .option('--devices <number>', 'devices of the fleet', parseCount(100, 2_000_000), 10_000)
    .option('--stage <share>', 'share of the first stage', parseShare, 1)
    .option(
      '--control <share>',
      'share that is measured on the version before (default: nine times the stage)',
      parseShare,
    )
    .option(
      '--regression <what>',
      `what is wrong with the release: ${REGRESSION_FORMS}; per cent of devices`,
      parseRegression,
    )
    .option('--poll <time>', 'time between two polls of a device', parseDuration, 3600)
    .option('--report <time>', 'time between two reports of a device', parseDuration, 900)
    .option('--hours <number>', 'hours after which it ends in any case', parseCount(1, 1000), 24)
    .option('--seed <number>', 'the same seed gives the same answer', parseCount(0, 2 ** 31 - 1), 1)
    .option('--runs <number>', 'so many fleets, each with its own seed', parseCount(1, 10_000), 1)
    .option('--json', 'print JSON, one line for each run')
    .action(async (flags: Flags) => {
      const programme = toStages(flags);
      const results: SimulationResult[] = [];
      for (let run = 0; run < flags.runs; run += 1) {
        const seed = flags.seed + run;
        const result = await simulateRollout({
          devices: flags.devices,
          programme,
          seed,
          pollS: flags.poll,
          reportS: flags.report,
          hours: flags.hours,
          ...(flags.regression && { regression: flags.regression }),
          onProgress: ({ hours, exposed, reports }) => {
            if (flags.json) return;
            terminal.printError(
              `run ${run + 1}, ${hours} h: ${exposed} devices have begun, ${reports} reports`,
            );
          },
        });
        results.push(result);
        if (flags.json) terminal.print(JSON.stringify({ seed, ...result }));
      }
      if (!flags.json) terminal.print(describe(flags, results, estimate(flags, programme)));
    });
}

/** The usual stages with another first share. */
function toStages({ stage, control }: Flags): ProgrammeInput {
  const bp = Math.round(stage * 100);
  const [first, ...others] = DEFAULT_STAGES.canary;
  const ctl = control === undefined ? undefined : Math.round(control * 100);
  const begin = { soakS: 3600, maxS: 86_400, ...first, bp, ...(ctl !== undefined && { ctl }) };
  return { strategy: 'canary', stages: [begin, ...others.filter((later) => later.bp > bp)] };
}

function estimate({ devices, poll, report, regression }: Flags, input: ProgrammeInput): Exposure | undefined {
  if (regression?.kind !== 'errors') return undefined;
  const { guard, stages } = readProgramme(input);
  const { bp = 10_000, ctl = Math.min(9 * bp, 10_000 - bp) } = stages[0] ?? {};
  if (ctl === 0) return undefined;
  const question = {
    fleet: devices,
    bp,
    ctl,
    spreadS: poll,
    beginS,
    reportS: report,
    lookS,
    guard,
    regression,
  };
  return expectedExposure(question);
}

function describe(
  { regression, runs }: Flags,
  results: readonly SimulationResult[],
  expected: Exposure | undefined,
): string {
  const rows = results.map(({ outcome, by, exposed, exposedInAll, hours, stage, leftAfterH }, run) => [
    String(run + 1),
    outcome,
    by,
    String(stage + 1),
    formatNumber(hours),
    String(exposed),
    String(exposedInAll),
    formatNumber(leftAfterH),
  ]);
  const head = ['run', 'outcome', 'by', 'stage', 'hours', 'exposed', 'in all', 'all left after (h)'];
  const halted = results.filter(({ outcome }) => outcome === 'halted').length;
  const completed = results.filter(({ outcome }) => outcome === 'completed').length;
  const verdict = regression
    ? `The release is bad: ${halted} of ${runs} rollouts were halted by the guards.`
    : `The release is good: ${completed} of ${runs} rollouts were completed, and ${halted} halted by mistake.`;
  return [
    table(head, rows),
    ...(expected
      ? [
          `Expected: ${Math.round(expected.exposed)} exposed devices, min(p·N, n* + λ·L) with n* = ${expected.devices}, ` +
            `λ = ${Math.round(expected.perHour)} per hour and L = ${formatNumber(expected.delayH)} h.`,
        ]
      : []),
    ...(results.length === 1 ? [results[0]?.text ?? ''] : []),
    verdict,
  ].join('\n');
}

function parseCount(least: number, most: number): (text: string) => number {
  return (text) => {
    const number = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
    if (number >= least && number <= most) return number;
    throw new InvalidArgumentError(`It is a whole number from ${least} to ${most}.`);
  };
}

function parseRegression(text: string): Regression {
  const regression = readRegression(text);
  if (regression) return regression;
  throw new InvalidArgumentError(`Write one of ${REGRESSION_FORMS}, in per cent of devices.`);
}
