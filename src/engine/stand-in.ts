/** A session that goes on elsewhere when its execution provider has broken down too often. */
import type { Session, SessionRunOptions, TensorMap } from '../core/backend.ts';
import { BackendError, InlayError, isInlayError, type ErrorCode } from '../core/errors.ts';

/** How {@link withStandIn} finds another place. */
export interface StandInParts {
  /** Counts a breakdown. @returns the reason if the session is to go elsewhere. */
  readonly count: (provider: string, error: Error) => string | undefined;
  /** Monotonic clock, milliseconds. */
  readonly nowMs: () => number;
  /** Opens the same model elsewhere. */
  readonly open: () => Promise<Session>;
  /** Hears that the session runs elsewhere now. */
  readonly onMoved: (from: string, to: Session, reason: string) => void;
}

/** What says that the device, the library or its worker broke down, and not the call. */
const BREAKDOWNS: readonly ErrorCode<'BackendError'>[] = [
  'ERR_INLAY_DEVICE_UNAVAILABLE',
  'ERR_INLAY_BACKEND_UNAVAILABLE',
  'ERR_INLAY_WORKER_LOST',
];

/** Time in milliseconds for which an opening that failed is not tried again. */
const REST_MS = 10_000;

/**
 * Watches the runs of a session. The run that is one breakdown too many, and all later ones, are answered elsewhere;
 * those before it reject, for whoever planned them to make them again. So does one whose feeds were transferred: they
 * are gone. Where nothing opens elsewhere, the breakdown is thrown with the reason as `details.standIn`.
 */
export function withStandIn(first: Session, parts: StandInParts): Session {
  let current = first;
  /** Never rejects. */
  let moving: Promise<void> | undefined;
  let failure: { readonly atMs: number; readonly reason: string } | undefined;
  let released: Promise<void> | undefined;
  const slots = first.slots ?? [{ name: first.provider }];

  const move = async (reason: string): Promise<void> => {
    try {
      const next = await parts.open();
      current = next;
      parts.onMoved(first.provider, next, reason);
      // It may be beyond help; nobody waits for it.
      first.release().catch(() => {});
    } catch (error) {
      failure = { atMs: parts.nowMs(), reason: error instanceof Error ? error.message : String(error) };
    } finally {
      moving = undefined;
    }
  };
  const run = async (feeds: TensorMap, options?: SessionRunOptions): Promise<TensorMap> => {
    await moving;
    const used = current;
    if (used !== first) return used.run(feeds, elsewhere(options));
    try {
      return await used.run(feeds, options);
    } catch (error) {
      if (!isBreakdown(error)) throw error;
      const reason = parts.count(used.provider, error);
      // A run that was aborted goes on, and may outlive its session.
      if (reason === undefined || released !== undefined) throw error;
      const rests = failure !== undefined && parts.nowMs() - failure.atMs < REST_MS;
      if (current === first && !rests) moving ??= move(reason);
      if (options?.transfer) throw error;
      await moving;
      if (current === first) throw failure === undefined ? error : withoutStandIn(error, failure.reason);
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
        await moving;
        await current.release();
      })()),
  };
}

/** The slots of the first session mean nothing to another one. */
function elsewhere(options: SessionRunOptions = {}): SessionRunOptions {
  const { slot: _, ...rest } = options;
  return rest;
}

type Breakdown = InlayError<'BackendError'>;

function isBreakdown(error: unknown): error is Breakdown {
  return isInlayError(error) && BREAKDOWNS.some((code) => code === error.code);
}

/** Whoever planned the run may make it again: it is still the breakdown that it was. */
function withoutStandIn(error: Breakdown, standIn: string): BackendError {
  return new BackendError(error.code, error.message, {
    cause: error,
    details: { ...error.details, standIn },
  });
}
