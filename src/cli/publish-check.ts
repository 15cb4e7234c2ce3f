/** Golden inputs from files and from thin air, and the trial that a model has to pass before it is published. */

import { readFile } from 'node:fs/promises';
import { basename, extname } from 'node:path';
import type { Backend, TensorMap } from '../core/backend.ts';
import { BackendError, InputError, isInlayError } from '../core/errors.ts';
import { named, type Signature } from '../core/signature.ts';
import { tensorFrom, type NestedArray } from '../core/tensor.ts';
import { exampleFeeds, randomFeeds } from '../engine/example-feeds.ts';
import { createFeedBinder } from '../engine/feeds.ts';
import {
  assertGoldenSize,
  checkModel,
  goldenSizeOf,
  type CheckedFile,
  type CheckResult,
  type GoldenInputs,
  type GoldenSource,
} from '../publish/check-model.ts';
import type { ReleaseContent } from '../publish/publisher.ts';
import { isFields } from '../trust/parse.ts';
import { goldenLimits, writeGolden } from '../update/golden.ts';
import type { GoldenTolerance } from '../update/manifest.ts';
import { bindColumns } from './data/columns.ts';
import { isDataPath, openDataFile } from './data/open-file.ts';
import { openCheckBackend } from './publish-backend.ts';

/** What {@link checkRelease} is asked for. */
export interface CheckRequest {
  /** The reference first. */
  readonly files: readonly [CheckedFile, ...CheckedFile[]];
  /** `auto`, `none`, or an absolute path. */
  readonly golden: string;
  readonly tolerance: GoldenTolerance | undefined;
  readonly timeoutMs: number;
}

/** What was found, and what goes into the release. */
export interface CheckedRelease {
  /** Absent if nobody has tried it out. */
  readonly signature?: Signature;
  readonly golden: ReleaseContent['golden'];
  readonly differences: CheckResult['differences'];
  readonly tolerances: CheckResult['tolerances'];
  readonly notices: readonly string[];
}

/** Inputs that are made up: enough to tell a broken model, little to download. */
const madeUpCases = 2;
/** Bytes of inputs above which one of them has to do. */
const largeCaseBytes = 262_144;

/**
 * Tries a release out in a child process.
 * @throws {@link ModelError} with the reason for which it cannot be published, {@link InputError} for golden inputs
 * that do not fit, {@link BackendError} if onnxruntime-node is not there.
 */
export async function checkRelease(request: CheckRequest): Promise<CheckedRelease> {
  const { files, golden, tolerance, timeoutMs } = request;
  return withCheckBackend(timeoutMs, async (backend) => {
    const isMadeUp = golden === 'auto';
    const result = await checkModel({
      backend,
      files,
      tolerance,
      ...(golden !== 'none' && {
        golden: (signature: Signature) => (isMadeUp ? makeUp(signature) : readInputs(golden, signature)),
      }),
    });
    const { signature, differences, tolerances, notices } = result;
    const found = { signature, differences, tolerances, notices };
    if (result.golden === undefined) return { ...found, golden: undefined };
    const { cases, tolerance: allowed } = result.golden;
    const size = cases.reduce(
      (sum, { inputs, outputs }) => sum + goldenSizeOf(inputs) + goldenSizeOf(outputs),
      0,
    );
    if (isMadeUp && size > goldenLimits.bytes) {
      const tooLarge = `Golden inputs that are made up take ${size} bytes and are left out; give smaller ones with --golden FILE.`;
      return { ...found, golden: undefined, notices: [...notices, tooLarge] };
    }
    assertGoldenSize(size);
    const bytes = writeGolden(cases);
    return { ...found, golden: { bytes, tolerance: allowed, isMadeUp } };
  });
}

/**
 * Lends the backend in which models are tried out.
 * @throws {@link BackendError} `ERR_INLAY_BACKEND_MISSING` without onnxruntime-node, and what the task throws.
 */
export async function withCheckBackend<Result>(
  timeoutMs: number,
  task: (backend: Backend) => Promise<Result>,
): Promise<Result> {
  const backend = openCheckBackend(timeoutMs);
  try {
    return await task(backend);
  } catch (error) {
    if (!isInlayError(error) || error.code !== 'ERR_INLAY_BACKEND_MISSING') throw error;
    throw new BackendError(
      'ERR_INLAY_BACKEND_MISSING',
      'The model cannot be tried out, since onnxruntime-node is not installed; run "npm install onnxruntime-node", ' +
        'or publish what nobody has checked with --no-check.',
      { cause: error },
    );
  } finally {
    await backend.close();
  }
}

