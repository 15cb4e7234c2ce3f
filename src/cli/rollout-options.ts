/** Options of `inlay rollout set` beyond the share. */

import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { InvalidArgumentError, type Command } from 'commander';
import type { RolloutBody } from '../server/rollout-body.ts';
import { InputError } from '../core/errors.ts';
import { DEFAULT_TRIAL, type NetworkRules, type Rule, type TrialRules } from '../update/plan.ts';

/** What the options give. */
export interface RolloutFlags {
  readonly over?: number;
  readonly control?: number;
  readonly rules?: string;
  readonly allow?: string[];
  readonly deny?: string[];
  readonly bucketBy?: string;
  readonly trial?: Partial<TrialRules>;
  readonly net?: Partial<NetworkRules>;
  readonly poll?: number;
  readonly lease?: number;
}

/** Adds the options. */
export function withRolloutOptions(command: Command): Command {
  return command
    .option('--over <time>', 'time over which the share is reached, such as 6h', parseDuration)
    .option('--control <share>', 'share that is measured on the version before', parseShare)
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
  const { over, control, rules, allow, deny, bucketBy, trial, net, poll, lease } = flags;
  return {
    ...(over !== undefined && { durationS: over }),
    ...(control !== undefined && { control }),
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

function parseDuration(text: string): number {
  const [, digits = '', unit = ''] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  if (digits === '') throw new InvalidArgumentError('It is a whole number with s, m, h or d, such as 6h.');
  return Number(digits) * unitS[unit as keyof typeof unitS];
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
