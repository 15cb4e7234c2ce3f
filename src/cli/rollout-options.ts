/** Options of `inlay rollout set` beyond the share; some are those of `rollout start`, too. */

import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import type { ArmBody, PlanOptions, RolloutBody } from '../server/rollout-body.ts';
import { InputError } from '../core/errors.ts';
import { DEFAULT_TRIAL, type NetworkRules, type Rule, type TrialRules } from '../update/plan.ts';

/** What the options of `rollout set` give. */
export interface RolloutFlags extends PlanFlags {
  readonly over?: number;
  readonly start?: number;
  readonly arms?: readonly ArmBody[];
  readonly shadow?: number;
  readonly shadowSample?: number;
  readonly pin?: boolean;
  readonly unpin?: boolean;
  readonly control?: number;
}

/** What the options give that stay through all stages. */
export interface PlanFlags {
  readonly reportEvery?: number;
  readonly rules?: string;
  readonly allow?: string[];
  readonly deny?: string[];
  readonly bucketBy?: string;
  readonly trial?: Partial<TrialRules>;
  readonly net?: Partial<NetworkRules>;
  readonly poll?: number;
  readonly lease?: number;
}

/** Adds the options of `rollout set`. */
export function withRolloutOptions(command: Command): Command {
  command
    .option('--over <time>', 'time over which the share is reached, such as 6h', parseDuration)
    .option('--start <time>', 'when it begins, such as 2030-01-01T08:00:00Z', parseTime)
    .option(
      '--arms <list>',
      'further versions and their shares of the devices that it wins, such as a=1.2.0:50,b=1.3.0:25',
      parseArms,
    )
    .option(
      '--shadow <share>',
      'share that runs it beside the version before, unseen; 0 for none',
      parseShare,
    )
    .option('--shadow-sample <share>', 'share of their calls that it gets; 10 at first', parseShare)
    .addOption(
      new Option('--pin', 'let no other version take its place until it is unpinned').conflicts('unpin'),
    )
    .option('--unpin', 'let another version take its place again')
    .option('--control <share>', 'share that is measured on the version before', parseShare);
  return withPlanOptions(command);
}

/** Adds the options that stay through all stages. */
export function withPlanOptions(command: Command): Command {
  return command
    .option('--report-every <time>', 'time between two reports of a device, 1m to 7d', parseDuration)
    .option('--rules <json>', 'which devices take part: a JSON list of rules, or @FILE')
    .option('--allow <id>', 'install identifier that takes part in any case; may be repeated', collect)
    .option('--deny <id>', 'install identifier that does not take part; may be repeated', collect)
    .option('--bucket-by <attribute>', 'place all devices with the same value of this attribute together')
    .option('--trial <settings>', 'how a device finds out, such as minInferences=50,soakS=3600', parseTrial)
    .option('--net <settings>', 'when devices download: unmetered, charging, idle', parseNetwork)
    .option('--poll <time>', 'time between two polls', parseDuration)
    .option('--lease <time>', 'devices on trial go back when they hear nothing for so long', parseDuration);
}

/** Gives the options the form in which the server takes them. */
export function toRolloutBody(flags: RolloutFlags, cwd: string): Omit<RolloutBody, 'version' | 'percent'> {
  const { over, control, start, arms, shadow, shadowSample, pin, unpin } = flags;
  return {
    ...(over !== undefined && { durationS: over }),
    ...(start !== undefined && { startAt: start }),
    ...(arms && { arms }),
    ...(shadow !== undefined && { shadow }),
    ...(shadowSample !== undefined && { shadowSample }),
    ...((pin ?? unpin) !== undefined && { pinned: pin === true }),
    ...(control !== undefined && { control }),
    ...toPlanOptions(flags, cwd),
  };
}

/** Gives the options that stay through all stages the form in which the server takes them. */
export function toPlanOptions(flags: PlanFlags, cwd: string): PlanOptions {
  const { reportEvery, rules, allow, deny, bucketBy, trial, net, poll, lease } = flags;
  return {
    ...(reportEvery !== undefined && { reportS: reportEvery }),
    ...(rules !== undefined && { rules: parseRules(rules, cwd) }),
    ...(allow && { allow }),
    ...(deny && { deny }),
    ...(bucketBy !== undefined && { bucketBy }),
    ...(trial && { trial }),
    ...(net && { net }),
    ...(poll !== undefined && { pollS: poll }),
    ...(lease !== undefined && { leaseS: lease }),
  };
}

