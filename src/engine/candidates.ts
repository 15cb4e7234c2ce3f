import type {
  Backend,
  ExecutionProvider,
  ModelSource,
  Session,
  SessionOptions,
  TensorMap,
} from '../core/backend.ts';
import { difference } from '../core/compare.ts';
import { BackendError, isInlayError, ModelError, type ErrorCode } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { exampleFeeds } from './example-feeds.ts';

/**
 * Which devices may run a model.
 * - `auto`: the CPU, unless a GPU that is really there gives the same answers faster.
 * - `cpu`, `gpu`: only those.
 * - a list: execution providers by name (`webgpu`, `wasm`, `cuda`), `cpu` or `gpu`, in order; the first that works is
 *   taken.
 */
export type DevicePreference = 'auto' | 'cpu' | 'gpu' | readonly string[];

/** What became of one candidate, in the order in which they were tried. */
export interface Attempt {
  readonly backend: string;
  /** Execution provider; absent when the whole backend is unusable. */
  readonly provider?: string;
  readonly outcome: 'chosen' | 'refused' | 'slower';
  /** Why it was refused or not chosen, or chosen without a comparison, in words. */
  readonly reason?: string;
  /** Milliseconds to load. */
  readonly createMs?: number;
  /** Median milliseconds of a run on example feeds, where candidates were compared. */
  readonly runMs?: number;
}

/** A session that was chosen, and how. */
export interface OpenedSession {
  readonly session: Session;
  readonly backend: string;
  readonly attempts: readonly Attempt[];
  /** Whether a candidate was refused for a reason that may pass, rather than for what the model is. */
  readonly isProvisional: boolean;
}

/** Why a provider of a backend is not to be tried, in words; `undefined` if it may be. */
export type Refusals = (backend: string, provider: string) => string | undefined;

interface Candidate {
  readonly backend: Backend;
  readonly provider: ExecutionProvider;
}

/**
 * Opens a model on the best candidate that works. Candidates are tried one by one, because provider lists are no
 * fallback in inference libraries; every refusal is kept with its reason.
 *
 * @throws {@link ModelError} when the file is missing or is no model, {@link BackendError} when no candidate works,
 * with a list of the refusals: `ERR_INLAY_BACKEND_UNAVAILABLE` when what runs on the CPU does not start,
 * `ERR_INLAY_BACKEND_MISSING` when nothing is installed, `ERR_INLAY_DEVICE_UNAVAILABLE` otherwise.
 * @param refusalOf - what is known beforehand.
 */
