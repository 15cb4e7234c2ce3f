/** Reads the published vectors of the decision. */

import { DEFAULT_TRIAL, readPlan, type Install, type PlanEntry } from '../../src/update/plan.ts';
import type { Decision, SlotsView } from '../../src/update/decide.ts';
import type { ResolvedPlan } from '../../src/update/resolve.ts';
import type { Rejected, SeenPlan, Slot, Trial } from '../../src/update/slot.ts';
import arms from './decide/arms.json' with { type: 'json' };
import expired from './decide/expired.json' with { type: 'json' };
import furtherArms from './decide/further-arms.json' with { type: 'json' };
import first from './decide/first.json' with { type: 'json' };
import lease from './decide/lease.json' with { type: 'json' };
import ramp from './decide/ramp.json' with { type: 'json' };
import rejected from './decide/rejected.json' with { type: 'json' };
import releases from './decide/releases.json' with { type: 'json' };
import rules from './decide/rules.json' with { type: 'json' };
import shadow from './decide/shadow.json' with { type: 'json' };
import states from './decide/states.json' with { type: 'json' };
import sticky from './decide/sticky.json' with { type: 'json' };
import supersede from './decide/supersede.json' with { type: 'json' };
import withdrawn from './decide/withdrawn.json' with { type: 'json' };

/** Name of a release in `releases.json`. */
export type ReleaseName = keyof typeof releases;

/** A case as it is published, with releases by name. */
interface Published {
  readonly name: string;
  readonly plan: {
    readonly base: ReleaseName | null;
    readonly cand: ReleaseName;
    readonly arms?: readonly { readonly name: string; readonly entry: ReleaseName }[];
  } | null;
  readonly isCurrent?: boolean;
  readonly policy?: ResolvedPlan['policy'];
  readonly minSdk?: ResolvedPlan['minSdk'];
  readonly install: Install;
  readonly now: number;
  readonly slots: {
    readonly embedded?: ReleaseName;
    readonly committed?: ReleaseName;
    readonly previous?: ReleaseName;
    readonly trial?: {
      readonly release: ReleaseName;
      readonly plan: string;
      readonly phase: 'staged' | 'active';
    };
    readonly rejected?: readonly Rejected[];
    readonly plan?: SeenPlan;
    readonly policy?: ResolvedPlan['policy'];
  };
  readonly expected: Omit<Decision, 'entry' | 'shadow'> & {
    readonly entry?: ReleaseName;
    readonly shadow?: { readonly entry: ReleaseName };
  };
}

/** A case with the arguments of `decide`, and what it gives. */
export interface DecideVector {
  readonly name: string;
  readonly plan: ResolvedPlan | undefined;
  readonly install: Install;
  readonly now: number;
  readonly slots: SlotsView;
  readonly expected: object;
}

const files: Readonly<Record<string, unknown>> = {
  arms,
  'further-arms': furtherArms,
  shadow,
  ramp,
  states,
  first,
  sticky,
  supersede,
  rejected,
  withdrawn,
  lease,
  expired,
  rules,
};

/** Gives the release that a vector names. */
export function releaseOf(name: ReleaseName): PlanEntry {
  return releases[name];
}

/** Gives a slot that holds a release. */
export function slotOf(name: ReleaseName): Slot {
  const { sha256, length } = releases[name];
  return { release: releases[name], file: { sha256, length } };
}

/** Gives the trial of a release. */
export function trialOf(name: ReleaseName, plan: string, phase: Trial['phase']): Trial {
  const progress = { rules: DEFAULT_TRIAL, retryNonce: 0, inferences: 0, errors: 0 };
  return { ...slotOf(name), plan, phase, ...progress };
}

/** All vectors by the name of their file. */
export const decideVectors: readonly (readonly [string, readonly DecideVector[]])[] = Object.entries(
  files,
).map(([file, cases]) => [file, (cases as readonly Published[]).map(toVector)]);

function toVector({
  name,
  plan: published,
  install,
  now,
  slots,
  expected,
  ...signed
}: Published): DecideVector {
  const { embedded, committed, previous, trial, rejected: refused = [], plan: seen, policy } = slots;
  const read =
    published &&
    readPlan({
      ...published,
      base: published.base && releaseOf(published.base),
      cand: releaseOf(published.cand),
      ...(published.arms && {
        arms: published.arms.map((arm) => ({ ...arm, entry: releaseOf(arm.entry) })),
      }),
    });
  return {
    name,
    plan: read
      ? { ...read, policy: { floorSeq: 0, revoked: [] }, minSdk: {}, isCurrent: true, ...signed }
      : undefined,
    install,
    now,
    slots: {
      ...(embedded && { embedded: slotOf(embedded) }),
      ...(committed && { committed: slotOf(committed) }),
      ...(previous && { previous: slotOf(previous) }),
      ...(trial && { trial: trialOf(trial.release, trial.plan, trial.phase) }),
      rejected: refused,
      ...(seen && { plan: seen }),
      ...(policy && { policy }),
    },
    expected: {
      ...expected,
      ...(expected.entry && { entry: releaseOf(expected.entry) }),
      ...(expected.shadow && {
        shadow: { ...expected.shadow, entry: releaseOf(expected.shadow.entry) },
      }),
    },
  };
}