/** Formats seconds as {@link parseDuration} reads them. */
export function formatDuration(seconds: number): string {
  const [name, length] =
    (['d', 'h', 'm'] as const)
      .map((unit) => [unit, unitS[unit]] as const)
      .find(([, lengthS]) => seconds >= lengthS && seconds % lengthS === 0) ?? (['s', 1] as const);
  return `${seconds / length}${name}`;
}

/** Reads a share in per cent, with or without the sign. */
export function parseShare(text: string): number {
  const percent = /^\d+(\.\d+)?%?$/.test(text) ? Number.parseFloat(text) : Number.NaN;
  if (percent >= 0 && percent <= 100) return percent;
  throw new InvalidArgumentError('It is a number from 0 to 100.');
}

const unitS = { s: 1, m: 60, h: 3600, d: 86_400 } as const;

/** Reads a time such as `6h`, in seconds. */
export function parseDuration(text: string): number {
  const [, digits = '', unit = ''] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  if (digits === '') throw new InvalidArgumentError('It is a whole number with s, m, h or d, such as 6h.');
  return Number(digits) * unitS[unit as keyof typeof unitS];
}

/** Parses a time of an option such as `2030-01-01T08:00:00Z`. @returns milliseconds since 1970. */
export function parseTime(text: string): number {
  const ms = Date.parse(text);
  if (/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(text) && !Number.isNaN(ms)) return ms;
  throw new InvalidArgumentError('It is a time in UTC such as 2030-01-01T08:00:00Z.');
}

function parseArms(text: string): readonly ArmBody[] {
  return text.split(',').map((item) => {
    const [, name = '', version = '', share = ''] = /^([^=]+)=(.+):([^:]+)$/.exec(item.trim()) ?? [];
    if (name === '') {
      throw new InvalidArgumentError(
        `${JSON.stringify(item)} is no arm; write a list such as a=1.2.0:50,b=1.3.0:25, in per cent.`,
      );
    }
    const weightBp = Math.round(parseShare(share) * 100);
    return { name, version, weightBp };
  });
}

function collect(id: string, before: string[] = []): string[] {
  return [...before, id];
}

function parseTrial(text: string): Partial<TrialRules> {
  const known = Object.keys(DEFAULT_TRIAL);
  const settings = text.split(',').map((setting) => {
    const [, name = '', value = ''] = /^([^=]+)=(\d{1,12})$/.exec(setting.trim()) ?? [];
    if (name === '') {
      throw new InvalidArgumentError(
        `${JSON.stringify(setting)} is no setting; write a list such as minInferences=50,soakS=3600.`,
      );
    }
    if (!known.includes(name)) throw unknownField(name, known);
    return [name, Number(value)] as const;
  });
  return Object.fromEntries(settings);
}

function parseNetwork(text: string): Partial<NetworkRules> {
  const known: readonly string[] = ['unmetered', 'charging', 'idle'];
  const names = text.split(',').map((name) => name.trim());
  const other = names.find((name) => !known.includes(name));
  if (other !== undefined) throw unknownField(other, known);
  return Object.fromEntries(names.map((name) => [name, true]));
}

function unknownField(name: string, known: readonly string[]): InvalidArgumentError {
  return new InvalidArgumentError(`Unknown field ${JSON.stringify(name)}; known are ${known.join(', ')}.`);
}

function parseRules(text: string, cwd: string): readonly Rule[] {
  const source = text.startsWith('@') ? readRulesFile(text.slice(1), cwd) : text;
  let rules: unknown;
  try {
    rules = JSON.parse(source);
  } catch (cause) {
    throw new TypeError('The rules are no JSON; write them like [{"os":["ios"],"app":">=3.2.0"}].', {
      cause,
    });
  }
  return (Array.isArray(rules) ? rules : [rules]) as readonly Rule[];
}

function readRulesFile(path: string, cwd: string): string {
  try {
    return readFileSync(resolve(cwd, path), 'utf8');
  } catch (cause) {
    throw new InputError('ERR_INLAY_FEED_VALUE', `The rules ${path} cannot be read; check the path.`, {
      cause,
    });
  }
}
