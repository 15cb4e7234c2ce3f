/**
 * Evidence on whether a candidate makes more devices bad than the version before, valid at every look: grid mixtures of
 * likelihood ratios, as in Lindon & Malek, "Anytime-Valid Inference for Multinomial Count Data" (arXiv 2011.03567), on
 * device counts. Under the hypothesis that is tested, the chance of ever reaching `1/α` is at most `α` (Ville).
 */

import { createRandom, drawMarked } from './random.ts';

/** Newly judged devices of both arms, and the bad ones among them. */
export interface Counts {
  readonly treatedBad: number;
  readonly treated: number;
  readonly controlBad: number;
  readonly control: number;
}

/** Ratios of rates that speak against "no worse than the control". */
export const FAIL_RATIOS: readonly number[] = [1.1, 1.25, 1.5, 2, 3, 5, 10];
/** Ratios that speak against "at least the margin times the control", as shares of the margin. */
export const PASS_RATIOS: readonly number[] = [0.3, 0.5, 0.65, 0.8, 0.9];
/** Rates, as shares of the one that would be harmful, that speak against "at least that harmful". */
const HARMLESS_SHARES: readonly number[] = [0.01, 0.1, 0.25, 0.5, 0.75];

/** What is known of one guard: plain data, equal whether it was kept in memory or read back. */
export interface Evidence {
  /** Logarithms of the likelihood ratios, one per ratio of the grid. */
  readonly fail: readonly number[];
  readonly pass: readonly number[];
  readonly harmless: readonly number[];
  /** By stratum: devices that wait for some of the other arm. */
  readonly waiting: Readonly<Record<string, Counts>>;
  /** Everything that was counted, the waiting ones included. */
  readonly total: Counts;
}

/** What the pass side is asked to prove. */
export interface Margins {
  /** The candidate's rate is below this many times that of the control. */
  readonly ratio: number;
  /** Or its rate is below this share of devices, whatever the control does. */
  readonly rate: number;
}

/** No devices. */
export const NO_COUNTS: Counts = { treatedBad: 0, treated: 0, controlBad: 0, control: 0 };

/** Starts with no evidence: every e-value is 1. */
export function noEvidence(): Evidence {
  return {
    fail: FAIL_RATIOS.map(() => 0),
    pass: PASS_RATIOS.map(() => 0),
    harmless: HARMLESS_SHARES.map(() => 0),
    waiting: {},
    total: NO_COUNTS,
  };
}

/**
 * Takes the devices of one look in. Strata are compared within themselves; a stratum with devices in one arm only waits.
 *
 * A control is judged sooner than a candidate that has to be downloaded first, and would be used up before most of that is
 * there. So no more control devices are taken than belong to the treated ones; the others wait. Which ones is left to chance,
 * and nothing that waits is looked at: the order in which devices are taken in does not depend on what they are.
 * @param strata - counts by stratum, such as the class of device.
 * @param controlPerTreated - control devices for each treated one, as they were assigned. Default: all there are.
 */
export function addLook(
  evidence: Evidence,
  strata: Readonly<Record<string, Counts>>,
  margins: Margins,
  controlPerTreated: number = Infinity,
): Evidence {
  let { fail, pass, harmless, total } = evidence;
  const waiting: Record<string, Counts> = { ...evidence.waiting };
  // In the order of names: sums of floating-point numbers depend on theirs.
  for (const stratum of Object.keys(strata).sort()) {
    const fresh = strata[stratum] ?? NO_COUNTS;
    total = addCounts(total, fresh);
    harmless = harmless.map((log, i) => log + harmlessStep(fresh, margins.rate, HARMLESS_SHARES[i] ?? 0));
    const counts = addCounts(waiting[stratum] ?? NO_COUNTS, fresh);
    if (counts.treated === 0 || counts.control === 0) {
      waiting[stratum] = counts;
      continue;
    }
    const taken = takeControl(counts, controlPerTreated, total);
    fail = stepLogs(fail, FAIL_RATIOS, 1, taken);
    pass = stepLogs(pass, PASS_RATIOS, margins.ratio, taken);
    delete waiting[stratum];
    if (taken.control < counts.control) {
      const [control, controlBad] = [counts.control - taken.control, counts.controlBad - taken.controlBad];
      waiting[stratum] = { ...NO_COUNTS, control, controlBad };
    }
  }
  return { fail, pass, harmless, waiting, total };
}

