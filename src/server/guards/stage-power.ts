/** What the stages of a programme can find out, before anyone starts it. */

import { setImmediate } from 'node:timers/promises';
import { devicesToVerdict, type Power } from '../../stats/power.ts';
import type { StagePower } from '../api/answers.ts';
import { alphaOf, COUNTED_GUARDS, PASS_AT, SMALL_FLEET } from './defaults.ts';
import type { GuardName, Programme } from './programme.ts';

/** Shares of devices that each verdict takes for bad although nothing is wrong: measured where known, assumed elsewhere. */
const baseRates: Readonly<Partial<Record<GuardName, number>>> = {
  errors: 0.01,
  latency: 0.05,
  memory: 0.02,
  load: 0.02,
  quality: 0.05,
  silence: 0.05,
};
const shownRatios: readonly number[] = [1.5, 2, 3, 10];
const triedRatios: readonly number[] = [1.25, 1.5, 2, 3, 5, 10, 20];
/** Treated devices that are counted up to. */
const mostDevices = 50_000;
const runs = 100;

/** Plays the stages of a programme through with a fleet of so many devices that report. */
export async function stagePowers(programme: Programme, fleet: number): Promise<readonly StagePower[]> {
  const known = new Map<string, Power>();
  const play = async (
    baseRate: number,
    ratio: number,
    threshold: number,
    controlPerTreated: number,
    most: number,
  ): Promise<Power> => {
    const key = [baseRate, ratio, threshold, controlPerTreated, most].join();
    const before = known.get(key);
    if (before) return before;
    // Others are to be served in between.
    await setImmediate();
    const question = { baseRate, ratio, threshold, controlPerTreated, most, runs };
    const power = devicesToVerdict({ side: 'fail', delta: 1, ...question });
    known.set(key, power);
    return power;
  };

  const powers: StagePower[] = [];
  for (const [index, { bp, ctl = Math.min(9 * bp, 10_000 - bp) }] of programme.stages.entries()) {
    const treated = Math.floor((fleet * bp) / 10_000);
    const control = Math.floor((fleet * Math.min(ctl, 10_000 - bp)) / 10_000);
    const threshold = 1 / alphaOf(programme.guard, index);
    const rows: StagePower['rows'][number][] = [];
    let smallest: number | null = null;
    if (treated > 0 && control > 0) {
      const perTreated = control / treated;
      for (const guard of COUNTED_GUARDS.filter((name) => programme.guard.guards.includes(name))) {
        const baseRate = baseRates[guard] ?? 0.01;
        for (const ratio of shownRatios.filter((tried) => baseRate * tried < 1)) {
          const { median, p90 } = await play(baseRate, ratio, threshold, perTreated, mostDevices);
          rows.push({
            guard,
            baseRate,
            ratio,
            median: finite(median),
            p90: finite(p90),
            detectable: p90 <= treated,
          });
        }
      }
      for (const ratio of triedRatios) {
        const { found } = await play(
          baseRates.errors ?? 0.01,
          ratio,
          threshold,
          perTreated,
          Math.min(treated, mostDevices),
        );
        if (found < 0.9) continue;
        smallest = ratio;
        break;
      }
    }
    powers.push({ bp, treated, control, rows, smallest, text: textOf(treated, control, smallest) });
  }
  return powers;
}

/** JSON has no infinity: what takes longer than was counted takes at least so much. */
function finite(devices: number): number {
  return Math.min(devices, mostDevices);
}

function textOf(treated: number, control: number, smallest: number | null): string {
  if (treated === 0) return 'No device would have the candidate; raise the share.';
  if (control === 0) return 'There is no control to compare with: only tripwires are watched.';
  const find =
    smallest === null
      ? `${treated} devices find no multiple of failing devices with 90 %, only what tripwires see`
      : `${treated} devices find ${smallest} times as many failing devices with 90 %`;
  return Math.min(treated, control) < SMALL_FLEET
    ? `${find}; below ${SMALL_FLEET} per arm nothing passes on statistics (evidence of ${PASS_AT}), so that a person has to promote it.`
    : `${find}.`;
}
