import type { Backend, Placement, Session, TensorMap } from '../core/backend.ts';
import type { Platform } from '../core/platform.ts';
import { exampleFeeds } from './example-feeds.ts';

/** The backend in one place, or as it is where it has only one. */
export function placedAt(backend: Backend, placement: Placement): Backend {
  if (backend.elsewhere === undefined) return backend;
  const placed = backend.elsewhere[placement];
  if (placed === undefined) {
    throw new TypeError(`The backend ${backend.name} does not run with placement '${placement}'.`);
  }
  return placed;
}

/** A run that is shorter than this, in milliseconds, costs less than the way to a worker and back. */
const SHORT_MS = 0.05;
/** Through a worker, a run that takes longer than this is not a short one, in milliseconds. */
const HOPELESS_MS = 1;
const WARM_UPS = 2;
/** Many, since the first runs of a process are slowed down by its compiler; long ones are not, and end with the budget. */
const REPEATS = 60;
/** After which no more runs are timed, in milliseconds. */
const BUDGET_MS = 15;

/**
 * Opens a model a second time on the calling thread if its runs are so short that the way to a worker costs more, and
 * keeps that session if they really are.
 * @returns the session to keep, with the reason; the other one was released.
 */
export async function chooseInline(
  platform: Platform,
  session: Session,
  open: () => Promise<Session>,
): Promise<{ readonly session: Session; readonly placementReason: string }> {
  const { feeds } = exampleFeeds(session.signature);
  const viaWorkerMs = await timeOf(platform, session, feeds);
  if (viaWorkerMs === undefined)
    return { session, placementReason: 'it takes no example feeds to be timed with' };
  if (viaWorkerMs > HOPELESS_MS) return { session, placementReason: `a run takes ${format(viaWorkerMs)} ms` };
  let near: Session;
  try {
    near = await open();
  } catch {
    return { session, placementReason: 'it does not open on the calling thread' };
  }
  const inlineMs = await timeOf(platform, near, feeds);
  const isShort = inlineMs !== undefined && inlineMs <= SHORT_MS;
  await (isShort ? session : near).release().catch(() => {});
  const placementReason =
    inlineMs === undefined
      ? 'it does not run on the calling thread'
      : `a run takes ${format(inlineMs)} ms on the calling thread, ${format(viaWorkerMs)} through a worker`;
  return { session: isShort ? near : session, placementReason };
}

/** Share by which a run on all threads may miss the ideal speed and still be taken for it. */
const NEARLY = 1.15;

/**
 * Opens a model a second time with all cores for one run, and keeps that session if it is as much faster as it has more
 * threads: then as many calls are answered, each sooner. Otherwise several workers with a thread each answer more.
 * @returns the session to keep, with the reason; the other one was released.
 */
export async function chooseThreads(
  platform: Platform,
  session: Session,
  open: (intraOpThreads: number) => Promise<Session>,
): Promise<{ readonly session: Session; readonly threadsReason: string }> {
  const { cores = 1 } = platform;
  if (cores === 1) return { session, threadsReason: 'there is one core' };
  const { feeds } = exampleFeeds(session.signature);
  const oneMs = await timeOf(platform, session, feeds);
  if (oneMs === undefined) return { session, threadsReason: 'it takes no example feeds to be timed with' };
  let wide: Session;
  try {
    wide = await open(cores);
  } catch {
    return { session, threadsReason: `it does not open with ${cores} threads` };
  }
  const allMs = await timeOf(platform, wide, feeds);
  const isWorth = allMs !== undefined && allMs * cores <= oneMs * NEARLY;
  await (isWorth ? session : wide).release().catch(() => {});
  const threadsReason =
    allMs === undefined
      ? `it does not run on ${cores} threads`
      : `a run takes ${format(oneMs)} ms on one thread, ${format(allMs)} on ${cores}`;
  return { session: isWorth ? wide : session, threadsReason };
}

/** Keeps the threads of all workers together within the cores. */
export function withinCores({ cores = 1 }: Platform, session: Session): Session {
  const { slots, intraOpThreads = 1, grow } = session;
  if (grow === undefined || intraOpThreads === 1) return session;
  return {
    ...session,
    grow: () => (((slots?.length ?? 1) + 1) * intraOpThreads > cores ? undefined : grow()),
  };
}

async function timeOf(platform: Platform, session: Session, feeds: TensorMap): Promise<number | undefined> {
  const beganMs = platform.monotonicMs();
  let shortest: number | undefined;
  try {
    for (let i = 0; i < WARM_UPS + REPEATS; i += 1) {
      const startedMs = platform.monotonicMs();
      await session.run(feeds);
      const endedMs = platform.monotonicMs();
      // Whatever else the machine does only adds to it.
      const isLong = endedMs - startedMs > BUDGET_MS;
      if (i < WARM_UPS && !(isLong && i > 0)) continue;
      shortest = Math.min(shortest ?? Infinity, endedMs - startedMs);
      if (endedMs - beganMs > BUDGET_MS) break;
    }
  } catch {
    return undefined;
  }
  return shortest;
}

function format(milliseconds: number): string {
  return milliseconds.toPrecision(2);
}
