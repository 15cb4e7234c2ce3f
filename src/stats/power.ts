/** How many devices a verdict takes: told before anyone starts. */

import { createRandom, drawBinomial } from './random.ts';
import { FAIL_RATIOS, logMeanExp, PASS_RATIOS, stepLogs } from './e-process.ts';

/** One question. */
export interface PowerQuestion {
  readonly side: 'fail' | 'pass';
  /** Share of bad devices in the control, in (0, 1). */
  readonly baseRate: number;
  /** True ratio of the candidate's rate to that. */
  readonly ratio: number;
  /** Ratio that is tested: 1 on the fail side, the margin on the pass side. */
  readonly delta: number;
  /** Control devices per treated one, above 0. */
  readonly controlPerTreated: number;
  /** E-value that decides. */
  readonly threshold: number;
  /** Most treated devices. */
  readonly most: number;
  /** Default 200; the standard error of the median is some 8 % of it then. */
  readonly runs?: number;
  /** Default 1. */
  readonly seed?: number;
}

/** The answer; `Infinity` where fewer than so many runs came to a verdict. */
export interface Power {
  readonly median: number;
  readonly p90: number;
  /** Share of runs with a verdict. */
  readonly found: number;
}

/** Treated devices of the first look; later ones are so many, or a share of those before. */
const firstLook = 10;
const growth = 0.02;

/** Plays rollouts through with the real e-process: the same seed, the same answer. */
export function devicesToVerdict(question: PowerQuestion): Power {
  const { side, baseRate, ratio, delta, controlPerTreated, threshold, most, runs = 200, seed = 1 } = question;
  const ratios = side === 'fail' ? FAIL_RATIOS : PASS_RATIOS;
  const treatedRate = Math.min(1, baseRate * ratio);
  const random = createRandom(seed);
  const looks = looksUntil(most).map((treated) => {
    const control = treated * controlPerTreated;
    const zeros = ratios.map(() => 0);
    const counts = { treated, control, treatedBad: 0, controlBad: 0 };
    return {
      treated,
      control,
      perTreated: stepLogs(zeros, ratios, delta, { ...counts, treatedBad: 1 }),
      perControl: stepLogs(zeros, ratios, delta, { ...counts, controlBad: 1 }),
    };
  });
  const needed: number[] = [];
  const limit = Math.log(threshold);
  for (let run = 0; run < runs; run += 1) {
    const logs = ratios.map(() => 0);
    let devices = 0;
    let controlOwed = 0;
    for (const { treated, control, perTreated, perControl } of looks) {
      controlOwed += control;
      const whole = Math.floor(controlOwed);
      controlOwed -= whole;
      const treatedBad = drawBinomial(treated, treatedRate, random);
      const controlBad = drawBinomial(whole, baseRate, random);
      devices += treated;
      for (let i = 0; i < logs.length; i += 1) {
        logs[i] = (logs[i] ?? 0) + treatedBad * (perTreated[i] ?? 0) + controlBad * (perControl[i] ?? 0);
      }
      if (logMeanExp(logs) >= limit) {
        needed.push(devices);
        break;
      }
    }
  }
  needed.sort((a, b) => a - b);
  const at = (share: number): number => needed[Math.ceil(share * runs) - 1] ?? Infinity;
  return { median: at(0.5), p90: at(0.9), found: needed.length / runs };
}

function looksUntil(most: number): number[] {
  const looks: number[] = [];
  for (let reached = 0; reached < most;) {
    const next = Math.min(most - reached, Math.max(firstLook, Math.round(reached * growth)));
    looks.push(next);
    reached += next;
  }
  return looks;
}
