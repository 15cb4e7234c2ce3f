/** Which releases of the offline-signed `targets` may run. */

import { ServerError } from '../core/errors.ts';
import { isWithdrawn, listReleases } from '../publish/release.ts';
import type { Targets } from '../trust/metadata.ts';
import { isFields, isSize } from '../trust/parse.ts';
import type { PlanEntry } from '../update/plan.ts';
import { policyOf } from '../update/resolve.ts';

/** The releases that a plan may name. */
export interface Releases {
  /** Tells whether the targets list exactly this release of the model. */
  isListed(model: string, entry: PlanEntry): boolean;
  /** Tells whether a release is below the floor of its model, or revoked. */
  isWithdrawn(model: string, entry: PlanEntry): boolean;
}

/** Reads from targets what plans may name. */
export function releasesOf(targets: Targets): Releases {
  const byPath = new Map(listReleases(targets).map((release) => [release.path, release]));
  return {
    isListed: (model, entry) => {
      const release = byPath.get(entry.path);
      return release?.model === model && sameEntry(release, entry);
    },
    isWithdrawn: (model, { seq }) => isWithdrawn(targets, model, seq),
  };
}

/** Tells whether two entries name the same release. */
export function sameEntry(a: PlanEntry, b: PlanEntry): boolean {
  return (
    a.path === b.path &&
    a.sha256 === b.sha256 &&
    a.length === b.length &&
    a.seq === b.seq &&
    a.version === b.version
  );
}

/**
 * Checks that targets have a well-formed policy that takes nothing back: floors only rise, and what is revoked stays.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED`
 */
export function assertPolicy(targets: Targets, before: Targets | undefined): void {
  const custom: unknown = targets.custom ?? {};
  const models = isFields(custom) ? (custom['models'] ?? {}) : undefined;
  if (!isFields(models)) return refuse('custom.models', 'is not an object');
  for (const [model, policy] of Object.entries(models)) {
    const { floorSeq = 0, revoked = [] } = isFields(policy) ? policy : refuse(model, 'is not an object');
    if (!isSize(floorSeq)) refuse(model, 'has a floor that is not a sequence number');
    if (!Array.isArray(revoked) || !revoked.every((seq) => isSize(seq))) {
      refuse(model, 'does not list revoked sequence numbers');
    }
  }
  for (const model of Object.keys(before?.custom?.models ?? {})) {
    const { floorSeq: oldFloor, revoked: oldRevoked } = policyOf(before ?? {}, model);
    const { floorSeq, revoked } = policyOf(targets, model);
    if (floorSeq < oldFloor) {
      refuse(model, `lowers its floor from ${oldFloor} to ${floorSeq}; a floor only rises`);
    }
    const missing = oldRevoked.find((seq) => !revoked.includes(seq));
    if (missing !== undefined)
      refuse(model, `takes the revocation of ${missing} back; revoked stays revoked`);
  }
}

function refuse(what: string, problem: string): never {
  throw new ServerError(
    'ERR_INLAY_REFUSED',
    `The policy ${JSON.stringify(what.slice(0, 200))} of the targets ${problem}; sign it anew.`,
  );
}
