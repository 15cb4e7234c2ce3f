/** What administrators ask of rollouts, read from JSON. */

import { ServerError } from '../core/errors.ts';
import type { ArmOption, RolloutOptions } from '../publish/rollout.ts';
import { canonicalJson } from '../trust/canonical-json.ts';
import { isFields, isSize, type Fields } from '../trust/parse.ts';
import type { NetworkRules, Rule, TrialRules } from '../update/plan.ts';
import { isRange } from '../update/rules.ts';
import type { ChangeOptions } from './catalog.ts';

/** What a value has to be, and how that is said. */
interface Form {
  readonly is: (value: unknown) => boolean;
  readonly words: string;
}

const yearS = 31_536_000;
const weekS = 604_800;

/** The last second that metadata can write, milliseconds since 1970. */
const latestMs = Date.UTC(9999, 11, 31, 23, 59, 59);

const share: Form = {
  is: (value) => typeof value === 'number' && value >= 0 && value <= 100,
  words: 'a number from 0 to 100',
};
const isFlag: Form = { is: (value) => typeof value === 'boolean', words: 'true or false' };
const ids: Form = { is: isIds, words: 'a list of 500 identifiers at most' };
const names: Form = { is: isNames, words: 'a list of 64 texts at most, such as ["ios"]' };
const range: Form = {
  is: (value) => typeof value === 'string' && isRange(value),
  words: 'a range of versions such as ">=3.2.0 <4.0.0"',
};

/** As `update/plan.ts` reads them. */
const trialForms: Readonly<Record<keyof TrialRules, Form>> = {
  minInferences: whole(0, 1_000_000_000),
  soakS: whole(0, yearS),
  strikes: whole(1, 100),
  loadTimeoutS: whole(1, 3600),
  maxErrorBp: whole(0, 10_000),
  maxP95Percent: whole(1, 1_000_000),
  maxMemoryMiB: whole(0, 2 ** 31),
  graceS: whole(0, 3600),
};

const netForms: Readonly<Record<keyof NetworkRules, Form>> = {
  unmetered: isFlag,
  charging: isFlag,
  idle: isFlag,
};

const ruleForms: Readonly<Record<keyof Rule, Form>> = {
  os: names,
  arch: names,
  runtime: names,
  minMemoryMiB: whole(0, Number.MAX_SAFE_INTEGER),
  app: range,
  sdk: range,
  locale: names,
  attributes: {
    is: (value) => isFields(value) && Object.values(value).every(isNames),
    words: 'an object of lists such as {"site":["a","b"]}',
  },
};

const armForms: Readonly<Record<keyof ArmBody, Form>> = {
  name: { is: isText, words: 'a text' },
  version: { is: isText, words: 'a text' },
  weightBp: whole(0, 10_000),
};

/** How each option of a rollout looks; what is in a plan is checked again as a plan. */
const forms: Readonly<Record<string, Form>> = {
  version: { is: isText, words: 'a text' },
  percent: { is: (value) => typeof value === 'number', words: 'a number' },
  control: share,
  durationS: whole(0, yearS),
  startAt: whole(0, latestMs),
  stage: whole(0, 1_000_000),
  arms: {
    is: Array.isArray,
    words: 'a list of arms such as [{"name":"a","version":"1.2.0","weightBp":5000}]',
  },
  shadow: share,
  shadowSample: share,
  pinned: isFlag,
  rules: { is: isRules, words: 'a list of 32 rules at most, without fractions' },
  allow: ids,
  deny: ids,
  bucketBy: {
    is: (value) => typeof value === 'string' && /^.{1,64}$/su.test(value),
    words: 'a text of 1 to 64 characters',
  },
  trial: { is: isFields, words: 'an object such as {"soakS":3600}' },
  net: { is: isFields, words: 'an object such as {"unmetered":true}' },
  pollS: whole(1, weekS),
  reportS: whole(60, weekS),
  leaseS: whole(0, yearS),
  reason: {
    is: (value) => typeof value === 'string' && value.length <= 500,
    words: 'a text of 500 characters at most',
  },
  dryRun: isFlag,
};

/** A further arm by the version that it runs. */
export type ArmBody = Omit<ArmOption, 'entry'> & { readonly version: string };

/** A body that sets a rollout. */
export type RolloutBody = ChangeOptions &
  Omit<RolloutOptions, 'now' | 'channel' | 'arms'> & {
    readonly version: string;
    readonly percent: number;
    readonly arms?: readonly ArmBody[];
  };

