/** Taking releases back: pure functions from one state of the offline-signed targets to the next. */

import { ServerError } from '../core/errors.ts';
import type { ModelPolicy, Targets } from '../trust/metadata.ts';
import { listReleases, policyOf, type ListedRelease } from './release.ts';

/** A change of `targets` that concerns one release. */
export interface ReleaseChange {
  readonly release: ListedRelease;
  /** Expiry of the new `targets`. */
  readonly expires: string;
}

/**
 * Withdraws a release for good: no device runs it any more. Withdrawing it again changes nothing.
 * @param change.reason why, for people; signed with the release.
 */
export function revokeRelease(
  targets: Targets,
  { release, reason, expires }: ReleaseChange & { readonly reason?: string | undefined },
): Targets {
  const { model, path, seq } = release;
  const policy = policyOf(targets, model);
  const { revoked = [] } = policy;
  if (revoked.includes(seq)) return targets;
  const next = withPolicy(targets, model, expires, {
    ...policy,
    revoked: [...revoked, seq].sort((a, b) => a - b),
  });
  const target = targets.targets[path];
  if (reason === undefined || target === undefined) return next;
  const said = { ...target, custom: { ...target.custom, revokedBecause: reason } };
  return { ...next, targets: { ...next.targets, [path]: said } };
}

/**
 * Withdraws all releases before one for good. The floor of a model only rises.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` if it is higher already.
 */
export function raiseFloor(targets: Targets, { release, expires }: ReleaseChange): Targets {
  const { model, seq, version } = release;
  const policy = policyOf(targets, model);
  const { floorSeq = 0 } = policy;
  if (floorSeq === seq) return targets;
  if (floorSeq > seq) {
    const there = listReleases(targets).find((other) => other.model === model && other.seq === floorSeq);
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `The floor of ${model} cannot fall to ${version}: it is ${there?.version ?? `number ${floorSeq}`}, and only rises.`,
      { details: { model, version } },
    );
  }
  return withPolicy(targets, model, expires, { ...policy, floorSeq: seq });
}

/**
 * Takes the files of a release off the list; what devices have stays where it is, and can no longer be named by a plan.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` for the newest release of a model: its number would be given out again.
 */
export function removeRelease(targets: Targets, { release, expires }: ReleaseChange): Targets {
  const { model, seq, version } = release;
  const isNewest = listReleases(targets).every((other) => other.model !== model || other.seq <= seq);
  if (isNewest) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `Version ${version} is the newest of ${model} and stays on the list; withdraw it with \`inlay revoke\`.`,
      { details: { model, version } },
    );
  }
  const kept = Object.entries(targets.targets).filter(
    ([, { custom }]) => custom?.['model'] !== model || custom['seq'] !== seq,
  );
  return { ...targets, version: targets.version + 1, expires, targets: Object.fromEntries(kept) };
}

function withPolicy(targets: Targets, model: string, expires: string, policy: ModelPolicy): Targets {
  const models = { ...targets.custom?.models, [model]: policy };
  return {
    ...targets,
    version: targets.version + 1,
    expires,
    custom: { ...targets.custom, models },
  };
}
