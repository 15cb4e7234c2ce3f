/** What a rollout is expected to expose before it halts itself, told before it begins. */

import { devicesToVerdict } from '../../stats/power.ts';
import { alphaOf } from '../guards/defaults.ts';
import type { GuardOptions } from '../guards/programme.ts';
import { CHANCE_FAILURES, type Regression } from './regression.ts';

/** A stage, and how fast word of it gets around. */
export interface ExposureQuestion {
  readonly fleet: number;
  /** Share of devices, basis points, and of the control. */
  readonly bp: number;
  readonly ctl: number;
  /** Seconds over which the share begins: the poll period, or the ramp where that takes longer. */
  readonly spreadS: number;
  /** Seconds from a poll to enough calls for a verdict. */
  readonly beginS: number;
  readonly reportS: number;
  readonly lookS: number;
  readonly guard: GuardOptions;
  readonly regression: Extract<Regression, { kind: 'errors' }>;
}

/** The estimate. */
export interface Exposure {
  /** `min(p·N, n* + λ·L)`, devices. */
  readonly exposed: number;
  /** n*: devices whose reports bring the verdict, median. */
  readonly devices: number;
  /** λ: devices per hour that begin. */
  readonly perHour: number;
  /** L: hours from the begin of a device to its effect on the rollout. */
  readonly delayH: number;
}

/** Estimates how many devices have begun with a release that fails on more devices when the guard on errors halts it. */
export function expectedExposure(question: ExposureQuestion): Exposure {
  const { fleet, bp, ctl, spreadS, beginS, reportS, lookS, guard, regression } = question;
  const share = (fleet * bp) / 10_000;
  const baseRate = Math.max(regression.before, CHANCE_FAILURES);
  const { median } = devicesToVerdict({
    side: 'fail',
    baseRate,
    ratio: Math.max(regression.after, baseRate) / baseRate,
    delta: 1,
    controlPerTreated: ctl / bp,
    threshold: 1 / alphaOf(guard, 0),
    most: Math.max(10, Math.floor(share)),
  });
  const perHour = share / (spreadS / 3600);
  const delayH = (beginS + reportS / 2 + lookS / 2) / 3600;
  return { exposed: Math.min(share, median + perHour * delayH), devices: median, perHour, delayH };
}