/** What a plan says besides its share and its arms, and what stays through all stages of a rollout. */
export type PlanOptions = Pick<
  RolloutOptions,
  'rules' | 'allow' | 'deny' | 'bucketBy' | 'trial' | 'net' | 'pollS' | 'reportS' | 'leaseS'
>;

const planOptions: Readonly<Record<keyof PlanOptions, true>> = {
  rules: true,
  allow: true,
  deny: true,
  bucketBy: true,
  trial: true,
  net: true,
  pollS: true,
  reportS: true,
  leaseS: true,
};

/**
 * Reads the options of a plan that a programme begins with.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`
 */
export function readPlanOptions(options: Fields): PlanOptions {
  assertOptions(options, Object.keys(planOptions));
  return options;
}

/**
 * Reads the body of a request that sets a rollout.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`
 */
export function readRolloutBody(body: Fields): RolloutBody {
  if (body['version'] === undefined || body['percent'] === undefined) {
    throw refused('A rollout is set with a JSON object like { "version": "1.1.0", "percent": 25 }');
  }
  assertOptions(body, Object.keys(forms));
  const { arms = [] } = body;
  for (const arm of arms as readonly unknown[]) {
    if (!isFields(arm))
      throw refused('Each of the arms is an object such as {"name":"a","version":"1.2.0","weightBp":5000}');
    assertFields('option arms', arm, armForms);
    const missing = Object.keys(armForms).find((name) => arm[name] === undefined);
    if (missing !== undefined) throw refused(`Each of the arms needs ${missing}`);
  }
  return body as Fields & RolloutBody;
}

/**
 * Reads the body of a request that does something else to a rollout.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`
 */
export function readActionBody(body: Fields, action: string): ChangeOptions {
  assertForms(body, ['reason', 'dryRun']);
  const { reason } = body;
  if (action === 'promote' && (typeof reason !== 'string' || reason.trim() === '')) {
    throw refused('To promote at once goes round the trial of every stage; say why in `reason`');
  }
  return body;
}

function assertForms(body: Fields, allowed: readonly string[]): void {
  for (const [name, value] of Object.entries(body)) {
    const form = allowed.includes(name) ? forms[name] : undefined;
    if (!form) throw refused(`There is no option ${JSON.stringify(name.slice(0, 80))} here`);
    if (!form.is(value)) throw refused(`The option ${name} is ${form.words}, not ${shown(value)}`);
  }
}

function assertOptions(body: Fields, allowed: readonly string[]): void {
  assertForms(body, allowed);
  const { trial = {}, net = {}, rules = [] } = body;
  assertFields('option trial', trial as Fields, trialForms);
  assertFields('option net', net as Fields, netForms);
  for (const rule of rules as readonly unknown[]) {
    if (!isFields(rule)) throw refused('Each of the rules is an object such as {"os":["ios"]}');
    assertFields('option rules', rule, ruleForms);
  }
}

function isIds(value: unknown): boolean {
  return (
    Array.isArray(value) &&
    value.length <= 500 &&
    value.every((id) => typeof id === 'string' && id.length > 0 && id.length <= 256)
  );
}

function isText(value: unknown): value is string {
  return typeof value === 'string';
}

function isNames(value: unknown): boolean {
  return Array.isArray(value) && value.length <= 64 && value.every(isText);
}

function isRules(value: unknown): boolean {
  if (!Array.isArray(value) || value.length > 32) return false;
  try {
    return canonicalJson(value).length > 0;
  } catch {
    return false;
  }
}

/** Refuses fields that are not known, and values that they cannot have. */
function assertFields(what: string, fields: Fields, known: Readonly<Record<string, Form>>): void {
  for (const [name, value] of Object.entries(fields)) {
    const form = Object.hasOwn(known, name) ? known[name] : undefined;
    if (!form) {
      throw refused(
        `The ${what} has the unknown field ${shown(name)}; known are ${Object.keys(known).join(', ')}`,
      );
    }
    if (!form.is(value)) throw refused(`In the ${what}, ${name} is ${form.words}, not ${shown(value)}`);
  }
}

function whole(lowest: number, highest: number): Form {
  return {
    is: (value) => isSize(value) && value >= lowest && value <= highest,
    words: `a whole number from ${lowest} to ${highest}`,
  };
}

function shown(value: unknown): string {
  return JSON.stringify(value).slice(0, 80);
}

function refused(problem: string): ServerError {
  return new ServerError('ERR_INLAY_REFUSED', `${problem}.`);
}
