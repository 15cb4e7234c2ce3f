/** As what a release that runs counts: for the telemetry of rollouts. */

import type { Store } from '../core/store.ts';
import { CONTROL_ARM, entryOf } from './arms.ts';
import { armLabel } from './decide.ts';
import { isSame } from './decide-place.ts';
import type { Decided } from './decider.ts';
import type { FileRef } from './manifest.ts';
import type { ReportRules } from './plan.ts';
import type { Slot } from './slot.ts';
import type { Sync } from './sync.ts';
import type { Transfers } from './transfer.ts';

/** What runs, and as what. */
export interface Role {
  /** `undefined` for a version that came with the app and does not say. */
  readonly version: string | undefined;
  /** Rollout and stage in which it is measured, and in which arm, but in the shadow; absent for what is not measured. */
  readonly place?: { readonly rollout: string; readonly stage: number; readonly arm?: string };
  /** The reference profile of the release, where it has one. */
  readonly profile?: FileRef;
}

/** Hears what the updater of a model does. Nothing here throws. */
export interface UpdateObserver {
  /** What answers calls from now on, and as what; also when only that has changed. */
  runs(role: Role): void;
  /** A release is about to be opened that has never answered here. It waits for this, so that a crash leaves a trace. */
  begins(role: Role): Promise<void>;
  /** A release is about to run beside what answers. */
  shadows(role: Role): void;
  /** Seconds between reports that the plan asks for, and whether it asks for the first one at once. */
  asks(rules: ReportRules | undefined): void;
  /** Bytes of a release have come. */
  received(count: number): void;
  /** Whether the profile of a release is of use. */
  wantsProfile(): boolean;
  /** The profile of a release, as it was signed. */
  profile(file: FileRef, bytes: Uint8Array): void;
}

/** What {@link createTeller} works with. */
export interface TellerParts {
  readonly observer?: UpdateObserver | undefined;
  readonly store: Pick<Store, 'blob'>;
  readonly transfers: Pick<Transfers, 'obtain'>;
  readonly sync: Pick<Sync, 'run' | 'signal'>;
}

/** Tells an observer what runs. */
export interface Teller {
  runs(slot: Slot, decided: Decided | undefined): void;
  begins(slot: Slot, decided: Decided | undefined): Promise<void>;
  shadows(slot: Slot, decided: Decided | undefined): void;
}

/** Downloads of small files wait for nothing. */
const AT_ONCE = { unmetered: false, charging: false, idle: false };

/** Creates what tells the observer of one model; without one, it does nothing. */
export function createTeller({ observer, store, transfers, sync }: TellerParts): Teller {
  /** Profiles that were asked for. */
  const asked = new Set<string>();

  const bringProfile = async (file: FileRef): Promise<void> => {
    const kept = await store.blob(file.sha256);
    const { blob } = kept
      ? { blob: kept }
      : await transfers.obtain({ ...file, net: AT_ONCE, signal: sync.signal });
    observer?.profile(file, await blob.bytes());
  };

  return {
    runs: (slot, decided) => {
      if (observer === undefined) return;
      observer.asks(decided?.plan?.report);
      observer.runs(roleOf(slot, decided));
      const { profile } = slot;
      if (profile === undefined || asked.has(profile.sha256) || !observer.wantsProfile()) return;
      asked.add(profile.sha256);
      // Models serve as well without one; the next release, or the next start, brings another chance.
      sync.run(() => bringProfile(profile)).catch(() => {});
    },
    begins: async (slot, decided) => observer?.begins(roleOf(slot, decided)),
    shadows: (slot, decided) => {
      const { id, stage } = decided?.plan ?? {};
      if (id === undefined || stage === undefined) return;
      observer?.shadows({ ...roleOf(slot, decided), place: { rollout: id, stage } });
    },
  };
}

/** Finds out as what a release counts, by the last decision. What a rollout that is over has left behind is not measured. */
function roleOf({ release, profile }: Slot, decided: Decided | undefined): Role {
  const { version } = release;
  const role = { version: version === '' ? undefined : version, ...(profile && { profile }) };
  const { plan, next } = decided ?? {};
  const arm = next && armLabel(next);
  if (plan === undefined || arm === undefined || plan.state === 'complete' || plan.state === 'rolledback')
    return role;
  // Who is to run the candidate and does not have it yet runs the base, and is no control.
  if (arm !== CONTROL_ARM && !isSame(release, entryOf(plan, next?.armName))) return role;
  return { ...role, place: { rollout: plan.id, stage: plan.stage, arm } };
}
