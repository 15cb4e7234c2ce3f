import type { Platform } from '../core/platform.ts';
import type { Catalog } from './catalog.ts';
import type { CatalogState } from './catalog-state.ts';

/** Longest time that a device waits for metadata to be signed again, milliseconds. */
const patienceMs = 1000;

/**
 * Creates the reader of the state that devices get: signed again where that is due, and as it is where that fails or
 * takes long, since it may be valid for days yet.
 */
export function createFreshState(options: {
  readonly catalog: Pick<Catalog, 'state' | 'renew'>;
  readonly platform: Pick<Platform, 'setTimer'>;
  /** Gets errors that devices do not notice. */
  readonly onError: (error: unknown) => void;
}): () => Promise<CatalogState> {
  const { catalog, platform, onError } = options;
  /** What the last device lost patience with; the next ones do not wait for it. */
  let late: Promise<unknown> | undefined;

  return async () => {
    const renewal = catalog.renew().catch((error: unknown) => {
      onError(error);
      return undefined;
    });
    if (late) return catalog.state();
    let cancel = (): void => undefined;
    const patience = new Promise<undefined>((done) => {
      cancel = platform.setTimer(() => {
        late = renewal.finally(() => {
          late = undefined;
        });
        done(undefined);
      }, patienceMs);
    });
    try {
      return (await Promise.race([renewal, patience])) ?? (await catalog.state());
    } finally {
      cancel();
    }
  };
}
