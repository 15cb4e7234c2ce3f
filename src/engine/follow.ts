import { isInlayError, ModelError } from '../core/errors.ts';
import type { DownloadListener, Release, Sync } from '../update/sync.ts';
import { assertReplaces } from './replaces.ts';
import type { Serving } from './serving.ts';
import type { ManagedModel, Model } from './model.ts';

/** What {@link followReleases} does with releases. */
export interface FollowParts {
  /** Opens a release beside the present one, if there is one. */
  readonly open: (release: Release, present: Serving | undefined) => Promise<Serving>;
  /** Opens the version that came with the app, if one did. */
  readonly openEmbedded?: (() => Promise<Serving>) | undefined;
  /** Makes a model of the first release. */
  readonly manage: (serving: Serving) => Promise<ManagedModel>;
  /** Hears of the first download. */
  readonly onDownload?: DownloadListener | undefined;
}

/**
 * Opens the release that this device should run, and moves on to others as the sync server offers them.
 *
 * A new release is opened and warmed up beside the present one; only then do calls move over. Whatever fails before
 * that leaves the present one in place. A version that came with the app answers until a first release has come in.
 *
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNAVAILABLE` when there is no release to start with;
 * {@link StateError} `ERR_INLAY_CLOSED` when the Inlay is closed meanwhile.
 */
export async function followReleases(
  sync: Sync,
  name: string,
  { open, openEmbedded, manage, onDownload }: FollowParts,
): Promise<Model> {
  sync.start();
  let managed: ManagedModel | undefined;
  /** Target path of the release that answers calls. */
  let running: string | undefined;
  /** Target path of the release with which this device starts next time, as far as this model had a part in it. */
  let kept: string | undefined;
  /** While an update is under way, nobody knows what it ends with: whatever is on offer then is news. */
  let isUpdating = true;
  /** Whether a check had news since the last update began. */
  let isTold = false;
  let isOver = false;

  const move = async (release: Release): Promise<void> => {
    let serving: Serving | undefined;
    try {
      serving = await open(release, managed?.current());
      if (managed !== undefined)
        assertReplaces(name, managed.current().signature, release.version, serving.signature);
    } catch (error) {
      // Why it does not work is worth more than why it cannot be released.
      await serving?.close().catch(() => {});
      // A mistake in the options of the host says nothing about the release.
      const isOurs = error instanceof TypeError || error instanceof RangeError;
      if (!isClosed(error) && !isOurs) sync.reject(name, release, error);
      throw error;
    }
    if (managed === undefined) managed = await manage(serving);
    else managed.swap(serving);
    running = release.path;
  };

  const update = async (): Promise<void> => {
    isTold = false;
    const offered = await sync.resolve(name, managed === undefined ? onDownload : undefined);
    if (offered === undefined) return;
    if (offered.path !== running) await move(offered);
    await sync.commit(name, offered);
    kept = offered.path;
  };

  const start = async (): Promise<ManagedModel> => {
    // Where records cannot be read now, what came with the app answers all the same.
    const committed = await sync.committed(name).catch((error: unknown) => {
      if (openEmbedded === undefined || isClosed(error)) throw error;
      return undefined;
    });
    if (committed !== undefined) {
      // A committed release that no longer opens must not keep a good one from arriving.
      await move(committed).catch(() => {});
      kept = running;
    }
    if (managed !== undefined) return managed;
    let failure: unknown;
    let embeddedFailure: unknown;
    try {
      if (openEmbedded !== undefined) return (managed = await manage(await openEmbedded()));
    } catch (error) {
      embeddedFailure = error;
    }
    try {
      await sync.check();
      await update();
    } catch (error) {
      failure = error;
    }
    // A model that runs but could not be remembered serves; the next check tries to remember it again.
    if (managed !== undefined) return managed;
    throw isClosed(failure) ? failure : unavailable(name, failure, embeddedFailure);
  };

  const updateWhileTold = async (): Promise<void> => {
    isUpdating = true;
    while (isTold && !isOver) {
      await update().catch((error: unknown) => {
        if (!isOver && !isClosed(error)) managed?.updateFailed(error);
      });
    }
    isUpdating = false;
  };

  const unsubscribe = sync.subscribe(
    name,
    () => (isUpdating ? undefined : kept),
    () => {
      isTold = true;
      if (!isUpdating) void updateWhileTold();
    },
  );
  const followed = await start().catch((error: unknown) => {
    unsubscribe();
    throw error;
  });
  void updateWhileTold();
  // Whoever has a version that came with the app does not wait for the network.
  if (running === undefined) void sync.check().catch(() => {});
  void followed.closed.then(() => {
    isOver = true;
    unsubscribe();
  });
  return followed.model;
}

function isClosed(error: unknown): boolean {
  return isInlayError(error) && error.code === 'ERR_INLAY_CLOSED';
}

function unavailable(name: string, cause: unknown, embedded: unknown): ModelError {
  const why =
    cause instanceof Error ? cause.message : 'no plan of this channel offers this device a version of it.';
  const also =
    embedded instanceof Error ? ` The version that came with the app does not open: ${embedded.message}` : '';
  return new ModelError(
    'ERR_INLAY_MODEL_UNAVAILABLE',
    `Model "${name}" cannot be loaded yet: ${why}${also}`,
    // Where nothing is wrong with the network, the file of the app is what can be mended.
    { cause: cause ?? embedded },
  );
}
