/** Gets a model ready to answer calls: opens it where it runs best, finds out whether its calls can share batches. */
import type { Backend, ModelSource, Placement, Session, TensorMap } from '../core/backend.ts';
import { orAbort } from '../core/abort.ts';
import { closedError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import type { Platform } from '../core/platform.ts';
import type { Signature } from '../core/signature.ts';
import type { Store } from '../core/store.ts';
import type { CallOptions } from '../schedule/job.ts';
import type { LanesRecord } from '../schedule/lanes.ts';
import type { Metrics } from '../schedule/metrics.ts';
import {
  createPadding,
  createProvenPadding,
  type PaddingInfo,
  type ProvenPadding,
} from '../schedule/padding.ts';
import type { QueueInfo } from '../schedule/queue-options.ts';
import type { Queue, Scheduler } from '../schedule/scheduler.ts';
import { calibrate, tryBatching } from './batching.ts';
import {
  cpuBehind,
  isCpu,
  openSession,
  warmUp,
  type Attempt,
  type DevicePreference,
  type OpenedSession,
} from './candidates.ts';
import type { Demotions } from './demotions.ts';
import { createNotebook, reasonsOf, type Learned, type Reasons } from './learned.ts';
import type { Memory, MemoryEntry } from './memory.ts';
import { chooseInline, chooseThreads, placedAt, withinCores } from './placement.ts';
import type { ProgressListener } from './progress.ts';
import type { SchedulingOptions } from './scheduling-options.ts';
import { withStandIn } from './stand-in.ts';
import type { VariantAttempt } from './variants-compare.ts';

/** A model version that answers calls. */
export interface Serving {
  readonly version: string | undefined;
  /** Which of several variants it is, where it was chosen among them. */
  readonly variant?: string;
  readonly signature: Signature;
  /** Runs feeds that are complete and fit; see {@link Queue.run}. */
  run(feeds: TensorMap, call: CallOptions, onSettled: () => void): Promise<TensorMap>;
  /**
   * Tells when it goes on with another execution provider, because the one that was chosen broke down too often; also
   * if that was before anybody asked.
   */
  onDegraded(listener: (degraded: Degraded) => void): void;
  /** Whether it has to stay in memory. */
  pin(isPinned: boolean): void;
  /** Costs that were learned, by lane. */
  costs(): LanesRecord | undefined;
  info(): ServingInfo;
  /** Frees it. To be called when all its calls have settled. Safe to call twice. */
  close(): Promise<void>;
}

/** That a model goes on with another execution provider. */
export interface Degraded {
  readonly from: string;
  readonly to: string;
  /** What became of the one that was chosen, in words. */
  readonly reason: string;
}

/** How a model is served, and why so. */
export interface ServingInfo extends Reasons {
  /** Which of several variants it is, where it was chosen among them. */
  readonly variant?: string;
  /** What became of each variant. */
  readonly variants?: readonly VariantAttempt[];
  readonly backend: string;
  readonly provider: string;
  readonly placement: Placement;
  readonly intraOpThreads?: number;
  /** Whether the session is in memory now; it is opened again by the next call. */
  readonly isLoaded: boolean;
  /** Bytes of the model in memory, as far as they are counted: the size of its file, once for each place. */
  readonly sizeBytes: number;
  /** Candidates in the order in which they were tried; the last one was chosen. */
  readonly attempts: readonly Attempt[];
  /** Sizes that inputs are padded to, where the model was loaded with `padding`. */
  readonly padding?: PaddingInfo;
  readonly queue: QueueInfo;
}

/** What servings share. */
export interface ServingParts {
  readonly platform: Platform;
  readonly store: Store;
  readonly backends: readonly Backend[];
  readonly scheduler: Scheduler;
  readonly memory: Memory;
  readonly demotions: Demotions;
  readonly logger: Logger;
}

/** How one model is to be served. */
export interface ServingOptions extends SchedulingOptions {
  readonly device: DevicePreference;
  readonly placement: Placement | 'auto';
  readonly intraOpThreads?: number | 'auto' | undefined;
  readonly version?: string | undefined;
  /** Which variant of the release it is, where it has several. */
  readonly variant?: string | undefined;
  /** What was learned about the version that is served now: where a new one starts. */
  readonly costs?: LanesRecord | undefined;
  readonly metrics: Metrics;
  readonly onProgress?: ProgressListener | undefined;
  /** Refuses a model whose first run fails. Otherwise it may still take other feeds than those made up for it. */
  readonly mustRun?: boolean | undefined;
}

/** Calls on an inline session may not keep the event loop for longer than this, in milliseconds. */
const INLINE_RUN_MS = 4;

/**
 * Opens a model.
 * @throws what {@link openSession} throws, and what its first run throws.
 */
export async function openServing(
  parts: ServingParts,
  source: ModelSource,
  options: ServingOptions,
): Promise<Serving> {
  const { platform, memory, logger } = parts;
  const notebook = await createNotebook(parts, source, options);
  const fileBytes = await sizeOf(platform, source);
  let learned: Learned | undefined = notebook.learned;
  /** A model grows into further workers only as far as memory allows. */
  const withinBudget = (placed: Placed): Placed => {
    const { grow } = placed.session;
    if (grow === undefined || !memory.isLimited) return placed;
    const session = { ...placed.session, grow: () => (memory.fits(fileBytes) ? grow() : undefined) };
    return { ...placed, session };
  };
  let tellDegraded: ((degraded: Degraded) => void) | undefined;
  let untold: Degraded | undefined;
  /** What is learned in an emergency does not hold for the next start. */
  let isMoved = false;
  /** A GPU may be lost at any moment; the CPU stays. */
  const withCpuBehind = (placed: Placed): Placed => {
    const behind = cpuBehind(options.device);
    if (isCpu(placed.session.provider) || behind.length === 0) return placed;
    const { backend } = placed;
    let next: OpenedSession;
    const session = withStandIn(placed.session, {
      count: (provider, error) => parts.demotions.count(backend, provider, error),
      nowMs: platform.monotonicMs,
      open: async () => {
        next = await openSession(platform, parts.backends, source, behind);
        return next.session;
      },
      onMoved: (from, to, reason) => {
        const gone = opened.attempts.map((attempt): Attempt =>
          attempt.outcome === 'chosen' ? { ...attempt, outcome: 'refused', reason } : attempt,
        );
        opened = { ...next, session, attempts: [...gone, ...next.attempts] };
        isMoved = true;
        const degraded = { from, to: to.provider, reason };
        if (tellDegraded === undefined) untold = degraded;
        else tellDegraded(degraded);
      },
    });
    return { ...placed, session };
  };
  const openPlaced = async (again?: 'again'): Promise<Placed> =>
    withCpuBehind(withinBudget(await openAtBest(parts, source, options, learned, again)));
  const tell = (phase: 'open' | 'warm-up'): void => {
    options.onProgress?.({ phase, loadedBytes: fileBytes, totalBytes: fileBytes });
  };
  tell('open');
  let opened = await openPlaced();
  if (learned !== undefined && !isLearnedOn(learned, opened)) learned = undefined;
  const { signature } = opened.session;
  let queue: Queue | undefined = openQueue(parts, opened, options, learned);
  let reopening: Promise<Queue> | undefined;
  let closed: Promise<void> | undefined;
  let calls = 0;
  let padding: ProvenPadding | undefined;

  try {
    tell('warm-up');
    if (options.padding !== undefined) {
      // Proofs are made when nothing else waits.
      const prove = (feeds: TensorMap): Promise<TensorMap> => send(feeds, { priority: -100 }, () => {});
      padding = createProvenPadding(createPadding(signature, options.padding), prove, options.tolerance);
    }
    if (options.mustRun || learned === undefined) {
      await warmUp(opened.session).catch((error: unknown) => {
        if (options.mustRun) throw error;
      });
    }
    await warmSizes(opened.session, options);
    if (learned === undefined) {
      const unbatchable = await tryBatching(opened.session, options);
      if (unbatchable !== undefined) {
        queue.close();
        queue = openQueue(parts, opened, { ...options, unbatchable }, undefined);
      } else if (options.costs === undefined) await calibrate(platform, opened.session, queue);
      learned = learn(opened, queue);
      notebook.write(learned);
    }
  } catch (error) {
    queue.close();
    // Why it does not run is worth more than why it cannot be released.
    await opened.session.release().catch(() => {});
    throw error;
  }

  const learnNow = (): void => {
    if (queue !== undefined && !isMoved) learned = learn(opened, queue);
  };
  const putAway = async (): Promise<void> => {
    learnNow();
    queue?.close();
    queue = undefined;
    await opened.session.release();
  };
  const bringBack = async (): Promise<Queue> => {
    try {
      opened = await openPlaced('again');
      queue = openQueue(parts, opened, options, learned);
      memory.grown(entry);
      return queue;
    } finally {
      reopening = undefined;
    }
  };
  const entry: MemoryEntry = {
    isPinned: false,
    get isIdle() {
      return calls === 0 && reopening === undefined;
    },
    get sizeBytes() {
      return queue === undefined ? 0 : fileBytes * (opened.session.slots?.length ?? 1);
    },
    putAway: async () => {
      logger.debug(
        { version: options.version, sizeBytes: fileBytes },
        'A model leaves memory until it is used.',
      );
      await putAway();
    },
  };
  memory.add(entry);
  logger.info(
    {
      version: options.version,
      backend: opened.backend,
      provider: opened.session.provider,
      placement: opened.session.placement,
      unbatchable: queue.info().unbatchable,
    },
    'A model is ready.',
  );

  const runCounted = async (feeds: TensorMap, call: CallOptions): Promise<TensorMap> => {
    if (closed !== undefined) throw closedError('The model');
    calls += 1;
    memory.used(entry);
    try {
      const { signal, deadlineMs } = call;
      const askedMs = platform.monotonicMs();
      const back = queue ?? (reopening ??= bringBack());
      const ready = await (signal === undefined ? back : orAbort(Promise.resolve(back), signal));
      const waitedMs = platform.monotonicMs() - askedMs;
      return await ready.run(
        feeds,
        deadlineMs === undefined ? call : { ...call, deadlineMs: deadlineMs - waitedMs },
      );
    } finally {
      calls -= 1;
      if (calls === 0) memory.settle();
    }
  };

  function send(feeds: TensorMap, call: CallOptions, onSettled: () => void): Promise<TensorMap> {
    return memory.isLimited || queue === undefined
      ? runCounted(feeds, call).finally(onSettled)
      : queue.run(feeds, call, onSettled);
  }

  return {
    version: options.version,
    ...(options.variant !== undefined && { variant: options.variant }),
    signature,
    run: (feeds, call, onSettled) => {
      if (padding === undefined) return send(feeds, call, onSettled);
      const padded = padding.pad(feeds);
      if (padded.ratio === 0) return send(feeds, call, onSettled);
      return send(padded.feeds, { ...call, paddingRatio: padded.ratio }, onSettled).then(padded.strip);
    },
    onDegraded: (listener) => {
      tellDegraded = listener;
      if (untold !== undefined) listener(untold);
      untold = undefined;
    },
    pin: (isPinned) => {
      entry.isPinned = isPinned;
      memory.settle();
    },
    costs: () => queue?.learned() ?? learned?.lanes,
    info: () => {
      const { session, backend, attempts } = opened;
      const { provider, placement, intraOpThreads } = session;
      return {
        ...(options.variant !== undefined && { variant: options.variant }),
        backend,
        provider,
        placement,
        ...reasonsOf(opened),
        ...(intraOpThreads !== undefined && { intraOpThreads }),
        isLoaded: queue !== undefined,
        sizeBytes: entry.sizeBytes,
        attempts,
        ...(padding !== undefined && { padding: padding.info() }),
        queue: queue?.info() ?? { waiting: 0, running: 0, slots: [], lanes: [] },
      };
    },
    close: () =>
      (closed ??= (async () => {
        memory.remove(entry);
        await padding?.settled();
        await reopening?.catch(() => {});
        if (queue === undefined) return;
        learnNow();
        if (learned !== undefined) notebook.write(learned);
        await putAway();
        await notebook.settled();
      })()),
  };
}

const BEFORE = 'it was the fastest when the model was first loaded here';

interface Placed extends Reasons {
  readonly session: Session;
  readonly backend: string;
  readonly attempts: readonly Attempt[];
  readonly isProvisional: boolean;
}

/** Opens a session on the best candidate, in the best place, with the best number of threads. */
async function openAtBest(
  parts: ServingParts,
  source: ModelSource,
  options: ServingOptions,
  learned: Learned | undefined,
  again?: 'again',
): Promise<Placed> {
  const { platform, backends, demotions } = parts;
  const { device, placement, intraOpThreads = 1 } = options;
  const at = placement === 'auto' ? learned?.placement : placement;
  const candidates = at === undefined ? backends : backends.map((backend) => placedAt(backend, at));
  const threads = intraOpThreads === 'auto' ? (learned?.intraOpThreads ?? 1) : intraOpThreads;
  await demotions.read();
  // Where the host allows nothing else, it would rather have a device that breaks down than none.
  const refusal = cpuBehind(device).length > 0 ? demotions.refusal : undefined;
  const open = (on: DevicePreference, from = candidates, count = threads): Promise<OpenedSession> =>
    openSession(platform, from, source, on, { intraOpThreads: count }, refusal);

  const anew = (): Promise<Placed> => openAtBest(parts, source, options, undefined);
  if (learned !== undefined && refusal?.(learned.backend, learned.provider) !== undefined) return anew();
  let opened: Placed | undefined;
  // What could not be tried at the last start is tried at this one, not each time that memory was needed.
  if (device === 'auto' && learned !== undefined && (again || !learned.isProvisional)) {
    const before = candidates.filter(({ name }) => name === learned.backend);
    const { isProvisional = false } = learned;
    const found = await open([learned.provider], before).catch(() => undefined);
    if (found === undefined) return anew();
    const attempts = found.attempts.map((attempt) => ({ ...attempt, reason: BEFORE }));
    opened = { ...found, attempts, isProvisional };
  }
  opened ??= await open(device);
  if (learned !== undefined && !isLearnedOn(learned, opened)) {
    // Place and threads were chosen for another provider.
    await opened.session.release().catch(() => {});
    return anew();
  }
  const { backend, session } = opened;
  if (at === undefined) {
    const inline = backends.find(({ name }) => name === backend)?.elsewhere?.inline;
    if (inline !== undefined) {
      const near = (): Promise<Session> =>
        inline.createSession(source, { provider: session.provider, intraOpThreads: threads });
      opened = { ...opened, ...(await chooseInline(platform, session, near)) };
    }
  }
  if (intraOpThreads === 'auto' && learned === undefined && opened.session.placement !== 'inline') {
    const wide = async (count: number): Promise<Session> =>
      (await open([session.provider], candidates, count)).session;
    opened = { ...opened, ...(await chooseThreads(platform, opened.session, wide)) };
  }
  return {
    ...opened,
    ...reasonsOf(opened.session),
    ...reasonsOf(opened),
    ...(learned !== undefined && reasonsOf(learned)),
    session: withinCores(platform, opened.session),
  };
}

/** GPUs compile their kernels for each size when it first comes. */
async function warmSizes(session: Session, { padding }: ServingOptions): Promise<void> {
  if (padding?.sizes === undefined || isCpu(session.provider)) return;
  for (const size of padding.sizes) await warmUp(session, { [padding.dimension]: size }).catch(() => {});
}

function openQueue(
  { scheduler }: ServingParts,
  { session }: Placed,
  options: ServingOptions & { readonly unbatchable?: string },
  learned: Learned | undefined,
): Queue {
  return scheduler.open({
    maxRunMs: session.placement === 'inline' ? INLINE_RUN_MS : undefined,
    unbatchable: learned?.unbatchable,
    learned: learned?.lanes ?? options.costs,
    ...options,
    session,
  });
}

function isLearnedOn({ backend, provider }: Learned, opened: Placed): boolean {
  return opened.backend === backend && opened.session.provider === provider;
}

function learn(placed: Placed, queue: Queue): Learned {
  const { provider, placement, intraOpThreads = 1 } = placed.session;
  const { unbatchable } = queue.info();
  return {
    backend: placed.backend,
    provider,
    placement,
    intraOpThreads,
    ...(placed.isProvisional && { isProvisional: true }),
    ...reasonsOf(placed),
    ...(unbatchable !== undefined && { unbatchable }),
    lanes: queue.learned(),
  };
}

async function sizeOf({ files }: Platform, source: ModelSource): Promise<number> {
  if (source.path === undefined) return source.bytes.length;
  return (await files?.size(source.path)) ?? 0;
}
