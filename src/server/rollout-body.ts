/** What administrators ask of rollouts, read from JSON. */

import { ServerError } from '../core/errors.ts';
import type { RolloutOptions } from '../publish/rollout.ts';
import { canonicalJson } from '../trust/canonical-json.ts';
import { isFields, isSize, type Fields } from '../trust/parse.ts';
import type { ChangeOptions } from './catalog.ts';

/** How each option of a rollout looks; what is in a plan is checked again as a plan. */
const forms: Readonly<Record<string, (value: unknown) => boolean>> = {
  version: (value) => typeof value === 'string',
  percent: (value) => typeof value === 'number',
  control: (value) => typeof value === 'number' && value >= 0 && value <= 100,
  durationS: isSize,
  rules: isRules,
  allow: isIds,
  deny: isIds,
  bucketBy: (value) => typeof value === 'string',
  trial: (value) => hasOnly(value, trialNames),
  net: (value) => hasOnly(value, ['unmetered', 'charging', 'idle']),
  pollS: isSize,
  leaseS: isSize,
  reason: (value) => typeof value === 'string' && value.length <= 500,
  dryRun: (value) => typeof value === 'boolean',
};

const trialNames = [
  'minInferences',
  'soakS',
  'strikes',
  'loadTimeoutS',
  'maxErrorBp',
  'maxP95Percent',
  'maxMemoryMiB',
  'graceS',
];
const ruleNames = ['os', 'arch', 'runtime', 'minMemoryMiB', 'app', 'sdk', 'locale', 'attributes'];

/** A body that sets a rollout. */
export type RolloutBody = ChangeOptions &
  Omit<RolloutOptions, 'now'> & { readonly version: string; readonly percent: number };

/**
 * Reads the body of a request that sets a rollout.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`
 */
export function readRolloutBody(body: Fields): RolloutBody {
  if (body['version'] === undefined || body['percent'] === undefined) {
    throw refused('A rollout is set with a JSON object like { "version": "1.1.0", "percent": 25 }');
  }
  assertForms(body, Object.keys(forms));
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

function assertForms(body: Fields, names: readonly string[]): void {
  for (const [name, value] of Object.entries(body)) {
    const isForm = names.includes(name) ? forms[name] : undefined;
    if (!isForm) throw refused(`There is no option ${JSON.stringify(name.slice(0, 80))} here`);
    if (!isForm(value)) throw refused(`The option ${name} has a value that it cannot have`);
  }
}

function isIds(value: unknown): boolean {
  return (
    Array.isArray(value) &&
    value.length <= 500 &&
    value.every((id) => typeof id === 'string' && id.length > 0 && id.length <= 256)
  );
}

function isRules(value: unknown): boolean {
  if (!Array.isArray(value) || !value.every((rule) => hasOnly(rule, ruleNames))) return false;
  try {
    return canonicalJson(value).length > 0;
  } catch {
    return false;
  }
}

function hasOnly(value: unknown, names: readonly string[]): boolean {
  return isFields(value) && Object.keys(value).every((name) => names.includes(name));
}

function refused(problem: string): ServerError {
  return new ServerError('ERR_INLAY_REFUSED', `${problem}.`);
}
