/** A session that goes on elsewhere when its execution provider has broken down too often. */
import type { Session, SessionRunOptions, TensorMap } from '../core/backend.ts';
import { isInlayError, type ErrorCode } from '../core/errors.ts';

/** How {@link withStandIn} finds another place. */
export interface StandInParts {
  /** Counts a breakdown. @returns the reason if the session is to go elsewhere. */
  readonly count: (provider: string, error: Error) => string | undefined;
  /** Opens the same model elsewhere. */
  readonly open: () => Promise<Session>;
  /** Hears that the session runs elsewhere now. */
  readonly onMoved: (from: string, to: Session, reason: string) => void;
}

/** What says that the device, the library or its worker broke down, and not the call. */
const BREAKDOWNS: readonly ErrorCode[] = [
  'ERR_INLAY_DEVICE_UNAVAILABLE',
  'ERR_INLAY_BACKEND_UNAVAILABLE',
  'ERR_INLAY_WORKER_LOST',
];

/**
 * Watches the runs of a session. The run that is one breakdown too many, and all later ones, are answered elsewhere;
 * those before it reject, for whoever planned them to make them again.
 */
export function withStandIn(first: Session, parts: StandInParts): Session {
  let current = first;
  let moving: Promise<void> | undefined;
  let released: Promise<void> | undefined;
  const slots = first.slots ?? [{ name: first.provider }];

  const move = async (reason: string): Promise<void> => {
    const old = current;
    try {
      current = await parts.open();
      parts.onMoved(old.provider, current, reason);
    } finally {
      moving = undefined;
    }
    // It may be beyond help; nobody waits for it.
    old.release().catch(() => {});
  };
  const run = async (feeds: TensorMap, options?: SessionRunOptions): Promise<TensorMap> => {
    await moving;
    const used = current;
    if (used !== first) return used.run(feeds, elsewhere(options));
    try {
      return await used.run(feeds, options);
    } catch (error) {
      if (!isInlayError(error) || !BREAKDOWNS.includes(error.code)) throw error;
      const reason = parts.count(used.provider, error);
      if (reason === undefined || options?.transfer) throw error;
      if (current === first) await (moving ??= move(reason));
      return current.run(feeds, elsewhere(options));
    }
  };

  const { grow } = first;
  return {
    signature: first.signature,
    get provider() {
      return current.provider;
    },
    get placement() {
      return current.placement;
    },
    // Whoever plans runs knows the session by them; elsewhere, each stands for the whole session.
    slots,
    ...(first.intraOpThreads !== undefined && { intraOpThreads: first.intraOpThreads }),
    ...(first.threadsReason !== undefined && { threadsReason: first.threadsReason }),
    ...(grow && { grow: () => (current === first ? grow() : undefined) }),
    run,
    release: () =>
      (released ??= (async () => {
        await moving?.catch(() => {});
        await current.release();
      })()),
  };
}

/** The slots of the first session mean nothing to another one. */
function elsewhere(options: SessionRunOptions = {}): SessionRunOptions {
  const { slot: _, ...rest } = options;
  return rest;
}