export async function openSession(
  platform: Platform,
  backends: readonly Backend[],
  source: ModelSource,
  device: DevicePreference,
  threads: Pick<SessionOptions, 'intraOpThreads'> = {},
  refusalOf: Refusals = () => undefined,
): Promise<OpenedSession> {
  assertDevice(device);
  const attempts: Attempt[] = [];
  const failures: Failure[] = [];

  const refuse = (backend: string, provider: string | undefined, error: unknown): void => {
    failures.push({ provider, error });
    const reason = error instanceof Error ? error.message : String(error);
    attempts.push({ backend, ...(provider !== undefined && { provider }), outcome: 'refused', reason });
  };

  const create = async (
    { backend, provider }: Candidate,
    warm: boolean,
    opensElsewhere = false,
  ): Promise<Opened | undefined> => {
    try {
      if (provider.refusal !== undefined) throw unavailable(provider.refusal);
      const started = platform.monotonicMs();
      const session = await backend.createSession(source, { ...threads, provider: provider.name });
      const createMs = platform.monotonicMs() - started;
      try {
        // Some providers accept a model and fail at its first run (float16 without hardware support is one).
        if (warm && provider.device !== 'cpu') await warmUp(session);
      } catch (error) {
        // Why it does not run is worth more than why it cannot be released.
        await session.release().catch(() => {});
        throw error;
      }
      return { session, backend: backend.name, createMs };
    } catch (error) {
      if (!opensElsewhere && isFinal(error)) throw error;
      refuse(backend.name, provider.name, error);
      return undefined;
    }
  };

  // A library is started when it is its turn, not before: the later ones are there for when the first does not work.
  const listed = new Map<Backend, readonly Candidate[]>();
  const candidatesOf = async (backend: Backend): Promise<readonly Candidate[]> => {
    const known = listed.get(backend);
    if (known !== undefined) return known;
    const found = await backend.providers().then(
      (providers) =>
        providers.map((provider) => {
          const refusal = provider.refusal ?? refusalOf(backend.name, provider.name);
          return { backend, provider: refusal === undefined ? provider : { ...provider, refusal } };
        }),
      (error: unknown) => {
        refuse(backend.name, undefined, error);
        return [];
      },
    );
    listed.set(backend, found);
    return found;
  };
  const first = async (fits: Fits, warm: boolean): Promise<Opened | undefined> => {
    for (const backend of backends) {
      for (const candidate of await candidatesOf(backend)) {
        const opened = fits(candidate.provider) ? await create(candidate, warm) : undefined;
        if (opened !== undefined) return opened;
      }
    }
    return undefined;
  };
  const fastest = async (backend: Backend): Promise<Opened | undefined> => {
    let best: Opened | undefined;
    for (const candidate of [...(await candidatesOf(backend))].sort(cpuFirst)) {
      const rival = await create(candidate, true, best !== undefined);
      if (rival !== undefined)
        best = best === undefined ? rival : await keepFaster(platform, best, rival, attempts);
    }
    return best;
  };

  let chosen: Opened | undefined;
  if (device === 'cpu') chosen = await first(KINDS['cpu'] as Fits, false);
  else if (device === 'gpu') chosen = await first(KINDS['gpu'] as Fits, true);
  else if (device === 'auto') {
    for (const backend of backends) chosen ??= await fastest(backend);
  } else {
    for (const name of device) {
      if (chosen !== undefined) break;
      const offers = (fits: Fits): boolean =>
        [...listed.values()].flat().some(({ provider }) => fits(provider));
      const isNamed: Fits = (provider) => provider.name === name;
      chosen = await first(isNamed, true);
      // A library may have a provider of that name; elsewhere the word stands for all of its kind.
      const kind = KINDS[name];
      const isKind: Fits = (provider) => kind?.(provider) ?? false;
      if (!offers(isNamed)) chosen = await first(isKind, true);
      if (!offers(isNamed) && !offers(isKind)) refuse('any', name, notOffered([...listed.values()].flat()));
    }
  }
  if (chosen === undefined) throw noneWorks(device, attempts, failures);

  const { session, backend, createMs } = chosen;
  attempts.push({ backend, provider: session.provider, outcome: 'chosen', createMs });
  return { session, backend, attempts, isProvisional: failures.some(({ error }) => mayPass(error)) };
}

/** What made a candidate fail, or a whole backend where no provider is named. */
interface Failure {
  readonly provider: string | undefined;
  readonly error: unknown;
}

interface Opened {
  readonly session: Session;
  readonly backend: string;
  readonly createMs: number;
}

/** A word that is no preference would be taken for a list of letters. */
function assertDevice(device: DevicePreference): void {
  if (Array.isArray(device) || device === 'auto' || device === 'cpu' || device === 'gpu') return;
  throw new TypeError(
    `device is 'auto', 'cpu', 'gpu' or a list of execution providers, got ${JSON.stringify(device)}.`,
  );
}

/** The CPU is what the others are measured against. */
function cpuFirst(a: Candidate, b: Candidate): number {
  return Number(b.provider.device === 'cpu') - Number(a.provider.device === 'cpu');
}

/** A model that is missing or broken is so for every candidate, unless another one has opened it already. */
function isFinal(error: unknown): boolean {
  return error instanceof ModelError && error.code !== 'ERR_INLAY_MODEL_UNSUPPORTED';
}

/** A model that a candidate cannot run is so at the next start as well; a device or a network may be back. */
function mayPass(error: unknown): boolean {
  return !(error instanceof ModelError || hasCode(error, 'ERR_INLAY_RUN_FAILED'));
}

/** Whether a provider computes on the CPU, by the names that inference libraries give it. */
export function isCpu(provider: string): boolean {
  return provider === 'cpu' || provider === 'wasm' || provider === 'tensorflow';
}

/** What may take over from a GPU, where the host allows both; else nothing. */
export function cpuBehind(device: DevicePreference): 'cpu' | readonly string[] {
  if (typeof device !== 'string') return device.filter(isCpu);
  return device === 'auto' ? 'cpu' : [];
}

/**
 * Runs a session once on example feeds.
 * @param sizes - sizes of symbolic dimensions. Default: 1.
 * @throws what the run throws, unless the feeds had to be guessed and the model may rightly refuse them.
 */
