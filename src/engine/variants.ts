/** Several precisions of one model, of which the fastest that is correct on this device answers the calls. */
import { assertNotAborted, orAbort, reasonOf } from '../core/abort.ts';
import type { ModelSource, TensorMap } from '../core/backend.ts';
import { fromHex, fromUtf8, toHex, toUtf8 } from '../core/bytes.ts';
import { difference } from '../core/compare.ts';
import {
  DTYPES,
  isDType,
  storageLength,
  type DType,
  type DTypeStorage,
  type TypedArray,
} from '../core/dtype.ts';
import { isInlayError } from '../core/errors.ts';
import type { Platform } from '../core/platform.ts';
import { Tensor } from '../core/tensor.ts';
import type { CallOptions } from '../schedule/job.ts';
import { createMetrics } from '../schedule/metrics.ts';
import { predictionKey } from '../schedule/prediction-key.ts';
import { contentOf, hashOf, openPage } from './page.ts';
import {
  openServing,
  type Degraded,
  type Serving,
  type ServingInfo,
  type ServingOptions,
  type ServingParts,
} from './serving.ts';
import {
  ask,
  bindGolden,
  compareAll,
  locate,
  messageOf,
  type Choice,
  type Golden,
  type Open,
  type OpenVariant,
  type Shared,
  type VariantAttempt,
  type VariantRules,
  type VariantSource,
} from './variants-compare.ts';

/** A model of several variants that answers calls. */
export interface VariantServing extends Serving {
  /** Name of the variant that answers calls now. */
  readonly variant: string;
  info(): ServingInfo & {
    readonly variant: string;
    /** What became of each variant, best first. */
    readonly variants: readonly VariantAttempt[];
  };
}

/**
 * Opens the variant that is fastest on this device among those that are correct.
 *
 * The first variant is the reference: what it answers on the CPU is expected of the others, where golden inputs do not
 * bring outputs of their own. Name the most precise one first; a later one is taken only if it is at least 5 % faster.
 * A variant that does not load, takes or gives something else than the first one that does, fails or answers wrongly is
 * left out with its reason. At most two are open at once.
 *
 * The choice is remembered for these files on this device. A later load opens only the variant that was chosen, checks
 * it with one run, and compares again if that gives anything else than it did.
 *
 * When a call fails that the next best variant can answer, that one takes over, for good.
 *
 * @param options - `signal` gives the load up: it rejects with `signal.reason`, when the step under way has ended.
 * @throws what made the first variant fail, when none remains; {@link InputError} for golden inputs that do not fit;
 * `TypeError` or `RangeError` for rules that are none.
 */
export async function openVariants(
  parts: ServingParts,
  variants: readonly VariantSource[],
  rules: VariantRules,
  { signal, ...options }: ServingOptions & { readonly signal?: AbortSignal | undefined },
): Promise<VariantServing> {
  assertRules(variants, rules);
  assertNotAborted(signal);
  const shared = { parts, variants, rules, options };
  const located = new Map(variants.map((variant) => [variant, locate(variant)]));
  const page = await pageOf(shared, located);
  const open = async (variant: VariantSource): Promise<OpenVariant> =>
    openOne(shared, variant, await located.get(variant));
  const recalled = await recall(shared, page, open);
  const choice = recalled ?? (await compareAll(shared, open, signal));
  if (signal?.aborted) {
    await choice.opened.serving.close().catch(() => {});
    throw reasonOf(signal);
  }
  if (recalled === undefined) remember(shared, page, choice);
  return serve(shared, choice, page);
}

/** Where comparisons of these variants on this device are kept; absent where their files cannot be told apart. */
interface Page {
  read(): Promise<Comparison | undefined>;
  write(comparison: Comparison): void;
  /** Resolves when everything was written. */
  settled(): Promise<void>;
}

async function openOne(
  { parts, options }: Shared,
  variant: VariantSource,
  known?: ModelSource,
): Promise<OpenVariant> {
  // Runs for comparison are no calls of the host.
  const metrics = { ...createMetrics() };
  const serving = await openServing(parts, known ?? (await locate(variant)), { ...options, metrics });
  serving.pin(true);
  return {
    name: variant.name,
    serving,
    enter: (isPinned) => {
      Object.assign(metrics, options.metrics);
      serving.pin(isPinned);
    },
    calls: 0,
  };
}

