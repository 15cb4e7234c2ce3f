/** Which release an update is rounded around. */

import { ServerError } from '../../core/errors.ts';
import type { ModelTarget, Targets } from '../../trust/metadata.ts';
import { findRelease, isWithdrawn, listReleases, type ListedRelease } from '../release.ts';
import { requireRelease } from '../released-files.ts';
import type { CompactMode } from './compact.ts';

/** What {@link chooseAnchor} goes by. */
export interface AnchorChoice {
  readonly model: string;
  /** Version that is about to be published. */
  readonly version: string;
  readonly mode: CompactMode;
  /** Version that the publisher asks for. */
  readonly from?: string | undefined;
  /** Whether training went on from the newest published file, not from the publisher's own. */
  readonly isTrainedFromPublished?: boolean;
}

/**
 * Chooses the release that an update is rounded around: the anchor of the newest release, so that errors of one release
 * never add up to those of the next; the newest one that is whole where that is withdrawn, or there is none; the newest
 * release itself where it is whole, or where training went on from it.
 * @throws {@link ServerError} `ERR_INLAY_NOT_FOUND` if there is none; `ERR_INLAY_REFUSED` for rounding by a whole sigma or
 * more around a release that was rounded itself: what training does not know of would be lost again and again.
 */
export function chooseAnchor(targets: Targets, choice: AnchorChoice): ListedRelease {
  const { model, version, mode, from, isTrainedFromPublished = false } = choice;
  // Published before: it has to come out the same again.
  const { seq: own = Number.POSITIVE_INFINITY } = findRelease(targets, model, version) ?? {};
  const earlier = listReleases(targets)
    .filter((one) => one.model === model && one.seq < own && !isWithdrawn(targets, model, one.seq))
    .sort((a, b) => b.seq - a.seq);
  const [newest] = earlier;
  const asked = from === undefined ? undefined : requireRelease(targets, model, from);
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
  if (mode === 'small' && compactOf(targets, anchor) !== undefined && !isTrainedFromPublished) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `Version ${anchor.version} of model ${model} was rounded itself, and rounding around it would lose more with each release; ` +
        'round around the one before it, or train on from its published file and say --trained-from-published.',
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
