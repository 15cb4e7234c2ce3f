import { ModelError } from '../core/errors.ts';
import type { Release, Sync } from '../update/sync.ts';
import { warmUp } from './candidates.ts';
import type { LoadedVersion, ManagedModel, Model } from './model.ts';

/**
 * Opens the release that this device should run, and moves on to others as the sync server offers them.
 *
 * A new release is opened and warmed up beside the present one; only then do calls move over. Whatever fails before
 * that leaves the present one in place.
 *
 * @throws {@link ModelError} `ERR_INLAY_MODEL_UNAVAILABLE` when there is no release to start with.
 */
export async function followReleases(
  sync: Sync,
  name: string,
  open: (release: Release) => Promise<LoadedVersion>,
  manage: (loaded: LoadedVersion) => Promise<ManagedModel>,
): Promise<Model> {
  sync.start();
  let running: Release | undefined;
  let managed: ManagedModel | undefined;

  const move = async (release: Release): Promise<void> => {
    let loaded: LoadedVersion | undefined;
    try {
      loaded = await open(release);
      await warmUp(loaded.session);
    } catch (error) {
      await loaded?.session.release();
      sync.reject(name, release, error);
      throw error;
    }
    if (managed === undefined) managed = await manage(loaded);
    else managed.swap(loaded);
    running = release;
    await sync.commit(name, release);
  };

  const update = async (): Promise<void> => {
    const offered = await sync.resolve(name);
    if (offered === undefined || offered.sha256 === running?.sha256) return;
    await move(offered);
  };

  const committed = await sync.committed(name);
  // A committed release that no longer opens (a damaged disk) must not keep a good one from arriving.
  if (committed !== undefined) await move(committed).catch(() => {});
  if (managed === undefined) {
    try {
      await sync.check();
      await update();
    } catch (error) {
      throw unavailable(name, error);
    }
    if (managed === undefined) throw unavailable(name, undefined);
  }

  const followed: ManagedModel = managed;
  let last: Promise<void> = Promise.resolve();
  const unsubscribe = sync.subscribe(name, () => {
    last = last.then(update).catch((error: unknown) => {
      followed.updateFailed(error);
    });
  });
  void followed.closed.then(unsubscribe);
  return followed.model;
}

function unavailable(name: string, cause: unknown): ModelError {
  const why = cause instanceof Error ? cause.message : 'No plan of this channel offers a version of it.';
  return new ModelError('ERR_INLAY_MODEL_UNAVAILABLE', `Model "${name}" cannot be loaded yet: ${why}`, {
    cause,
  });
}
