/** What becomes of the plans that are in force when others come. */

import { fromUtf8 } from '../core/bytes.ts';
import { withdrawRollouts } from '../publish/rollout.ts';
import { canonicalJson } from '../trust/canonical-json.ts';
import type { Targets } from '../trust/metadata.ts';
import type { SignedPlan } from '../update/plan.ts';
import { plansOf, type Channels } from './channels.ts';
import { releasesOf } from './policy.ts';

/** Plans of which those are rolled back whose candidate the targets withdraw. */
export function withdrawn(channels: Channels, targets: Targets): Channels {
  const releases = releasesOf(targets);
  return Object.fromEntries(
    Object.entries(channels).map(([channel, plans]) => [
      channel,
      plans.flatMap((plan) => withdrawRollouts([plan], (entry) => !releases.isWithdrawn(plan.model, entry))),
    ]),
  );
}

/** What a new rollout leaves the other devices on has to count itself. */
export function withSoundBase(plan: SignedPlan, targets: Targets): SignedPlan {
  const { isListed, isWithdrawn } = releasesOf(targets);
  const { base, model } = plan;
  return base && (!isListed(model, base) || isWithdrawn(model, base)) ? { ...plan, base: null } : plan;
}

/** Tells whether two plans say the same. */
export function isSame(a: SignedPlan, b: SignedPlan): boolean {
  return fromUtf8(canonicalJson(a)) === fromUtf8(canonicalJson(b));
}

/** Rollouts whose state is another one now, for the audit log. */
export function changesBetween(before: Channels, after: Channels): readonly Record<string, string>[] {
  return Object.entries(after).flatMap(([channel, plans]) =>
    plans
      .filter((plan) =>
        plansOf(before, channel).every((old) => old.id !== plan.id || old.state !== plan.state),
      )
      .map(({ id, model, cand }) => ({ channel, model, version: cand.version, rollout: id })),
  );
}