export async function warmUp(session: Session, sizes?: Readonly<Record<string, number>>): Promise<void> {
  const { feeds, guessed } = exampleFeeds(session.signature, sizes);
  try {
    await session.run(feeds);
  } catch (error) {
    if (!guessed || !isCpu(session.provider)) throw error;
  }
}

const REPEATS = 5;

/** Keeps the rival only if it agrees with the present choice and is faster; releases the other one. */
async function keepFaster(
  platform: Platform,
  present: Opened,
  rival: Opened,
  attempts: Attempt[],
): Promise<Opened> {
  const lose = async (loser: Opened, part: Omit<Attempt, 'backend' | 'provider'>): Promise<void> => {
    attempts.push({
      backend: loser.backend,
      provider: loser.session.provider,
      createMs: loser.createMs,
      ...part,
    });
    await loser.session.release();
  };
  const { feeds } = exampleFeeds(present.session.signature);
  const expected = await timeRuns(platform, present.session, feeds).catch(() => undefined);
  const got = expected && (await timeRuns(platform, rival.session, feeds).catch(() => undefined));
  if (expected === undefined || got === undefined) {
    await lose(rival, {
      outcome: 'refused',
      reason: 'it cannot be compared: the model takes no example feeds',
    });
    return present;
  }
  const found = difference(expected.outputs, got.outputs);
  if (found !== undefined) {
    const reason = `its outputs differ from those of ${present.session.provider}: ${found}`;
    await lose(rival, { outcome: 'refused', reason, runMs: got.runMs });
    return present;
  }
  const [winner, loser] = got.runMs < expected.runMs ? [rival, present] : [present, rival];
  const runMs = Math.max(got.runMs, expected.runMs);
  await lose(loser, { outcome: 'slower', runMs, reason: `${winner.session.provider} is faster` });
  return winner;
}

async function timeRuns(
  platform: Platform,
  session: Session,
  feeds: TensorMap,
): Promise<{ readonly outputs: TensorMap; readonly runMs: number }> {
  const outputs = await session.run(feeds);
  const times: number[] = [];
  for (let i = 0; i < REPEATS; i += 1) {
    const started = platform.monotonicMs();
    await session.run(feeds);
    times.push(platform.monotonicMs() - started);
  }
  times.sort((a, b) => a - b);
  return { outputs, runMs: times[REPEATS >> 1] as number };
}

function unavailable(reason: string): BackendError {
  return new BackendError('ERR_INLAY_DEVICE_UNAVAILABLE', reason);
}

type Fits = (provider: ExecutionProvider) => boolean;

/** Words of {@link DevicePreference} that stand for several providers. */
const KINDS: Readonly<Record<string, Fits>> = {
  cpu: ({ device }) => device === 'cpu',
  gpu: ({ device }) => device !== 'cpu',
};

function notOffered(offered: readonly Candidate[]): BackendError {
  const names = [...new Set(offered.map(({ provider }) => provider.name))].join(', ');
  return unavailable(`no installed backend offers it; there is ${names || 'nothing'}`);
}

function noneWorks(
  device: DevicePreference,
  attempts: readonly Attempt[],
  failures: readonly Failure[],
): Error {
  const errors = failures.map(({ error }) => error);
  const missing = errors.filter((error) => hasCode(error, 'ERR_INLAY_BACKEND_MISSING'));
  const [first] = missing;
  if (missing.length > 0 && missing.length === errors.length && first instanceof Error) return first;
  // A model that every candidate understands but cannot run is the model's fault, not the device's.
  const unsupported = errors.find((error) => error instanceof ModelError);
  if (unsupported instanceof ModelError) return unsupported;
  // Every device has a CPU: where that does not work, the library or its worker is at fault.
  const broken = failures.find(
    ({ provider, error }) =>
      (provider === undefined || isCpu(provider)) && hasCode(error, 'ERR_INLAY_BACKEND_UNAVAILABLE'),
  );
  const list = attempts.map(
    ({ backend, provider, reason = '' }) => `${provider ?? backend}: ${reason.replace(/\.$/, '')}`,
  );
  return new BackendError(
    broken === undefined ? 'ERR_INLAY_DEVICE_UNAVAILABLE' : 'ERR_INLAY_BACKEND_UNAVAILABLE',
    `No execution provider works for device ${JSON.stringify(device)}: ${list.join('; ') || 'no backend was given'}.`,
    { details: { attempts }, cause: broken === undefined ? errors[0] : broken.error },
  );
}

function hasCode(error: unknown, code: ErrorCode<'BackendError'>): boolean {
  return isInlayError(error) && error.code === code;
}