function makeUp(signature: Signature): GoldenSource {
  const { feeds, guessed } = exampleFeeds(signature);
  const count = goldenSizeOf(feeds) > largeCaseBytes ? 1 : madeUpCases;
  const cases = Array.from({ length: count }, (_, at) => ({ inputs: randomFeeds(signature, at + 1) }));
  return { cases, isGuess: guessed };
}

async function readInputs(path: string, signature: Signature): Promise<GoldenSource> {
  const cases: GoldenInputs[] = [];
  let sizeBytes = 0;
  for await (const { place, make } of isDataPath(path) ? rowsOf(path, signature) : casesOf(path, signature)) {
    if (cases.length === goldenLimits.cases) throw tooMany(path);
    const golden = atPlace(`${basename(path)}, ${place}`, make);
    sizeBytes += goldenSizeOf(golden.inputs);
    assertGoldenSize(sizeBytes);
    cases.push(golden);
  }
  if (cases.length > 0) return { cases, isGuess: false };
  throw new InputError(
    'ERR_INLAY_FEED_MISSING',
    `${basename(path)} holds no golden inputs; give at least one.`,
  );
}

/** One golden input of a file. */
interface GivenInput {
  /** Where it stands, for messages. */
  readonly place: string;
  /** @throws {@link InputError} if it does not fit the model. */
  readonly make: () => GoldenInputs;
}

/** Reads the rows of a data file, as `inlay run` does. */
async function* rowsOf(path: string, signature: Signature): AsyncIterable<GivenInput> {
  const file = await openDataFile(path);
  try {
    const binding = bindColumns(signature, file, []);
    const bind = createFeedBinder(signature);
    for await (const { place, cells, error } of file.rows(binding.columns, 0)) {
      if (error) throw error;
      yield { place, make: () => ({ inputs: bind(binding.toFeeds(cells).feeds) }) };
    }
  } finally {
    await file.close();
  }
}

/** Reads a list of `{ "inputs", "outputs"? }`, with arrays nested by shape. */
async function* casesOf(path: string, signature: Signature): AsyncIterable<GivenInput> {
  if (extname(path).toLowerCase() !== '.json') {
    throw new RangeError(`${path} is no .npz, .npy, .jsonl, .csv or .json file; --golden takes one of them.`);
  }
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw new InputError(
      'ERR_INLAY_FEED_MISSING',
      `The golden file ${path} cannot be read; check the path.`,
      {
        cause,
      },
    );
  });
  // Digits take more room than what they stand for.
  assertGoldenSize(Math.ceil(bytes.length / 8));
  let list: unknown;
  try {
    list = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    throw new InputError('ERR_INLAY_FEED_VALUE', `The golden file ${path} is not JSON; export it anew.`, {
      cause,
    });
  }
  if (!Array.isArray(list) || !list.every((one) => isFields(one) && isFields(one['inputs']))) {
    throw new InputError(
      'ERR_INLAY_FEED_VALUE',
      `The golden file ${path} is not a list like [{ "inputs": { "x": [1, 2] }, "outputs": { "y": [3] } }]; write it so.`,
    );
  }
  const bind = createFeedBinder(signature);
  for (const [at, { inputs, outputs }] of (list as readonly GivenJson[]).entries()) {
    yield {
      place: `input ${at + 1}`,
      make: () => ({
        inputs: bind(inputs),
        ...(outputs !== undefined && { outputs: bindOutputs(signature, outputs) }),
      }),
    };
  }
}

interface GivenJson {
  readonly inputs: Readonly<Record<string, NestedArray>>;
  readonly outputs?: Readonly<Record<string, NestedArray>>;
}

function bindOutputs({ outputs }: Signature, given: Readonly<Record<string, NestedArray>>): TensorMap {
  return Object.fromEntries(
    Object.entries(given).map(([name, nested]) => {
      const spec = outputs.find((output) => output.name === name);
      if (spec) return [name, named(spec, () => tensorFrom(spec.dtype, nested))];
      throw new InputError(
        'ERR_INLAY_OUTPUT_UNKNOWN',
        `The output "${name}" is expected, which the model does not have.`,
      );
    }),
  );
}

/** Says where a value stands that does not fit the model. */
export function atPlace<Value>(place: string, make: () => Value): Value {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw new InputError(error.code, `${place}, does not fit the model: ${error.message}`, {
      cause: error,
      details: error.details,
    });
  }
}

function tooMany(path: string): InputError {
  return new InputError(
    'ERR_INLAY_FEED_VALUE',
    `${basename(path)} holds more than ${goldenLimits.cases} golden inputs; choose a few, since every device runs them.`,
  );
}
