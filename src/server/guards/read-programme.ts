/** Reads what somebody wants a rollout to do by itself, and fills its defaults in. */

import { ServerError } from '../../core/errors.ts';
import { isFields, isSize, type Fields } from '../../trust/parse.ts';
import { EVENT_NAME } from '../../telemetry/report.ts';
import { isArmName, MOST_ARMS } from '../../update/arms.ts';
import type { Rule } from '../../update/plan.ts';
import { DEFAULT_GUARD, DEFAULT_STAGES } from './defaults.ts';
import type { GuardName, GuardOptions, Programme, Stage, Strategy } from './programme.ts';
import {
  GUARD_RANGES,
  MARGIN_RANGE,
  MOST_RULES,
  MOST_SECONDS_RANGE,
  MOST_STAGES,
  SECONDS_RANGE,
  SHARE_RANGE,
  START_RANGE,
  VERSION_FORM,
  WEIGHT_RANGE,
  type Range,
} from './ranges.ts';

/** A programme as people write it: what is absent is at its default. */
export type ProgrammeInput = { readonly strategy: Strategy } & Partial<
  Omit<Programme, 'v' | 'strategy' | 'guard'>
> & { readonly v?: 1; readonly guard?: Partial<GuardOptions> };

type Is = (value: unknown) => boolean;

const guardNames: readonly GuardName[] = [...DEFAULT_GUARD.guards, 'biz'];

const between =
  ([lowest, highest]: Range): Is =>
  (value) =>
    typeof value === 'number' && value >= lowest && value <= highest;
const whole =
  (range: Range): Is =>
  (value) =>
    isSize(value) && between(range)(value);
const oneOf =
  (words: readonly unknown[]): Is =>
  (value) =>
    words.includes(value);
const listOf =
  (is: Is, least: number, most: number): Is =>
  (value) =>
    Array.isArray(value) && value.length >= least && value.length <= most && value.every(is);
const areGuards = listOf(oneOf(guardNames), 0, guardNames.length);

const forms: Readonly<Record<string, Is>> = {
  v: oneOf([1]),
  strategy: oneOf(Object.keys(DEFAULT_STAGES)),
  stages: listOf(isFields, 1, MOST_STAGES),
  startAt: whole(START_RANGE),
  guard: isFields,
  inconclusive: oneOf(['hold', 'promote', 'rollback']),
  soakOnly: oneOf([true, false]),
  onFail: oneOf(['rollback', 'halt', 'hold']),
  arms: listOf(isFields, 1, MOST_ARMS),
};

const stageForms: Readonly<Record<keyof Stage, Is>> = {
  bp: whole(SHARE_RANGE),
  ctl: whole(WEIGHT_RANGE),
  durationS: whole(SECONDS_RANGE),
  soakS: whole(SECONDS_RANGE),
  maxS: whole(MOST_SECONDS_RANGE),
  rules: listOf(isFields, 0, MOST_RULES),
};

const guardForms: Readonly<Record<keyof GuardOptions, Is>> = {
  guards: areGuards,
  required: areGuards,
  alpha: between(GUARD_RANGES.alpha),
  calls: whole(GUARD_RANGES.calls),
  marginRatio: between(GUARD_RANGES.marginRatio),
  minRatio: between(GUARD_RANGES.minRatio),
  maxP95Ratio: between(GUARD_RANGES.maxP95Ratio),
  maxLoadRatio: between(GUARD_RANGES.maxLoadRatio),
  maxMemoryRatio: between(GUARD_RANGES.maxMemoryRatio),
  biz: (value) =>
    isFields(value) &&
    typeof value['name'] === 'string' &&
    EVENT_NAME.test(value['name']) &&
    between(MARGIN_RANGE)(value['margin']),
};

const armForms: Readonly<Record<string, Is>> = {
  name: (value) => typeof value === 'string' && isArmName(value),
  version: (value) => typeof value === 'string' && VERSION_FORM.test(value),
  weightBp: whole(WEIGHT_RANGE),
};

/**
 * Reads a programme.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` if something is unknown, out of its range, or does not fit together.
 */
