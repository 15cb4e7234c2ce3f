/** Which release an update is rounded around. */

import { ServerError } from '../../core/errors.ts';
import type { ModelTarget, Targets } from '../../trust/metadata.ts';
import { findRelease, isWithdrawn, listReleases, type ListedRelease } from '../release.ts';
import { requireRelease } from '../released-files.ts';

/** What {@link chooseAnchor} goes by. */
export interface AnchorChoice {
  readonly model: string;
  /** Version that is about to be published. */
  readonly version: string;
  /** Version that the publisher asks for. */
  readonly from?: string | undefined;
  /** Whether training went on from the newest published file, not from the publisher's own. */
  readonly isTrainedFromPublished?: boolean;
}

/**
 * Chooses the release that an update is rounded around: the anchor of the newest release, so that errors of one release
 * never add up to those of the next; the newest one that is whole where that is withdrawn, or there is none; the newest
 * release itself where it is whole, or where training went on from it.
 * @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` if there is none, or none of the version that is asked for;
 * `ERR_INLAY_REFUSED` for one that is withdrawn or not earlier than what is published, and for rounding around a release
 * that was rounded itself: what training does not know of would be lost again and again.
 */
export function chooseAnchor(targets: Targets, choice: AnchorChoice): ListedRelease {
  const { model, version, from, isTrainedFromPublished = false } = choice;
  // Published before: it has to come out the same again.
  const { seq: own = Number.POSITIVE_INFINITY } = findRelease(targets, model, version) ?? {};
  const earlier = listReleases(targets)
    .filter((one) => one.model === model && one.seq < own && !isWithdrawn(targets, model, one.seq))
    .sort((a, b) => b.seq - a.seq);
  const [newest] = earlier;
  const asked = from === undefined ? undefined : requireRelease(targets, model, from);
  if (asked !== undefined && !earlier.some(({ path }) => path === asked.path)) {
    const problem = isWithdrawn(targets, model, asked.seq)
      ? 'is withdrawn, and devices leave it'
      : `is not earlier than ${version}`;
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `Version ${asked.version} of model ${model} ${problem}; name another one with --compact-from.`,
      { details: { model, version: asked.version } },
    );
  }
  const anchor =
    asked ??
    (isTrainedFromPublished
      ? undefined
      : (earlier.find(({ sha256 }) => sha256 === compactOf(targets, newest)?.anchor) ??
        earlier.find((one) => compactOf(targets, one) === undefined))) ??
    newest;
  if (anchor === undefined) {
    throw new ServerError(
      'ERR_INLAY_NOT_FOUND',
      `Model ${model} has no release that ${version} could be rounded around; publish this one without --near and --small.`,
      { details: { model, version } },
    );
  }
  const rounded = compactOf(targets, anchor);
  if (rounded !== undefined && !isTrainedFromPublished) {
    const whole = earlier.find(({ sha256 }) => sha256 === rounded.anchor)?.version;
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `Version ${anchor.version} of model ${model} was rounded itself, and rounding around it would lose more with each release; ` +
        `${whole === undefined ? 'publish this one without --near and --small' : `round around ${whole}, its anchor`}, or train on from its published file and say --trained-from-published.`,
      { details: { model, version: anchor.version } },
    );
  }
  return anchor;
}

/** What is signed about how a release was rounded. */
function compactOf(targets: Targets, release: ListedRelease | undefined): ModelTarget['compact'] {
  if (release === undefined) return undefined;
  return (targets.targets[release.path]?.custom as Partial<ModelTarget> | undefined)?.compact;
}
