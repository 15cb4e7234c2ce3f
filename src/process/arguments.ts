/** Checks of arguments that types alone do not make. */

/** @throws `RangeError` if `value` is no integer of at least `low`. */
export function checkInteger(name: string, value: number, low = 1): number {
  if (Number.isSafeInteger(value) && value >= low) return value;
  throw new RangeError(`${name} must be an integer of at least ${low}, got ${String(value)}.`);
}

/** @throws `RangeError` if `value` is not between `low` and `high`; NaN is not. */
export function checkRange(name: string, value: number, low: number, high: number): number {
  if (typeof value === 'number' && value >= low && value <= high) return value;
  throw new RangeError(`${name} must be between ${low} and ${high}, got ${String(value)}.`);
}

/** @throws `RangeError` if `value` is none of the choices. */
export function checkChoice<const T extends string>(name: string, value: T, choices: readonly T[]): T {
  if (choices.includes(value)) return value;
  throw new RangeError(
    `${name} must be ${choices.map((choice) => `"${choice}"`).join(' or ')}, got "${value}".`,
  );
}