/** Takes as many control devices as belong to the treated ones. What is drawn depends on numbers of devices alone. */
function takeControl(counts: Counts, controlPerTreated: number, { treated, control }: Counts): Counts {
  const share = Math.max(1, Math.ceil(controlPerTreated * counts.treated));
  if (share >= counts.control) return counts;
  const random = createRandom(treated * 1_000_003 + control);
  return {
    ...counts,
    control: share,
    controlBad: drawMarked(counts.control, counts.controlBad, share, random),
  };
}

/** Adds the logarithms of the likelihood ratios of one look. @param delta - the ratio of rates that is tested. */
export function stepLogs(
  logs: readonly number[],
  ratios: readonly number[],
  delta: number,
  { treatedBad, treated, controlBad, control }: Counts,
): number[] {
  const share = (delta * treated) / (delta * treated + control);
  return logs.map((log, i) => {
    const weight = delta * (ratios[i] ?? 1) * treated;
    const claimed = weight / (weight + control);
    return log + treatedBad * Math.log(claimed / share) + controlBad * Math.log((1 - claimed) / (1 - share));
  });
}

/** Gives the logarithm of the e-value: that of the mean of what the logarithms stand for. */
export function logMeanExp(logs: readonly number[]): number {
  const highest = logs.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!Number.isFinite(highest)) return highest;
  return highest + Math.log(logs.reduce((sum, log) => sum + Math.exp(log - highest), 0) / logs.length);
}

/** Evidence that the candidate is worse than the control. */
export function logEFail(evidence: Evidence): number {
  return logMeanExp(evidence.fail);
}

/** Evidence that it is no worse than the margin allows: the mean of the evidence for either margin is an e-value, too. */
export function logEPass(evidence: Evidence): number {
  return logMeanExp([logMeanExp(evidence.pass), logMeanExp(evidence.harmless)]);
}

/**
 * Estimates how many times as many devices are bad as in the control, smoothed by half a bad device in each arm.
 * @returns `null` while an arm has none.
 */
export function ratioOf({ treatedBad, treated, controlBad, control }: Counts): number | null {
  if (treated === 0 || control === 0) return null;
  return (treatedBad + 0.5) / (treated + 0.5) / ((controlBad + 0.5) / (control + 0.5));
}

/** Adds counts. */
export function addCounts(a: Counts, b: Counts): Counts {
  return {
    treatedBad: a.treatedBad + b.treatedBad,
    treated: a.treated + b.treated,
    controlBad: a.controlBad + b.controlBad,
    control: a.control + b.control,
  };
}

/**
 * Names the hypotheses that are rejected together: e-BH (Wang & Ramdas, arXiv 2009.02824), with a false discovery rate of
 * `alpha` under any dependence.
 * @returns whether each is rejected, in the order given.
 */
export function rejectedByEBH(logEs: readonly number[], alpha: number): boolean[] {
  const sorted = [...logEs].sort((a, b) => b - a);
  let limit = Infinity;
  for (const [i, log] of sorted.entries()) {
    if (log + Math.log(((i + 1) * alpha) / sorted.length) >= 0) limit = log;
  }
  return logEs.map((log) => log >= limit);
}

/** Logarithm of the likelihood ratio of a rate below `limit` against `limit` itself. */
function harmlessStep({ treatedBad, treated }: Counts, limit: number, share: number): number {
  const rate = limit * share;
  return treatedBad * Math.log(share) + (treated - treatedBad) * (Math.log1p(-rate) - Math.log1p(-limit));
}