export function readProgramme(value: unknown): Programme {
  if (!isFields(value)) throw refused('It is an object such as {"strategy":"canary"}');
  assertForms('programme', value, forms, ['strategy']);
  const strategy = value['strategy'] as Strategy;
  const stages = (value['stages'] ?? DEFAULT_STAGES[strategy]) as readonly (Fields & Stage)[];
  for (const [i, stage] of stages.entries()) {
    assertForms(`stage ${i + 1}`, stage, stageForms, ['bp', 'soakS', 'maxS']);
    const { durationS = 0, soakS, maxS, bp, ctl = 0 } = stage;
    if (durationS + soakS > maxS) throw refused(`Stage ${i + 1} ends before it has filled up and soaked`);
    if (bp + ctl > 10_000) throw refused(`Stage ${i + 1} has no room for a control of ${ctl / 100} %`);
    if (strategy !== 'rolling' && bp < (stages[i - 1]?.bp ?? 0)) {
      throw refused(`The share of stage ${i + 1} is below that of the stage before`);
    }
  }
  if (strategy === 'shadow' && value['startAt'] !== undefined) throw refused('A shadow begins at once');
  const guard = (value['guard'] ?? {}) as Fields & Partial<GuardOptions>;
  assertForms('guard', guard, guardForms, []);
  const options = { ...DEFAULT_GUARD, ...guard };
  const stray = options.required.find((name) => !options.guards.includes(name));
  if (stray !== undefined) throw refused(`The guard ${stray} is required but not among the guards`);
  if (options.guards.includes('biz') && !options.biz) {
    throw refused(
      'The guard biz needs the name of a business event, such as "biz":{"name":"sale","margin":0.02}',
    );
  }
  return {
    v: 1,
    strategy,
    stages: strategy === 'rolling' ? withEarlierRules(stages) : stages,
    ...(value['startAt'] !== undefined && { startAt: value['startAt'] as number }),
    guard: options,
    inconclusive: (value['inconclusive'] ?? 'hold') as Programme['inconclusive'],
    soakOnly: value['soakOnly'] === true,
    onFail: (value['onFail'] ?? 'rollback') as Programme['onFail'],
    ...armsOf(strategy, value['arms']),
  };
}

function armsOf(strategy: Strategy, value: unknown): Pick<Programme, 'arms'> {
  const needsArms = strategy === 'ab' || strategy === 'bandit';
  if (value === undefined) {
    if (strategy === 'bandit') throw refused('A bandit needs arms beside the candidate');
    return {};
  }
  if (!needsArms) throw refused(`The strategy ${strategy} has no arms; use ab or bandit`);
  const arms = value as readonly (Fields & NonNullable<Programme['arms']>[number])[];
  for (const arm of arms) assertForms('arm', arm, armForms, Object.keys(armForms));
  if (new Set(arms.map(({ name }) => name)).size < arms.length) throw refused('Two arms have one name');
  if (arms.reduce((sum, { weightBp }) => sum + weightBp, 0) > 10_000) {
    throw refused('The arms have more than the whole share');
  }
  return { arms };
}

/** Cohorts stay in once they are: each stage has the rules of those before. */
function withEarlierRules(stages: readonly Stage[]): readonly Stage[] {
  const rules: Rule[] = [];
  return stages.map((stage) => {
    rules.push(...(stage.rules ?? []));
    if (rules.length > MOST_RULES) throw refused(`The cohorts have more than ${MOST_RULES} rules in all`);
    return rules.length === 0 ? stage : { ...stage, rules: [...rules] };
  });
}

function assertForms(
  what: string,
  fields: Fields,
  known: Readonly<Record<string, Is>>,
  needed: readonly string[],
): void {
  for (const name of needed) if (fields[name] === undefined) throw refused(`The ${what} has no ${name}`);
  for (const [name, value] of Object.entries(fields)) {
    const is = Object.hasOwn(known, name) ? known[name] : undefined;
    if (!is) {
      const names = Object.keys(known).join(', ');
      throw refused(
        `The ${what} has the unknown field ${JSON.stringify(name.slice(0, 80))}; known are ${names}`,
      );
    }
    if (!is(value)) throw refused(`In the ${what}, ${name} cannot be ${JSON.stringify(value).slice(0, 80)}`);
  }
}

function refused(problem: string): ServerError {
  return new ServerError('ERR_INLAY_REFUSED', `The programme cannot be carried out: ${problem}.`);
}