/** Opens the variant that was chosen last time, if it still gives what it gave. */
async function recall(
  { parts, variants, rules }: Shared,
  page: Page | undefined,
  open: Open,
): Promise<Choice | undefined> {
  const comparison = await page?.read();
  const chosen = variants.find(({ name }) => name === comparison?.attempts[0]?.variant);
  if (comparison === undefined || chosen === undefined) return undefined;
  let opened: OpenVariant | undefined;
  let reason: string | undefined;
  try {
    opened = await open(chosen);
    const goldens = bindGolden(opened.serving.signature, rules.golden);
    if (goldenDigest(parts.platform, goldens) !== comparison.golden) reason = 'the golden inputs are others';
    else if (comparison.outputs !== undefined) {
      const outputs = await ask(opened.serving, (goldens[0] as Golden).feeds);
      reason = difference(comparison.outputs, beginningOf(outputs));
    }
    if (reason === undefined) return { opened, attempts: comparison.attempts, outputs: undefined };
  } catch (error) {
    reason = messageOf(error);
  }
  parts.logger.info({ variant: chosen.name, reason }, 'The variants of a model are compared again.');
  await opened?.serving.close().catch(() => {});
  return undefined;
}

function remember(
  { parts, rules }: Shared,
  page: Page | undefined,
  { opened, attempts, outputs }: Choice,
): void {
  const goldens = bindGolden(opened.serving.signature, rules.golden);
  page?.write({
    golden: goldenDigest(parts.platform, goldens),
    attempts,
    outputs: outputs && beginningOf(outputs),
  });
}

