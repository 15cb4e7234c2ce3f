/** Tries a release out before it is signed: it loads, it runs, and its variants give the same answers. */

import type { Backend, Session, TensorMap } from '../core/backend.ts';
import { InputError, isInlayError, ModelError } from '../core/errors.ts';
import { formatSpec, type Signature, type TensorSpec } from '../core/signature.ts';
import { hasNonFinite } from '../update/guards-outputs.ts';
import { compareGolden, goldenLimits, type GoldenCase } from '../update/golden.ts';
import type { GoldenTolerance } from '../update/manifest.ts';
import { deviationOf, format, type Deviation } from './golden.ts';

/** A file that is tried out. */
export interface CheckedFile {
  readonly variant: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Inputs, and what they must give where that is known. */
export interface GoldenInputs {
  readonly inputs: TensorMap;
  readonly outputs?: TensorMap;
}

/** Golden inputs for one model. */
export interface GoldenSource {
  readonly cases: readonly GoldenInputs[];
  /**
   * Sizes had to be guessed, so that the model may rightly refuse the inputs. Given inputs are no guess.
   */
  readonly isGuess: boolean;
}

/** What {@link checkModel} works with. */
export interface CheckOptions {
  /** Where the files are opened: a place that they may crash. */
  readonly backend: Backend;
  /** The reference first. */
  readonly files: readonly [CheckedFile, ...CheckedFile[]];
  /** Makes inputs that fit the signature, or rejects. Absent: files are loaded, but not run. */
  readonly golden?: ((signature: Signature) => GoldenSource | Promise<GoldenSource>) | undefined;
  /** How far answers may lie from the expected ones. Default: by precision; see {@link defaultTolerance}. */
  readonly tolerance?: GoldenTolerance | undefined;
}

/** What was found. */
export interface CheckResult {
  readonly signature: Signature;
  /** Absent where nothing was run, or where answers do not repeat. `tolerance` is one that every file holds. */
  readonly golden?: { readonly cases: readonly GoldenCase[]; readonly tolerance: GoldenTolerance };
  /** How far the answers of each file may lie from the golden ones, by variant, where they are not all alike. */
  readonly tolerances: Readonly<Record<string, GoldenTolerance>>;
  /** Largest relative error of each variant against the reference, a ratio. */
  readonly differences: Readonly<Record<string, number>>;
  /** What the publisher should know, in words. */
  readonly notices: readonly string[];
}

/** Largest error of another precision, as a ratio of the vector of an output. 8-bit weights cost 0.01 to 0.03. */
const variantError = 0.05;

/**
 * How far the reference may lie from its golden outputs on other devices, whose kernels add in another order.
 * @param variant what the reference is called.
 */
export function defaultTolerance(variant: string): GoldenTolerance {
  if (variant === 'fp32') return { absoluteE6: 100, relativeE6: 1_000 };
  if (variant === 'fp16') return { absoluteE6: 5_000, relativeE6: 10_000 };
  return { absoluteE6: 10_000, relativeE6: 50_000 };
}

/**
 * Opens every file, runs golden inputs twice on the reference to get golden outputs, and compares the variants.
 *
 * A variant has to answer within the tolerance that is given. Without one, the vector of each output may be off by 5 %,
 * and the tolerance that devices get for it is twice what was measured.
 *
 * @throws {@link ModelError} `ERR_INLAY_MODEL_INVALID` or `ERR_INLAY_MODEL_UNSUPPORTED` with the reason for which the
 * release cannot be published; {@link InputError} for golden inputs that do not fit; {@link BackendError} if there is
 * nothing to check with.
 */
export async function checkModel(options: CheckOptions): Promise<CheckResult> {
  const { backend, files, golden } = options;
  const [reference, ...others] = files;
  const notices: string[] = [];
  const differences: Record<string, number> = {};
  const { signature, cases, tolerance } = await withSession(backend, reference, async (session) => ({
    signature: session.signature,
    ...(await referenceAnswers(session, reference, options, notices)),
  }));
  let allowed = tolerance;
  const tolerances: Record<string, GoldenTolerance> = {};
  for (const file of others) {
    await withSession(backend, file, async (session) => {
      const difference = signatureDifference(signature, session.signature);
      if (difference !== undefined) throw refusal(file, difference);
      for (const { inputs, outputs } of cases) {
        const actual = await session.run(inputs).catch((error: unknown) => {
          throw refusal(file, `it does not run: ${messageOf(error)}`, error);
        });
        const deviation = deviationOf(outputs, actual);
        const reason = options.tolerance
          ? compareGolden(actual, outputs, options.tolerance)
          : refuseVariant(deviation);
        if (reason !== undefined)
          throw refusal(file, `its answer is not that of ${reference.variant}: ${reason}`);
        differences[file.variant] = Math.max(differences[file.variant] ?? 0, deviation.relative);
        if (options.tolerance === undefined) {
          tolerances[file.variant] = widen(tolerances[file.variant] ?? tolerance, deviation);
          allowed = widen(allowed, deviation);
        }
      }
    });
  }
  if (golden !== undefined && cases.length === 0 && others.length > 0) {
    notices.push('The variants were not compared with each other, since there are no golden outputs.');
  }
  if (Object.keys(tolerances).length > 0) tolerances[reference.variant] = tolerance;
  const result = { signature, differences, notices, tolerances };
  return cases.length === 0 ? result : { ...result, golden: { cases, tolerance: allowed } };
}

/** Runs the golden inputs on the reference, twice. */
async function referenceAnswers(
  session: Session,
  file: CheckedFile,
  { golden, tolerance = defaultTolerance(file.variant) }: CheckOptions,
  notices: string[],
): Promise<{ readonly cases: readonly GoldenCase[]; readonly tolerance: GoldenTolerance }> {
  const none = { cases: [], tolerance };
  if (golden === undefined) return none;
  const { cases, isGuess } = await golden(session.signature);
  const answered: GoldenCase[] = [];
  for (const [at, { inputs, outputs: expected }] of cases.entries()) {
    let outputs: TensorMap;
    try {
      outputs = await session.run(inputs);
    } catch (error) {
      if (isGuess && isInlayError(error) && error.code === 'ERR_INLAY_RUN_FAILED') {
        notices.push(
          `The model does not take inputs that are made up (${error.message}) It was loaded, but not run; ` +
            'give inputs with --golden FILE.',
        );
        return none;
      }
      throw refusal(file, `it does not run: ${messageOf(error)}`, error);
    }
    // Devices reject a release for this, unless it has been said that it is right.
    if (expected === undefined && hasNonFinite(outputs)) {
      throw refusal(
        file,
        `its answer to golden input ${at + 1} has values that are no finite numbers; give inputs that it is made for with --golden FILE`,
      );
    }
    const again = compareGolden(await session.run(inputs), outputs, tolerance);
    if (again !== undefined) {
      notices.push(
        `The model does not give the same answer twice (${again}), so that its answers cannot be checked on devices.`,
      );
      return none;
    }
    if (expected !== undefined) {
      const reason = compareGolden(outputs, expected, tolerance);
      if (reason !== undefined)
        throw refusal(file, `golden input ${at + 1} is not answered as expected: ${reason}`);
    }
    answered.push({ inputs, outputs: expected ?? outputs });
  }
  return { cases: answered, tolerance };
}

function refuseVariant({ mismatch, relative, output }: Deviation): string | undefined {
  if (mismatch !== undefined || relative <= variantError) return mismatch;
  return (
    `output "${output}" is off by ${format(100 * relative)} %, allowed are ${format(100 * variantError)} %; ` +
    'allow more with --tolerance ABSOLUTE,RELATIVE'
  );
}

/** Lets pass twice what was measured: other devices have other kernels. */
function widen(tolerance: GoldenTolerance, { absoluteBeside }: Deviation): GoldenTolerance {
  const { absoluteE6, relativeE6 } = tolerance;
  if (2e6 * absoluteBeside(relativeE6 / 2e6) <= absoluteE6) return tolerance;
  return {
    absoluteE6: Math.max(absoluteE6, Math.ceil(2e6 * absoluteBeside(variantError / 2))),
    relativeE6: Math.max(relativeE6, 1e6 * variantError),
  };
}

async function withSession<Result>(
  backend: Backend,
  file: CheckedFile,
  use: (session: Session) => Promise<Result>,
): Promise<Result> {
  const opened = await backend
    .createSession({ bytes: file.bytes }, { provider: 'cpu' })
    .catch((error: unknown) => {
      const isOfLibrary =
        isInlayError(error) &&
        (error.code === 'ERR_INLAY_BACKEND_MISSING' || error.code === 'ERR_INLAY_BACKEND_UNAVAILABLE');
      throw isOfLibrary ? error : refusal(file, `it does not load: ${messageOf(error)}`, error);
    });
  try {
    return await use(opened);
  } finally {
    // Why it does not run is worth more than why it cannot be released.
    await opened.release().catch(() => {});
  }
}

/** Why code that is made for one model cannot use another; `undefined` if it can. */
function signatureDifference(first: Signature, other: Signature): string | undefined {
  for (const kind of ['inputs', 'outputs'] as const) {
    const what = kind.slice(0, -1);
    const left = first[kind].find(({ name }) => other[kind].every((spec) => spec.name !== name));
    if (left !== undefined) return `it lacks the ${what} ${formatSpec(left)}`;
    for (const spec of other[kind]) {
      const before = first[kind].find(({ name }) => name === spec.name);
      if (before === undefined) return `it has the ${what} ${formatSpec(spec)}, which the reference has not`;
      if (!isSameSpec(before, spec)) return `its ${what} is ${formatSpec(spec)}, not ${formatSpec(before)}`;
    }
  }
  return undefined;
}

function isSameSpec(a: TensorSpec, b: TensorSpec): boolean {
  if (a.dtype !== b.dtype) return false;
  // A shape that a model does not tell promises nothing.
  if (a.shape === null || b.shape === null) return true;
  return (
    a.shape.length === b.shape.length &&
    a.shape.every((size, axis) => {
      const other = b.shape?.[axis];
      return typeof size !== 'number' || typeof other !== 'number' || size === other;
    })
  );
}

function refusal({ variant }: CheckedFile, reason: string, cause?: unknown): ModelError {
  const isInvalid =
    isInlayError(cause) &&
    (cause.code === 'ERR_INLAY_MODEL_INVALID' || cause.code === 'ERR_INLAY_MODEL_TRUNCATED');
  const text = reason.endsWith('.') ? reason : `${reason}.`;
  return new ModelError(
    isInvalid ? 'ERR_INLAY_MODEL_INVALID' : 'ERR_INLAY_MODEL_UNSUPPORTED',
    `The model (${variant}) is not published: ${text}`,
    { details: { variant }, ...(cause !== undefined && { cause }) },
  );
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** About how many bytes tensors take in a golden file: in base64, with their names. */
export function goldenSizeOf(tensors: TensorMap): number {
  return Object.values(tensors).reduce((sum, { sizeBytes }) => sum + Math.ceil(sizeBytes / 3) * 4 + 256, 256);
}

/**
 * Checks that golden inputs and outputs are not too large to be sent to every device.
 * @throws {@link InputError} `ERR_INLAY_FEED_VALUE`
 */
export function assertGoldenSize(sizeBytes: number): void {
  if (sizeBytes <= goldenLimits.bytes) return;
  throw new InputError(
    'ERR_INLAY_FEED_VALUE',
    `The golden inputs and outputs take ${sizeBytes} bytes, at most ${goldenLimits.bytes} are sent to every device; give fewer, or smaller ones.`,
    { details: { sizeBytes } },
  );
}
