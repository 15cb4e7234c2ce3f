/** Checks of parsed JSON against a list of what may be there: what is not on the list is refused, not ignored. */

/** Tells whether a value is what it should be. */
export type Check = (value: unknown) => boolean;

/** What an object may have: by key, what its value is, and whether it may be absent. */
export type Form = ReadonlyMap<string, { readonly fits: Check; readonly isOptional: boolean }>;

type Checks = Readonly<Record<string, Check>>;

/** The form of an object by its required and its optional keys. */
export function formOf(required: Checks, optional: Checks): Form {
  const fields = (checks: Checks, isOptional: boolean) =>
    Object.entries(checks).map(([key, fits]) => [key, { fits, isOptional }] as const);
  return new Map([...fields(required, false), ...fields(optional, true)]);
}

/**
 * Finds what is wrong with an object.
 * @param where - what to call it.
 * @returns where the first problem is, in names of the form only; `undefined` if there is none.
 */
export function problemOf(value: unknown, form: Form, where: string): string | undefined {
  if (!isObject(value)) return where;
  for (const key of Object.keys(value)) {
    const field = form.get(key);
    if (field === undefined) return `${where} has an unknown key`;
    if (!field.fits(value[key])) return `${where}.${key}`;
  }
  for (const [key, { isOptional }] of form) {
    if (!isOptional && !Object.hasOwn(value, key)) return `${where}.${key}`;
  }
  return undefined;
}

/** Tells whether a value is an object with keys. */
export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Text of a form. */
export function text(form: RegExp): Check {
  return (value) => typeof value === 'string' && form.test(value);
}

/** Safe integers of a range, ends included. */
export function integer(from: number, to: number): Check {
  return (value) => Number.isSafeInteger(value) && (value as number) >= from && (value as number) <= to;
}

/** Finite numbers of a range, ends included. */
export function amount(from: number, to: number): Check {
  return (value) => typeof value === 'number' && value >= from && value <= to;
}

/** One of some values. */
export function oneOf(...values: readonly unknown[]): Check {
  return (value) => values.includes(value);
}

/** An object of a form. */
export function object(form: Form): Check {
  return (value) => problemOf(value, form, '') === undefined;
}

/** A list with one check for each of its places. */
export function tuple(...checks: readonly Check[]): Check {
  return (value) =>
    Array.isArray(value) && value.length === checks.length && checks.every((fits, i) => fits(value[i]));
}

/** A list of like items, within a range of lengths. */
export function list(least: number, most: number, fits: Check): Check {
  return (value) =>
    Array.isArray(value) &&
    value.length >= least &&
    value.length <= most &&
    value.every((item) => fits(item));
}

/** An object by names of a form, at most so many, and none that every object has: sums are kept in objects by name. */
export function record(most: number, name: RegExp, fits: Check): Check {
  return (value) => {
    if (!isObject(value)) return false;
    const keys = Object.keys(value);
    return (
      keys.length <= most &&
      keys.every((key) => name.test(key) && !(key in Object.prototype) && fits(value[key]))
    );
  };
}