/** Lets the chosen variant answer, and the next best one when it turns out that it cannot. */
function serve(shared: Shared, choice: Choice, page: Page | undefined): VariantServing {
  const { parts, variants, rules, options } = shared;
  const { platform, logger } = parts;
  const { signature } = choice.opened.serving;
  let active = choice.opened;
  let { attempts } = choice;
  let isPinned = false;
  let tellDegraded: ((degraded: Degraded) => void) | undefined;
  let failures = 0;
  let replacing: Promise<void> | undefined;
  let closed: Promise<void> | undefined;
  const retired = new Map<OpenVariant, Promise<void>>();
  active.enter(isPinned);

  const retire = (used: OpenVariant): void => {
    if (used.calls > 0 || retired.has(used)) return;
    const gone = used.serving.close().catch((error: unknown) => {
      logger.warn({ err: error, variant: used.name }, 'A variant of a model could not be released.');
    });
    retired.set(used, gone);
  };
  const leave = (used: OpenVariant): void => {
    used.calls -= 1;
    if (used !== active) retire(used);
  };

  const takeOver = async (next: OpenVariant, feeds: TensorMap, error: Error): Promise<void> => {
    await ask(next.serving, feeds);
    const golden = bindGolden(next.serving.signature, rules.golden)[0] as Golden;
    const outputs = await ask(next.serving, golden.feeds).catch(() => undefined);
    const [failed, ...others] = attempts as readonly [VariantAttempt, ...VariantAttempt[]];
    const own = others.find(({ variant }) => variant === next.name) as VariantAttempt;
    attempts = [
      { ...own, outcome: 'chosen', reason: `it is the next best, and ${failed.variant} failed in use` },
      ...others.filter((other) => other !== own),
      { ...failed, outcome: 'refused', reason: `it failed in use: ${error.message}` },
    ];
    remember(shared, page, { opened: next, attempts, outputs });
    // What failed before says nothing about this one.
    failures = 0;
    logger.warn(
      { err: error, from: active.name, to: next.name },
      'A variant of a model failed; another one took over.',
    );
    const old = active;
    active = next;
    if (tellDegraded !== undefined) active.serving.onDegraded(tellDegraded);
    next.enter(isPinned);
    retire(old);
  };

  /** Opens the next best variant that opens, and lets it take over if it can answer what the present one cannot. */
  const replace = async (feeds: TensorMap, error: Error): Promise<void> => {
    for (const { variant, outcome } of attempts) {
      const source = variants.find(({ name }) => name === variant);
      const next =
        outcome === 'slower' && source ? await openOne(shared, source).catch(() => undefined) : undefined;
      if (next === undefined) continue;
      await takeOver(next, feeds, error).catch(() => next.serving.close());
      return;
    }
  };

  const recover = async (
    used: OpenVariant,
    feeds: TensorMap,
    call: CallOptions,
    error: unknown,
    startedMs: number,
  ): Promise<TensorMap> => {
    const isItsOwn = isInlayError(error) && error.code === 'ERR_INLAY_RUN_FAILED';
    if (!isItsOwn || call.transfer) throw error;
    if (used === active) {
      failures += 1;
      // Feeds that no variant takes must not open another one each time.
      if (replacing === undefined && !Number.isInteger(Math.log2(failures))) throw error;
      replacing ??= replace(feeds, error)
        .catch(() => {})
        .finally(() => {
          replacing = undefined;
        });
      await (call.signal === undefined ? replacing : orAbort(replacing, call.signal));
      if (used === active) throw error;
    }
    const { deadlineMs } = call;
    if (deadlineMs === undefined) return run(feeds, call);
    return run(feeds, { ...call, deadlineMs: deadlineMs - (platform.monotonicMs() - startedMs) });
  };

  const run = (feeds: TensorMap, call: CallOptions): Promise<TensorMap> => {
    const used = active;
    const startedMs = call.deadlineMs === undefined ? 0 : platform.monotonicMs();
    used.calls += 1;
    return used.serving
      .run(feeds, call, () => {})
      .then(
        (outputs) => {
          leave(used);
          return outputs;
        },
        (error: unknown) => {
          leave(used);
          return recover(used, feeds, call, error, startedMs);
        },
      );
  };

  return {
    version: options.version,
    signature,
    get variant() {
      return active.name;
    },
    run: (feeds, call, onSettled) => run(feeds, call).finally(onSettled),
    onDegraded: (listener) => {
      tellDegraded = listener;
      active.serving.onDegraded(listener);
    },
    pin: (pinned) => {
      isPinned = pinned;
      active.serving.pin(pinned);
    },
    costs: () => active.serving.costs(),
    info: () => ({ ...active.serving.info(), variant: active.name, variants: attempts }),
    close: () =>
      (closed ??= (async () => {
        await replacing;
        await Promise.all([active.serving.close(), ...retired.values()]);
        await page?.settled();
      })()),
  };
}

/** The page is named by all that decides a comparison, but for the golden inputs: those need a signature to be read. */
async function pageOf(
  { parts, variants, rules, options }: Shared,
  located: ReadonlyMap<VariantSource, Promise<ModelSource>>,
): Promise<Page | undefined> {
  const { platform } = parts;
  const digests = await Promise.all(
    variants.map(async (variant) => contentOf(platform, (await located.get(variant)) as ModelSource)),
  ).catch(() => undefined);
  if (digests === undefined) return undefined;
  const names = variants.map(({ name }) => name);
  const { device, placement, intraOpThreads, maxBatch, tolerance } = options;
  const page = openPage(parts, 'variant', [
    [names, digests, rules.tolerance, rules.tolerances],
    [platform.runtime, platform.hardware, parts.backends.map(({ name }) => name)],
    [device, placement, intraOpThreads, maxBatch, tolerance],
  ]);
  return {
    read: async () => {
      const text = await page.read();
      return text && parseComparison(text, names);
    },
    write: (comparison) => {
      page.write(encodeComparison(comparison));
    },
    settled: page.settled,
  };
}

function assertRules(
  variants: readonly VariantSource[],
  { golden = [], tolerance, tolerances = {} }: VariantRules,
): void {
  if (variants.length === 0)
    throw new TypeError("`variants` names at least one model, such as { fp32: 'a.onnx' }.");
  const unknown = Object.keys(tolerances).find((name) => variants.every((variant) => variant.name !== name));
  if (unknown !== undefined) throw new RangeError(`\`tolerances\` names "${unknown}", which is no variant.`);
  const all = [tolerance, ...Object.values(tolerances), ...golden.map((input) => input.tolerance)];
  for (const { relative = 0, agreement = 0 } of all.map((given) => given ?? {})) {
    if (!(relative >= 0)) throw new RangeError(`relative is a number of at least 0, got ${relative}.`);
    if (!(agreement >= 0 && agreement <= 1))
      throw new RangeError(`agreement is a number from 0 to 1, got ${agreement}.`);
  }
}

