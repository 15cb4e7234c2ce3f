/**
 * One look at a stage: what was counted goes in, evidence and a decision come out. Pure, so that the log of looks is
 * enough to compute any verdict again.
 */

import {
  addMoments,
  differenceOf,
  logEvidenceBelowZero,
  NO_MOMENTS,
  type Moments,
} from '../../stats/confidence-sequence.ts';
import {
  addCounts,
  addLook,
  logEFail,
  logEPass,
  NO_COUNTS,
  noEvidence,
  type Counts,
  type Evidence,
} from '../../stats/e-process.ts';
import { decide, type Decision } from './decide.ts';
import { addOutcomes, type ArmOutcome } from './compare-arms.ts';
import { COUNTED_GUARDS, ENOUGH_VALUES, PLANNED_DEVICES, alphaOf, harmlessRate } from './defaults.ts';
import type { GuardName, GuardOptions, Inconclusive, Stage, Strategy } from './programme.ts';

/** A number of each side. */
export interface Sides {
  readonly treated: number;
  readonly control: number;
}

/** What a stage is judged by. */
export interface StageRules {
  readonly strategy: Strategy;
  /** Which one, from 0, of how many. */
  readonly stage: number;
  readonly stages: number;
  readonly options: GuardOptions;
  readonly limits: Stage;
  readonly inconclusive: Inconclusive;
  readonly soakOnly: boolean;
}

/** What one look has seen. */
export interface LookInputs {
  readonly at: number;
  readonly stageAt: number;
  readonly rules: StageRules;
  /** Newly judged devices by guard and stratum. */
  readonly judged: Readonly<Partial<Record<GuardName, Readonly<Record<string, Counts>>>>>;
  /** The same devices; bad are those that any guard finds so. */
  readonly any: Counts;
  /** Business value of the same devices. */
  readonly biz?: { readonly treated: Moments; readonly control: Moments };
  /** The same devices by arm, where arms are compared. */
  readonly arms?: Readonly<Record<string, ArmOutcome>>;
  /** All devices of the stage so far; those on which calls ended the app; those that gave the candidate up. */
  readonly devices: Sides;
  readonly fatal: Sides;
  readonly rejected: Sides;
  /** Those whose people agreed to full reports; absent where no guard needs them. */
  readonly full?: Sides;
  /** Whether any device has made a call with the candidate. */
  readonly hasCalls: boolean;
  /** Share of the treated among the devices that were assigned to either side; absent while that changes. */
  readonly treatedShare?: number;
  /** Shares of reports that were lost. */
  readonly loss?: Sides;
  /** Both sides count their answers, but not in the same bins. */
  readonly isApart?: true;
  /** Runs in the shadow: all, outputs alike, outputs not alike, failures. */
  readonly shadow?: readonly [n: number, alike: number, unlike: number, failed: number];
}

/** What the looks of a stage have come to. Plain data. */
export interface StageState {
  /** Looks so far. */
  readonly look: number;
  readonly evidence: Readonly<Partial<Record<GuardName, Evidence>>>;
  readonly any: Counts;
  readonly biz: { readonly treated: Moments; readonly control: Moments };
  readonly arms: Readonly<Record<string, ArmOutcome>>;
}

/** Evidence of one guard at a look, as logarithms. */
export interface LookEvidence {
  readonly fail: number;
  readonly pass: number;
}

/** A look as it is logged. */
export interface Look {
  readonly v: 1;
  readonly inputs: LookInputs;
  readonly evidence: Readonly<Partial<Record<GuardName, LookEvidence>>>;
  readonly decision: Decision;
}

/** A stage that nobody has looked at. */
export function newStage(): StageState {
  const biz = { treated: NO_MOMENTS, control: NO_MOMENTS };
  return { look: 0, evidence: {}, any: NO_COUNTS, biz, arms: {} };
}

/** Takes a look. */
export function takeLook(before: StageState, inputs: LookInputs): { state: StageState; look: Look } {
  const { options } = inputs.rules;
  const margins = { ratio: options.marginRatio, rate: harmlessRate(options) };
  const { bp, ctl = Math.min(9 * bp, 10_000 - bp) } = inputs.rules.limits;
  const controlPerTreated = bp > 0 && ctl > 0 ? ctl / bp : Infinity;
  const evidence: Partial<Record<GuardName, Evidence>> = {};
  for (const guard of COUNTED_GUARDS.filter((name) => options.guards.includes(name))) {
    const judged = inputs.judged[guard] ?? {};
    evidence[guard] = addLook(before.evidence[guard] ?? noEvidence(), judged, margins, controlPerTreated);
  }
  const state: StageState = {
    look: before.look + 1,
    evidence,
    any: addCounts(before.any, inputs.any),
    biz: {
      treated: addMoments(before.biz.treated, inputs.biz?.treated ?? NO_MOMENTS),
      control: addMoments(before.biz.control, inputs.biz?.control ?? NO_MOMENTS),
    },
    arms: addOutcomes(before.arms, inputs.arms),
  };
  const logs = logsOf(state, inputs.rules);
  return { state, look: { v: 1, inputs, evidence: logs, decision: decide(state, logs, inputs) } };
}

/**
 * Computes evidence and decisions again from what the looks of one stage have seen, in their order.
 * @returns the numbers, from 1, of the looks that say something else than what follows from the inputs; none if all is well.
 */
export function recompute(looks: readonly Look[]): readonly number[] {
  let state = newStage();
  return looks.flatMap((logged) => {
    const taken = takeLook(state, logged.inputs);
    state = taken.state;
    return JSON.stringify(taken.look) === JSON.stringify(logged) ? [] : [state.look];
  });
}

/** Evidence by guard, of those that have any. */
function logsOf(state: StageState, { options, stage }: StageRules): Partial<Record<GuardName, LookEvidence>> {
  const logs: Partial<Record<GuardName, LookEvidence>> = {};
  for (const [name, evidence] of Object.entries(state.evidence)) {
    logs[name as GuardName] = { fail: logEFail(evidence), pass: logEPass(evidence) };
  }
  const { biz } = options;
  if (biz && options.guards.includes('biz')) {
    logs.biz = bizEvidence(state, biz.margin, alphaOf(options, stage));
  }
  return logs;
}

/** Evidence that the mean fell, and that it did not fall by the margin. */
function bizEvidence({ biz: { treated, control } }: StageState, margin: number, alpha: number): LookEvidence {
  if (Math.min(treated.n, control.n) < ENOUGH_VALUES) return { fail: 0, pass: 0 };
  const fall = differenceOf(treated, control);
  const rest = differenceOf(treated, control, 1 - margin);
  return {
    fail: fall ? logEvidenceBelowZero(fall, alpha, PLANNED_DEVICES) : 0,
    pass: rest ? logEvidenceBelowZero({ ...rest, estimate: -rest.estimate }, 0.05, PLANNED_DEVICES) : 0,
  };
}
