/** What is worth trying on a model for a target, best guess first. Measurement decides. */

import type { ModelProto } from '../onnx/messages.ts';
import { intOf, isStandardOp, openBody, openScope, type Scope } from '../onnx/scope.ts';
import { bodiesOf } from '../onnx/walk.ts';
import type { CompleteGoal } from './options.ts';
import type { TargetName } from './runtime.ts';
import type { StaticInt8, Technique } from './technique.ts';

/** A technique that is tried. */
export interface Candidate {
  readonly name: string;
  readonly technique: Technique;
  /** Why it is tried, in words. */
  readonly reason: string;
}

/** A technique that is not tried, and why. */
export interface Dismissed {
  readonly name: string;
  readonly reason: string;
}

/** What a model computes with constant weights: elements of them by the kind of operator. */
export interface Workload {
  readonly matMul: number;
  readonly conv: number;
  /** Of convolutions with a group for each channel. */
  readonly depthwise: number;
  readonly embedding: number;
  /** Of LSTMs: only those whose answers may depend on the batch have a kernel with integers. */
  readonly lstm: number;
}

/** What candidates depend on. */
export interface CandidateContext {
  readonly target: TargetName;
  readonly workload: Workload;
  readonly goal: CompleteGoal;
  readonly batches: readonly number[];
  readonly isCalibrated: boolean;
  /** Whether products of 8-bit integers may saturate, as on x64 without VNNI. Default false. */
  readonly saturates?: boolean;
}

/** Elements of weights above which reading them takes most of the time of a single row. */
const largeWeights = 500_000;

/** Counts the constant weights of a model, those inside of bodies included. Linear in the number of nodes. */
export function workloadOf(model: ModelProto): Workload {
  const work = { matMul: 0, conv: 0, depthwise: 0, embedding: 0, lstm: 0 };
  const count = (scope: Scope): void => {
    for (const node of scope.graph.node) {
      for (const body of bodiesOf(node)) count(openBody(body, scope));
      if (!isStandardOp(node)) continue;
      const elements = (at: number): number => {
        const weight = scope.constant(node.input[at] ?? '');
        return weight === undefined ? 0 : weight.dims.reduce((product, length) => product * length, 1);
      };
      if (node.opType === 'MatMul' || node.opType === 'Gemm') work.matMul += elements(1);
      else if (node.opType === 'Gather') work.embedding += elements(0);
      else if (node.opType === 'LSTM') work.lstm += elements(1) + elements(2);
      else if (node.opType === 'Conv' || node.opType === 'ConvTranspose') {
        const dims = scope.constant(node.input[1] ?? '')?.dims ?? [];
        const isDepthwise = node.opType === 'Conv' && dims[1] === 1 && intOf(node, 'group', 1) > 1;
        work[isDepthwise ? 'depthwise' : 'conv'] += elements(1);
      }
    }
  };
  count(openScope(model));
  return work;
}

/** Lists what is tried, in order, and what is not, with the reasons. */
export function listCandidates(context: CandidateContext): {
  readonly candidates: readonly Candidate[];
  readonly dismissed: readonly Dismissed[];
} {
  const candidates: Candidate[] = [];
  const dismissed: Dismissed[] = [];
  for (const rule of rules) {
    const verdict = rule.judge(context);
    if (verdict === undefined) continue;
    const { name } = rule;
    if (verdict.isTried)
      candidates.push({ name, technique: rule.technique(context), reason: verdict.reason });
    else dismissed.push({ name, reason: verdict.reason });
  }
  const isFirst = ({ technique }: Candidate): boolean => technique.kind === 'static';
  // What most of the work gains from is tried first.
  const { conv, matMul } = context.workload;
  if (conv > 0 && (conv >= matMul || context.target === 'wasm'))
    candidates.sort((a, b) => Number(isFirst(b)) - Number(isFirst(a)));
  return { candidates, dismissed };
}

/** What a technique is called among the candidates when a user names it. */
export function nameOfTechnique(technique: Technique): string {
  switch (technique.kind) {
    case 'dynamic':
      if ((technique.mode ?? 'row') === 'row') return 'int8-row';
      return technique.convolutions === true ? 'int8-conv' : 'int8-dynamic';
    case 'static':
      return technique.lstms === true ? 'int8-static-lstm' : 'int8-static';
    case 'nbits':
      return `int${technique.bits}-block${technique.blockSize ?? (technique.bits === 4 ? 32 : 128)}`;
    case 'float16':
      return 'fp16';
    default:
      return `pruned-${Math.round(100 * technique.sparsity)}`;
  }
}

/** What the variant of a release is called that a technique makes. */
export function variantOfTechnique(technique: Technique): string {
  if (technique.kind === 'float16') return 'fp16';
  if (technique.kind === 'prune') return 'pruned';
  return technique.kind === 'nbits' ? `int${technique.bits}` : 'int8';
}

interface Verdict {
  readonly isTried: boolean;
  readonly reason: string;
}

/** A technique with the cases that it is for; `undefined`: it has nothing to do with the model. */
interface Rule {
  readonly name: string;
  readonly technique: (context: CandidateContext) => Technique;
  readonly judge: (context: CandidateContext) => Verdict | undefined;
}

const tried = (reason: string): Verdict => ({ isTried: true, reason });
const not = (reason: string): Verdict => ({ isTried: false, reason });

