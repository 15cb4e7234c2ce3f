/** Compact publish: a release that is rounded onto a grid around the one before it, so that it travels in a few per cent. */

import type { UpdateSteps } from '../delta/steps.ts';
import { verdictOf, type Gate, type Verdict } from './gate.ts';
import { roundOntoGrid, type RoundedModel } from './grid.ts';
import { mostOfLossless } from './limits.ts';

export { compactLimits } from './limits.ts';

/** `near`: as far from the trained model as quantizing to 8 bits; `small`: further, without bias. */
export type CompactMode = 'near' | 'small';

/** One step that was tried. */
export interface CompactAttempt {
  /** Step as a share of the root mean square of an update, such as `1/4`. */
  readonly step: string;
  readonly seed: number;
  /** Bytes of the patch from the base, of the first seed; absent: nobody encoded it. */
  readonly patchBytes?: number;
  readonly verdict: Verdict;
}

/** What came of it. */
export interface CompactRelease {
  /** What is to be published: the very bytes that were judged, or those of `next` where no step is good enough. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** For the encoder of patches. Empty: it is lossless. */
  readonly steps: UpdateSteps;
  /** Absent: no step is good enough. */
  readonly chosen?: CompactAttempt;
  readonly tensors: RoundedModel['tensors'];
  /** In the order in which they were tried. */
  readonly attempts: readonly CompactAttempt[];
  /** Bytes of the patch without rounding; absent: nobody encoded it. */
  readonly losslessBytes?: number;
}

/** What {@link compactRelease} works with. */
export interface CompactOptions {
  /** What is published already, and devices have. */
  readonly base: Uint8Array<ArrayBuffer>;
  /** What was trained. */
  readonly next: Uint8Array<ArrayBuffer>;
  readonly mode: CompactMode;
  readonly gate: Gate;
  /** Default 1. */
  readonly seed?: number;
  /** Seeds that unbiased rounding is judged with. Default 3. */
  readonly seeds?: number;
  /** Encodes a patch, for its bytes: one that takes more than 90 % of that without rounding is not worth any loss. */
  readonly encode?: (
    base: Uint8Array<ArrayBuffer>,
    next: Uint8Array<ArrayBuffer>,
    steps: UpdateSteps,
  ) => Uint8Array | Promise<Uint8Array>;
  readonly onAttempt?: (attempt: CompactAttempt) => void;
}

/** Steps of each mode, the largest first: rounding has to be unbiased from one sigma on, and to the nearest up to half of it. */
const stepsOf: Readonly<Record<CompactMode, readonly (readonly [name: string, f: number])[]>> = {
  near: [
    ['1/2', 1 / 2],
    ['1/4', 1 / 4],
    ['1/8', 1 / 8],
  ],
  small: [
    ['4', 4],
    ['2', 2],
    ['1', 1],
  ],
};

/**
 * Rounds the update from `base` to `next` with the largest step that the gate lets pass. A step has to pass with every
 * seed, so that none is taken for its luck; what is published is the first. The same files, seed and gate give the same
 * bytes.
 * @throws {@link ModelError} if a file is not understood; what the gate throws.
 */
export async function compactRelease(options: CompactOptions): Promise<CompactRelease> {
  const { base, next, mode, gate, encode, onAttempt, seed = 1, seeds = 3 } = options;
  const isStochastic = mode === 'small';
  const losslessBytes = (await encode?.(base, next, new Map()))?.length;
  const known = losslessBytes === undefined ? {} : { losslessBytes };
  const attempts: CompactAttempt[] = [];
  const note = (attempt: CompactAttempt): void => {
    attempts.push(attempt);
    onAttempt?.(attempt);
  };
  const asTrained: CompactRelease = { bytes: next, steps: new Map(), tensors: [], attempts, ...known };
  for (const [step, f] of stepsOf[mode]) {
    let first: { readonly rounded: RoundedModel; readonly attempt: CompactAttempt } | undefined;
    let isGood = true;
    for (let i = 0; isGood && i < (isStochastic ? seeds : 1); i += 1) {
      const rounded = roundOntoGrid(base, next, { f, isStochastic, seed: seed + i });
      if (rounded.tensors.every(({ isRounded }) => !isRounded)) break;
      const patchBytes = i === 0 ? (await encode?.(base, rounded.bytes, rounded.steps))?.length : undefined;
      const facts = { step, seed: seed + i, ...(patchBytes !== undefined && { patchBytes }) };
      const saving = savingOf(patchBytes, losslessBytes);
      // Smaller steps save even less.
      if (!saving.isGood) {
        note({ ...facts, verdict: saving });
        return asTrained;
      }
      const verdict = await gate.judge(rounded.bytes);
      isGood = verdict.isGood;
      const attempt = { ...facts, verdict };
      note(attempt);
      first ??= { rounded, attempt };
    }
    if (first !== undefined && isGood) {
      const { bytes, steps, tensors } = first.rounded;
      return { ...asTrained, bytes, steps, tensors, chosen: first.attempt };
    }
  }
  return asTrained;
}

/** Tells whether a patch is worth any loss. */
function savingOf(patchBytes: number | undefined, losslessBytes: number | undefined): Verdict {
  if (patchBytes === undefined || losslessBytes === undefined) return { isGood: true, figures: [] };
  const value = patchBytes / losslessBytes;
  return verdictOf([{ name: 'share of the lossless patch', value, limit: { atMost: mostOfLossless } }]);
}