/** What is remembered of a comparison. */
interface Comparison {
  /** Digest of the golden inputs. */
  readonly golden: string;
  /** Best first. */
  readonly attempts: readonly VariantAttempt[];
  /**
   * The beginning of each output that the chosen variant gave for the first golden input; absent where it takes none
   * that is made up.
   */
  readonly outputs?: TensorMap | undefined;
}

/** Names golden inputs by their content. */
function goldenDigest(platform: Platform, goldens: readonly Golden[]): string {
  const key = (tensors: TensorMap): string => predictionKey(platform.createSha256(), 0, tensors);
  const parts = goldens.map(({ feeds, outputs, tolerance }) => [
    key(feeds),
    outputs && key(outputs),
    tolerance,
  ]);
  return hashOf(platform, JSON.stringify(parts));
}

/** Elements of each output that are remembered. */
const KEPT = 256;

/** The beginning of each output. */
function beginningOf(outputs: TensorMap): TensorMap {
  return Object.fromEntries(
    Object.entries(outputs).map(([name, { dtype, size, data }]) => {
      const kept = Math.min(size, KEPT);
      const part = (data as Float32Array).slice(0, storageLength(dtype, kept));
      return [name, new Tensor(dtype, [kept], part as DTypeStorage[DType])];
    }),
  );
}

const FORMAT = 1;

/** Writes a comparison down. */
function encodeComparison({ golden, attempts, outputs }: Comparison): Uint8Array<ArrayBuffer> {
  const written =
    outputs &&
    Object.entries(outputs).map(([name, { dtype, shape, data }]) => [
      name,
      dtype,
      shape[0],
      ArrayBuffer.isView(data) ? toHex(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)) : data,
    ]);
  return toUtf8(JSON.stringify({ format: FORMAT, golden, attempts, outputs: written }));
}

/**
 * Reads a comparison of these variants.
 * @returns `undefined` for whatever does not look right: it can be made again.
 */
function parseComparison(text: Uint8Array, variants: readonly string[]): Comparison | undefined {
  try {
    const { format, golden, attempts, outputs } = JSON.parse(fromUtf8(text)) as {
      format: unknown;
      golden: unknown;
      attempts: VariantAttempt[];
      outputs?: [string, string, number, string | string[]][];
    };
    if (format !== FORMAT || typeof golden !== 'string' || !areAttempts(attempts, variants)) return undefined;
    return { golden, attempts, ...(outputs && { outputs: Object.fromEntries(outputs.map(parseOutput)) }) };
  } catch {
    return undefined;
  }
}

function parseOutput([name, dtype, size, content]: [string, string, number, string | string[]]): [
  string,
  Tensor,
] {
  if (!isDType(dtype)) throw new RangeError(`There is no dtype ${dtype}.`);
  if (typeof content !== 'string') return [name, new Tensor(dtype, [size], content)];
  const Storage = DTYPES[dtype].storage as new (buffer: ArrayBuffer) => TypedArray;
  return [name, new Tensor(dtype, [size], new Storage(fromHex(content).buffer) as DTypeStorage[DType])];
}

function areAttempts(attempts: readonly VariantAttempt[], variants: readonly string[]): boolean {
  const isFigure = (value: unknown): boolean =>
    value === undefined || (typeof value === 'number' && Number.isFinite(value) && value >= 0);
  return (
    attempts.length === variants.length &&
    variants.every((name) => attempts.some(({ variant }) => variant === name)) &&
    attempts.every(
      ({ outcome, reason, runMs, batchedMs, difference: error }, at) =>
        (outcome === 'chosen' ? at === 0 : at > 0 && (outcome === 'slower' || outcome === 'refused')) &&
        typeof reason === 'string' &&
        [runMs, batchedMs, error].every(isFigure),
    )
  );
}