const slowOnGpu = 'integer products fall off the GPU, back and forth for each of them';

/** In the order in which they are tried. */
const rules: readonly Rule[] = [
  {
    name: 'fp16',
    technique: () => ({ kind: 'float16' }),
    judge: ({ target }) =>
      target === 'webgpu' ? tried('half as many bytes for the GPU to read') : undefined,
  },
  {
    name: 'int8-row',
    technique: (context) => ({ kind: 'dynamic', mode: 'row', ...dynamicParts(context) }),
    judge: (context) =>
      forDynamic(context) ??
      (context.goal.isBatchInvariant
        ? tried('fast products of integers, and a row alone gets what it gets in a batch')
        : not('answers may depend on the batch here, and one scale for a batch is faster')),
  },
  {
    name: 'int8-dynamic',
    technique: (context) => ({ kind: 'dynamic', mode: 'tensor', ...dynamicParts(context) }),
    judge: (context) =>
      forDynamic(context, context.workload.lstm) ??
      (context.goal.isBatchInvariant
        ? not('what a row gets would depend on the rows beside it')
        : tried('fast products of integers without calibration')),
  },
  {
    name: 'int8-static',
    technique: staticOf,
    judge: forStatic,
  },
  {
    name: 'int8-static-lstm',
    technique: (context) => ({ ...staticOf(context), lstms: true }),
    judge: (context) => {
      if (context.workload.lstm === 0 || forStatic(context)?.isTried !== true) return undefined;
      return context.goal.isBatchInvariant
        ? not('what a row gets would depend on the rows beside it')
        : tried('whole layers in integers, and LSTMs that are quantized at each run');
    },
  },
  {
    name: 'int8-conv',
    technique: (context) => ({
      ...dynamicParts(context),
      kind: 'dynamic',
      mode: 'tensor',
      weights: 'uint8',
      convolutions: true,
    }),
    judge: ({ target, workload: { conv }, goal }) => {
      if (conv === 0 || target === 'webgpu') return undefined;
      if (target === 'node-cpu')
        return not('no kernel of this target is fast at convolutions that are quantized at each run');
      return goal.isBatchInvariant
        ? not('what a row gets would depend on the rows beside it')
        : tried('convolutions in integers without calibration');
    },
  },
  {
    name: 'int8-block128',
    technique: () => ({ kind: 'nbits', bits: 8, blockSize: 128, accuracyLevel: 4 }),
    judge: (context) => forBlocks(context) ?? tried('single rows read a quarter of the bytes'),
  },
  ...[32, 128].map((blockSize): Rule => ({
    name: `int4-block${blockSize}`,
    technique: ({ target }) =>
      ({ kind: 'nbits', bits: 4, blockSize, ...(target === 'node-cpu' && { accuracyLevel: 4 }) }) as const,
    judge: (context) => {
      const { workload, target } = context;
      const held = forBlocks(context);
      if (held !== undefined) return held;
      if (workload.matMul >= largeWeights) return tried('single rows read an eighth of the bytes');
      return target === 'webgpu'
        ? not('the weights are too small to be what takes the time')
        : not('the weights fit the cache, so that reading fewer bytes gains nothing');
    },
  })),
  {
    name: 'fp16',
    technique: () => ({ kind: 'float16' }),
    judge: ({ target, goal }) => {
      if (target === 'webgpu') return undefined;
      return goal.maxSizeRatio === undefined
        ? not('processors compute in 32 bits; it only makes the file smaller')
        : tried('half the size, and nearly the same answers');
    },
  },
  {
    name: 'pruned',
    technique: () => ({ kind: 'prune', sparsity: 0.5 }),
    judge: () => not('zeros make no model faster, and cost accuracy without training; ask for it'),
  },
];

function staticOf({ saturates = false, target, workload: { depthwise } }: CandidateContext): StaticInt8 {
  return {
    kind: 'static',
    ...(saturates && { reduceRange: true }),
    // Its kernel for them is several times slower than that for floats.
    ...(target === 'wasm' && depthwise > 0 && { depthwise: false }),
  };
}

function forStatic({
  target,
  workload: { conv, matMul },
  isCalibrated,
}: CandidateContext): Verdict | undefined {
  if (conv + matMul === 0) return undefined;
  if (target === 'webgpu') return not(slowOnGpu);
  return isCalibrated
    ? tried('whole layers in integers, which is what convolutions gain from')
    : not('ranges of activations are not known; give calibration data');
}

function dynamicParts({ saturates = false }: CandidateContext): { readonly reduceRange?: boolean } {
  return saturates ? { reduceRange: true } : {};
}

function forDynamic(
  { target, workload: { matMul, embedding } }: CandidateContext,
  others = 0,
): Verdict | undefined {
  if (target === 'webgpu') return not(slowOnGpu);
  if (matMul + others > 0) return undefined;
  return embedding > 0
    ? not('there is no product with constant weights')
    : not('there is no product of matrices with constant weights');
}

function forBlocks({ target, workload: { matMul }, batches }: CandidateContext): Verdict | undefined {
  if (matMul === 0) return not('there is no product of matrices with constant weights');
  if (target === 'wasm') return not('its kernel in WebAssembly is up to thirty times slower than floats');
  const isSingle = batches.includes(1) || target === 'webgpu';
  return isSingle ? undefined : not('it gains with single rows only, which are not asked for');
}
