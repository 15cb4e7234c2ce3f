/** Finds out whether a release works on this device before any call depends on it. */
import type { Backend, ModelSource, Session, TensorMap } from '../core/backend.ts';
import { isInlayError } from '../core/errors.ts';
import type { Logger } from '../core/logger.ts';
import type { Platform } from '../core/platform.ts';
import { faultOf, rejected } from '../update/fault.ts';
import { compareGolden } from '../update/golden.ts';
import type { Golden } from '../update/follower.ts';
import { warmUp } from './candidates.ts';

/**
 * Opens a model where it can do no harm, in a child process or a worker of its own, and runs the golden inputs there.
 * Does nothing where there is no such place, or where the CPU cannot run the model at all: then the real place shows.
 * @throws {@link UpdateError} `ERR_INLAY_UPDATE_REJECTED`; {@link BackendError} `ERR_INLAY_WORKER_LOST` when it takes
 * its place along, or hangs there; {@link ModelError} for a file that is no model.
 */
export async function testIsolated(
  { backends, logger }: { readonly backends: readonly Backend[]; readonly logger: Logger },
  source: ModelSource,
  golden: Golden | undefined,
): Promise<void> {
  const place = await findIsolated(backends);
  if (place === undefined) return;
  let session: Session | undefined;
  try {
    session = await place.backend.createSession(source, { provider: place.provider });
    await warmUp(session);
    const { run } = session;
    await testGolden((feeds) => run(feeds), golden);
  } catch (error) {
    if (faultOf(error).reason !== 'open' || isModelFault(error)) throw error;
    logger.debug({ err: error }, 'A release could not be tried out on the CPU; its own device will show.');
  } finally {
    await session?.release().catch(() => {});
  }
}

/** Starts the place where releases are tried, and the one where they run then: both take longer than many downloads. */
export async function startIsolated(backends: readonly Backend[]): Promise<void> {
  await Promise.all([findIsolated(backends), backends[0]?.providers()]);
}

/** The first library that starts in isolation, and its provider for the CPU: what is isolated has no other device. */
async function findIsolated(
  backends: readonly Backend[],
): Promise<{ readonly backend: Backend; readonly provider: string } | undefined> {
  for (const { isolated } of backends) {
    const providers = (await isolated?.providers().catch(() => [])) ?? [];
    const found = providers.find(({ device, refusal }) => device === 'cpu' && refusal === undefined);
    if (isolated !== undefined && found !== undefined) return { backend: isolated, provider: found.name };
  }
  return undefined;
}

/**
 * Runs the golden inputs.
 * @throws {@link UpdateError} `ERR_INLAY_UPDATE_REJECTED` for the first answer that is too far off.
 */
export async function testGolden(
  run: (feeds: TensorMap) => Promise<TensorMap>,
  golden: Golden | undefined,
): Promise<void> {
  for (const [index, { inputs, outputs }] of (golden?.cases ?? []).entries()) {
    const actual = await run(inputs);
    const difference = compareGolden(actual, outputs, (golden as Golden).tolerance);
    if (difference !== undefined) throw rejected('golden', `golden input ${index}: ${difference}`);
  }
}

/** Rejects with `hang` when a task takes longer than it may. What it does afterwards is dropped. */
export async function within<Result>(
  platform: Platform,
  seconds: number,
  task: Promise<Result>,
  drop: (late: Result) => void,
): Promise<Result> {
  let cancel = (): void => {};
  let isOver = false;
  const late = new Promise<never>((_, reject) => {
    cancel = platform.setTimer(() => {
      isOver = true;
      reject(rejected('hang', `it has not answered for the first time within ${seconds} s`));
    }, seconds * 1000);
  });
  task.then(
    (result) => {
      if (isOver) drop(result);
    },
    () => {},
  );
  try {
    return await Promise.race([task, late]);
  } finally {
    cancel();
  }
}

function isModelFault(error: unknown): boolean {
  return isInlayError(error) && error.name === 'ModelError';
}
