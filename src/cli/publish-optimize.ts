/** Variants of a release that are faster on the targets that it is for. */

import type { TensorMap } from '../core/backend.ts';
import { isInlayError } from '../core/errors.ts';
import { encodeModel, parseModel } from '../onnx/model.ts';
import { openTarget } from '../optimize-node/target.ts';
import { variantOfTechnique } from '../optimize/candidates.ts';
import { speedupOf } from '../optimize/choose.ts';
import type { Decision } from '../optimize/decision.ts';
import { optimizeModel } from '../optimize/optimize.ts';
import type { OptimizeRuntime, TargetName } from '../optimize/runtime.ts';
import type { ReleaseVariant } from '../publish/publisher.ts';
import type { ReleaseFile } from '../update/manifest.ts';
import { readSamples } from './optimize-inputs.ts';
import type { CheckedRelease, CheckRequest } from './publish-check.ts';

/** What {@link optimizeVariants} works with. */
export interface OptimizeRequest {
  readonly file: ReleaseVariant;
  /** Names that variants have already. */
  readonly taken: readonly string[];
  readonly targets: readonly TargetName[];
  /** Absolute path of a data file. Default: inputs are made up. */
  readonly data: string | undefined;
  readonly tell: (text: string) => void;
  /** Opens a target. Default: that of this machine. */
  readonly open?: (target: TargetName) => Promise<OptimizeRuntime>;
}

/** Variants that won, and what is known of all. */
export interface OptimizedVariants {
  readonly variants: readonly ReleaseVariant[];
  readonly notices: readonly string[];
  readonly facts: readonly { readonly target: TargetName; readonly decision: Decision }[];
}

/** What a device must have for what was measured on a target. */
const needs: Readonly<Record<TargetName, NonNullable<ReleaseFile['requires']>>> = {
  'node-cpu': { providers: ['cpu'], features: ['native'] },
  wasm: { providers: ['wasm'] },
  webgpu: { providers: ['webgpu'] },
};

/** Rows of a call in production: one, and what batching joins. */
const batches: readonly number[] = [1, 8];
const mostSamples = 256;

/**
 * Makes the fastest model for each target and keeps those that beat the reference there.
 * @throws {@link InputError} for data that does not fit the model; {@link BackendError} for a target that is not here.
 */
export async function optimizeVariants({
  file,
  taken,
  targets,
  data,
  tell,
  open = openTarget,
}: OptimizeRequest): Promise<OptimizedVariants> {
  const model = parseModel(file.bytes);
  const variants: ReleaseVariant[] = [];
  const notices: string[] = [];
  const facts: OptimizedVariants['facts'][number][] = [];
  const names = new Set([file.variant, ...taken]);
  for (const target of targets) {
    const runtime = await open(target);
    try {
      const samples = data === undefined ? undefined : await readHalves(runtime, file.bytes, data);
      const {
        decision,
        isChanged,
        model: made,
      } = await optimizeModel(model, {
        runtime,
        monotonicMs: () => performance.now(),
        batches,
        ...(samples && { samples: samples.judging, calibration: { data: samples.calibrating } }),
        onProgress: ({ step, candidate }) => {
          tell(`${target}  ${candidate === undefined ? step : `${step}: ${candidate}`}`);
        },
      });
      facts.push({ target, decision });
      const chosen = decision.attempts.find(({ outcome }) => outcome === 'chosen');
      if (!isChanged || chosen?.technique === undefined) {
        notices.push(`For ${target} the reference is kept: ${decision.reason}.`);
        continue;
      }
      const variant = freeName(variantOfTechnique(chosen.technique), target, names);
      names.add(variant);
      const speed = Number((speedupOf(chosen) ?? 1).toPrecision(3));
      notices.push(`${variant} is for ${target}: ${chosen.name}, ${speed} times as fast there.`);
      if (decision.samples.isMadeUp) notices.push(...decision.warnings);
      variants.push({
        variant,
        file: `${variant}-${file.file}`,
        bytes: encodeModel(made),
        requires: needs[target],
      });
    } finally {
      await runtime.close();
    }
  }
  return { variants, notices: [...new Set(notices)], facts };
}

/**
 * Tries a release out; a variant that was made here and does not pass is left out of it.
 * @param check - tries it out as it is.
 * @throws what it throws for the reference and for variants that were given.
 */
export async function checkOptimized(
  check: (request: CheckRequest) => Promise<CheckedRelease>,
  made: readonly ReleaseVariant[],
  request: CheckRequest,
): Promise<CheckedRelease & { readonly dropped: readonly string[] }> {
  const dropped: string[] = [];
  const notices: string[] = [];
  const [reference, ...others] = request.files;
  for (;;) {
    const left = others.filter(({ variant }) => !dropped.includes(variant));
    try {
      const checked = await check({ ...request, files: [reference, ...left] });
      return { ...checked, dropped, notices: [...notices, ...checked.notices] };
    } catch (error) {
      const variant = isInlayError(error) ? error.details['variant'] : undefined;
      const isMade = made.some((one) => one.variant === variant) && !dropped.includes(String(variant));
      if (!isMade) throw error;
      dropped.push(String(variant));
      notices.push(`${String(variant)} is left out: ${(error as Error).message}`);
    }
  }
}

/** Reads samples: every other one calibrates, the others judge, so that nothing is judged by what it was made of. */
async function readHalves(
  runtime: OptimizeRuntime,
  bytes: Uint8Array,
  data: string,
): Promise<{ readonly calibrating: readonly TensorMap[]; readonly judging: readonly TensorMap[] }> {
  const session = await runtime.open(bytes);
  const signature = { inputs: session.inputs, outputs: session.outputs };
  await session.release();
  const all = await readSamples(data, signature, { limit: mostSamples });
  if (all.length === 1) return { calibrating: all, judging: all };
  const half = (odd: number): readonly TensorMap[] => all.filter((_, i) => i % 2 === odd);
  return { calibrating: half(1), judging: half(0) };
}

function freeName(name: string, target: TargetName, names: ReadonlySet<string>): string {
  if (!names.has(name)) return name;
  const own = `${name}-${target === 'node-cpu' ? 'cpu' : target}`;
  let free = own;
  for (let i = 2; names.has(free); i += 1) free = `${own}-${i}`;
  return free;
}
