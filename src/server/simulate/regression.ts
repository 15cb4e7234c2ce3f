/** What is wrong with a simulated release. */

/** A fault, and the shares of devices that it befalls, in [0, 1]. */
export type Regression =
  /** Calls fail on so many devices with the version before, and on so many with the release. */
  | { readonly kind: 'errors'; readonly before: number; readonly after: number }
  /** Calls take so many times as long. */
  | { readonly kind: 'slower'; readonly times: number; readonly share: number }
  /** Answers are no numbers. */
  | { readonly kind: 'nan'; readonly share: number }
  /** The app ends when the release is opened, and is not seen again. */
  | { readonly kind: 'crash'; readonly share: number }
  /** It takes so many times as much memory. */
  | { readonly kind: 'memory'; readonly times: number; readonly share: number };

/** What a release does on one device. */
export interface Effect {
  /** Share of calls that fail, beyond those that fail anyway. */
  readonly failing: number;
  readonly slower: number;
  readonly larger: number;
  readonly isNaN: boolean;
  readonly crashes: boolean;
}

/** Nothing is wrong. */
export const NO_EFFECT: Effect = { failing: 0, slower: 1, larger: 1, isNaN: false, crashes: false };

/** Share of the calls that fail on a device on which calls fail. */
const failingCalls = 0.3;
/** Share of sound devices on which two of the first 50 calls fail by chance, with 0.3 % of calls that fail. */
export const CHANCE_FAILURES = 0.01;

/** Forms of regressions as text, for messages. */
export const REGRESSION_FORMS = 'errors:1:10, slower:1.5[:20], nan:5, crash:10, memory:1.5[:20]';

/**
 * Reads a regression: its kind, then per cent of devices, after the factor where there is one.
 * @returns `undefined` if it is none.
 */
export function readRegression(text: string): Regression | undefined {
  const [kind, ...rest] = text.split(':');
  const numbers = rest.map(Number);
  if (numbers.length === 0 || !rest.every((part) => /^\d+(\.\d+)?$/.test(part))) return undefined;
  const [first = 0, second] = numbers;
  const isShare = (percent: number): boolean => percent <= 100;
  if (kind === 'errors') {
    const isOrdered = second !== undefined && numbers.length === 2 && first <= second && isShare(second);
    return isOrdered ? { kind, before: first / 100, after: second / 100 } : undefined;
  }
  if (kind === 'slower' || kind === 'memory') {
    const share = (second ?? 100) / 100;
    return first > 0 && share <= 1 && numbers.length <= 2 ? { kind, times: first, share } : undefined;
  }
  if (kind === 'nan' || kind === 'crash')
    return numbers.length === 1 && isShare(first) ? { kind, share: first / 100 } : undefined;
  return undefined;
}

/**
 * Tells what a version does on one device.
 * @param luck - uniform in [0, 1), the same for both versions on one device: what fails before, fails after.
 */
export function effectOf(regression: Regression | undefined, isCandidate: boolean, luck: number): Effect {
  if (!regression) return NO_EFFECT;
  if (regression.kind === 'errors') {
    const share = (isCandidate ? regression.after : regression.before) - CHANCE_FAILURES;
    return luck < share ? { ...NO_EFFECT, failing: failingCalls } : NO_EFFECT;
  }
  if (!isCandidate || luck >= regression.share) return NO_EFFECT;
  if (regression.kind === 'slower') return { ...NO_EFFECT, slower: regression.times };
  if (regression.kind === 'memory') return { ...NO_EFFECT, larger: regression.times };
  return regression.kind === 'nan' ? { ...NO_EFFECT, isNaN: true } : { ...NO_EFFECT, crashes: true };
}
