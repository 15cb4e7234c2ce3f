/** Rules of a plan, evaluated on the device. A fact that the device does not know never holds. */

import type { Install, Rule } from './plan.ts';

/** A version by SemVer 2.0: three numbers as text without leading zeros, and the identifiers of a prerelease. */
interface Version {
  readonly numbers: readonly string[];
  readonly prerelease: readonly string[];
}

interface Comparison {
  readonly operator: string;
  readonly version: Version;
}

/** SemVer 2.0 §2, §9 and §10; what follows a `+` has no part in the order. */
const versionForm =
  /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][\da-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][\da-zA-Z-]*))*))?(?:\+[\da-zA-Z-]+(?:\.[\da-zA-Z-]+)*)?$/;

/** Longest version or range that is read, characters. */
const longest = 256;

const operators: Readonly<Record<string, (order: number) => boolean>> = {
  '>=': (order) => order >= 0,
  '<=': (order) => order <= 0,
  '>': (order) => order > 0,
  '<': (order) => order < 0,
  '=': (order) => order === 0,
};

/** What each field of a rule demands. A field that is not here belongs to a later version of Inlay. */
const conditions: Readonly<Record<keyof Rule, (rule: Rule, install: Install) => boolean>> = {
  os: ({ os = [] }, install) => isOneOf(os, install.os),
  arch: ({ arch = [] }, install) => isOneOf(arch, install.arch),
  runtime: ({ runtime = [] }, install) => isOneOf(runtime, install.runtime),
  minMemoryMiB: ({ minMemoryMiB = Infinity }, { memoryMiB = -1 }) => memoryMiB >= minMemoryMiB,
  app: ({ app = '' }, install) => satisfies(install.app, app),
  sdk: ({ sdk = '' }, install) => satisfies(install.sdk, sdk),
  locale: ({ locale = [] }, install) => locale.some((range) => covers(range, install.locale)),
  attributes: ({ attributes = {} }, { attributes: own = {} }) =>
    Object.entries(attributes).every(
      ([name, values]) => Object.hasOwn(own, name) && isOneOf(values, own[name]),
    ),
};

/**
 * Tells whether a device may take part: one rule holds, or there is none. A rule holds when each of its fields does; one
 * with a field that this version does not know does not hold, since it might exclude this device.
 */
export function rulesHold(rules: readonly Rule[], install: Install): boolean {
  return rules.length === 0 || rules.some((rule) => ruleHolds(rule, install));
}

/**
 * Tells whether a text is a range: comparisons with `>=`, `>`, `<=`, `<` or `=` of versions by SemVer 2.0, separated by
 * single spaces, such as `>=3.2.0 <4.0.0`.
 */
export function isRange(text: string): boolean {
  return parseRange(text) !== undefined;
}

/** Tells whether a text is a version by SemVer 2.0. */
export function isVersion(text: string): boolean {
  return parseVersion(text) !== undefined;
}

/**
 * Tells whether all comparisons of a range hold for a version, in the order of SemVer 2.0 §11: a prerelease comes before
 * its release, so `4.0.0-beta.1` is below `4.0.0` and not below `4.0.0-alpha`.
 * @returns `false` also where either of them is malformed or absent.
 */
export function satisfies(version: string | undefined, range: string): boolean {
  const present = version === undefined ? undefined : parseVersion(version);
  const comparisons = parseRange(range);
  if (present === undefined || comparisons === undefined) return false;
  return comparisons.every(
    ({ operator, version: wanted }) => operators[operator]?.(compare(present, wanted)) === true,
  );
}

function ruleHolds(rule: Rule, install: Install): boolean {
  return Object.entries(rule).every(
    ([name, wanted]) => wanted === undefined || (isCondition(name) && conditions[name](rule, install)),
  );
}

function isCondition(name: string): name is keyof Rule {
  return Object.hasOwn(conditions, name);
}

function isOneOf(wanted: readonly string[], fact: string | undefined): boolean {
  return fact !== undefined && wanted.includes(fact);
}

/** Basic filtering of language tags (RFC 4647 §3.3.1), without the wildcard. */
function covers(range: string, tag = ''): boolean {
  const [general, special] = [range.toLowerCase(), tag.toLowerCase()];
  return special === general || special.startsWith(`${general}-`);
}

function parseRange(text: string): readonly Comparison[] | undefined {
  if (text.length > longest) return undefined;
  const comparisons: Comparison[] = [];
  for (const part of text.split(' ')) {
    const [, operator = '', rest = ''] = /^(>=|<=|>|<|=)(.+)$/.exec(part) ?? [];
    const version = parseVersion(rest);
    if (version === undefined) return undefined;
    comparisons.push({ operator, version });
  }
  return comparisons;
}

function parseVersion(text: string): Version | undefined {
  const [, major, minor, patch, prerelease] = (text.length <= longest && versionForm.exec(text)) || [];
  if (major === undefined || minor === undefined || patch === undefined) return undefined;
  return { numbers: [major, minor, patch], prerelease: prerelease?.split('.') ?? [] };
}

/** SemVer 2.0 §11. */
function compare(a: Version, b: Version): number {
  const order = compareLists(a.numbers, b.numbers);
  if (order !== 0) return order;
  if (a.prerelease.length === 0 || b.prerelease.length === 0)
    return b.prerelease.length - a.prerelease.length;
  return compareLists(a.prerelease, b.prerelease);
}

function compareLists(a: readonly string[], b: readonly string[]): number {
  for (const [i, left] of a.entries()) {
    const right = b[i];
    if (right === undefined) return 1;
    const order = compareIdentifiers(left, right);
    if (order !== 0) return order;
  }
  return a.length - b.length;
}

function compareIdentifiers(a: string, b: string): number {
  const [isNumberA, isNumberB] = [/^\d+$/.test(a), /^\d+$/.test(b)];
  if (isNumberA !== isNumberB) return isNumberA ? -1 : 1;
  // Without leading zeros, the longer number is the larger one, however long.
  if (isNumberA && a.length !== b.length) return a.length - b.length;
  return a === b ? 0 : a < b ? -1 : 1;
}
