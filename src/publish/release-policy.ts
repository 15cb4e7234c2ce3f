/** Taking releases back: pure functions from one state of the offline-signed targets to the next. */

import { ServerError } from '../core/errors.ts';
import type { ModelPolicy, Targets } from '../trust/metadata.ts';
import { policyOf } from '../update/resolve.ts';
import { isWithdrawn, listReleases, type ListedRelease } from './release.ts';

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
  const { revoked } = policyOf(targets, model);
  if (revoked.includes(seq)) return targets;
  const next = withPolicy(targets, model, expires, { revoked: [...revoked, seq].sort((a, b) => a - b) });
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
  const { floorSeq } = policyOf(targets, model);
  if (floorSeq === seq) return targets;
  if (floorSeq > seq) {
    const there = listReleases(targets).find((other) => other.model === model && other.seq === floorSeq);
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `The floor of ${model} cannot fall to ${version}: it is ${there?.version ?? `number ${floorSeq}`}, and only rises.`,
      { details: { model, version } },
    );
  }
  return withPolicy(targets, model, expires, { floorSeq: seq });
}

/** What the floor of a model does to its releases: versions, in the order in which they were published. */
export interface FloorReport {
  /** Published before the floor. */
  readonly withdrawn: readonly string[];
  /** Lower by their number, but published after the floor, and not withdrawn. */
  readonly staying: readonly string[];
}

/** Tells which releases a floor withdraws, and which ones people may wrongly take for withdrawn. */
export function reportFloor(
  targets: Targets,
  { model, seq, version }: Pick<ListedRelease, 'model' | 'seq' | 'version'>,
): FloorReport {
  const others = listReleases(targets)
    .filter((other) => other.model === model)
    .sort((a, b) => a.seq - b.seq);
  const versions = (list: readonly ListedRelease[]): readonly string[] => list.map((other) => other.version);
  return {
    withdrawn: versions(others.filter((other) => other.seq < seq)),
    staying: versions(
      others.filter(
        (other) =>
          other.seq > seq && !isWithdrawn(targets, model, other.seq) && isLower(other.version, version),
      ),
    ),
  };
}

/** Compares versions that are numbers with dots; of others nobody can tell. A pre-release is lower than its release. */
function isLower(a: string, b: string): boolean {
  const [left, right] = [numbersOf(a), numbersOf(b)];
  if (!left || !right) return false;
  for (let at = 0; at < Math.max(left.length, right.length); at += 1) {
    const difference = (left[at] ?? 0) - (right[at] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return isPreRelease(a) && !isPreRelease(b);
}

function numbersOf(version: string): readonly number[] | undefined {
  const [, numbers] = /^v?(\d+(?:\.\d+)*)(?:[-+].*)?$/.exec(version) ?? [];
  return numbers?.split('.').map(Number);
}

function isPreRelease(version: string): boolean {
  return /^[^+]*-/.test(version);
}

/**
 * Takes the files of a release off the list; what devices have stays where it is, and can no longer be named by a plan.
 * @throws {@link ServerError} `ERR_INLAY_REFUSED` for the newest release of a model: its number would be given out again;
 * and for a withdrawn one: its content could be published again.
 */
export function removeRelease(targets: Targets, { release, expires }: ReleaseChange): Targets {
  const { model, seq, version } = release;
  if (isWithdrawn(targets, model, seq)) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `Version ${version} of ${model} is withdrawn and stays on the list, so that nobody publishes its content again; leave it there.`,
      { details: { model, version } },
    );
  }
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

function withPolicy(targets: Targets, model: string, expires: string, change: ModelPolicy): Targets {
  const { models: before = {} } = targets.custom ?? {};
  const models = { ...before, [model]: { ...before[model], ...change } };
  return {
    ...targets,
    version: targets.version + 1,
    expires,
    custom: { ...targets.custom, models },
  };
}
