/** Which arm of an A/B test is better, as far as that can be told at any look. Pure. */

import {
  addMoments,
  differenceOf,
  logEvidenceBelowZero,
  NO_MOMENTS,
  type Moments,
} from '../../stats/confidence-sequence.ts';
import { logShareDifference } from '../../stats/share-difference.ts';
import { CANDIDATE_ARM } from '../../update/arms.ts';
import { ENOUGH_VALUES, PLANNED_DEVICES } from './defaults.ts';
import { odds } from './odds.ts';
import type { GuardOptions } from './programme.ts';

/** What became of the judged devices of an arm. */
export interface ArmOutcome {
  readonly judged: number;
  readonly bad: number;
  /** Values of the business event; none without one. */
  readonly biz: Moments;
}

/** An arm against the candidate. */
export interface ArmComparison {
  readonly arm: string;
  readonly verdict: 'better' | 'worse' | 'open';
  /** Natural logarithms of the evidence that they differ, and of what it has to reach. */
  readonly logE: number;
  readonly at: number;
  /** One sentence with the figures. */
  readonly text: string;
}

/** Adds what became of more devices. */
export function addOutcomes(
  before: Readonly<Record<string, ArmOutcome>>,
  more: Readonly<Record<string, ArmOutcome>> = {},
): Readonly<Record<string, ArmOutcome>> {
  const all = { ...before };
  for (const [arm, { judged, bad, biz }] of Object.entries(more)) {
    const known = all[arm] ?? noOutcome;
    all[arm] = { judged: known.judged + judged, bad: known.bad + bad, biz: addMoments(known.biz, biz) };
  }
  return all;
}

const noOutcome: ArmOutcome = { judged: 0, bad: 0, biz: NO_MOMENTS };

type Result = Pick<ArmComparison, 'logE' | 'at'> & {
  /** Above 0 where the arm is better. */
  readonly gain: number;
  readonly figures: string;
};

/**
 * Compares each arm, the control included, with the candidate: by the mean of the business event where there is one, and
 * otherwise by the share of bad devices. The chance that any of them is called different though it is not stays below
 * `alpha` (union bound).
 */
export function compareArms(
  arms: Readonly<Record<string, ArmOutcome>>,
  { alpha, biz }: Pick<GuardOptions, 'alpha' | 'biz'>,
): readonly ArmComparison[] {
  const candidate = arms[CANDIDATE_ARM];
  const others = Object.entries(arms).filter(([arm]) => arm !== CANDIDATE_ARM);
  if (!candidate) return [];
  return others
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([arm, outcome]) => {
      const share = alpha / others.length;
      const { logE, at, gain, figures } = biz
        ? byValue(outcome, candidate, biz.name, share)
        : byShare(outcome, candidate, share);
      const verdict = logE < at || gain === 0 ? 'open' : gain > 0 ? 'better' : 'worse';
      const says =
        verdict === 'open'
          ? `It cannot be told whether ${arm} or ${CANDIDATE_ARM} is better`
          : `${arm} is ${verdict} than ${CANDIDATE_ARM}`;
      return {
        ...{ arm, verdict, logE, at },
        text: `${says}: ${figures}; evidence ${odds(logE)}, where ${odds(at)} suffices.`,
      };
    });
}

function byShare(arm: ArmOutcome, candidate: ArmOutcome, alpha: number): Result {
  const logE = logShareDifference(
    { n: arm.judged, hits: arm.bad },
    { n: candidate.judged, hits: candidate.bad },
  );
  return {
    logE,
    at: -Math.log(alpha),
    gain: candidate.bad / candidate.judged - arm.bad / arm.judged,
    figures: `${arm.bad} of ${arm.judged} devices are worse off, against ${candidate.bad} of ${candidate.judged}`,
  };
}

function byValue(
  { biz: arm }: ArmOutcome,
  { biz: candidate }: ArmOutcome,
  name: string,
  alpha: number,
): Result {
  // Either side may be the better one.
  const side = alpha / 2;
  const found = Math.min(arm.n, candidate.n) < ENOUGH_VALUES ? undefined : differenceOf(arm, candidate);
  const logE = found
    ? logEvidenceBelowZero({ ...found, estimate: -Math.abs(found.estimate) }, side, PLANNED_DEVICES)
    : 0;
  return {
    logE,
    at: -Math.log(side),
    gain: found?.estimate ?? 0,
    figures: `${name} is worth ${meanOf(arm)} a call on ${arm.n} devices, against ${meanOf(candidate)} on ${candidate.n}`,
  };
}

function meanOf({ n, sum }: Moments): string {
  return n === 0 ? 'nothing' : String(Number((sum / n).toPrecision(3)));
}
