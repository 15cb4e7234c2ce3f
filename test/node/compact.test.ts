import { Command, CommanderError } from 'commander';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { TensorMap } from '../../src/core/backend.ts';
import { Tensor } from '../../src/core/tensor.ts';
import { createGraph, encodeModel, parseModel, type ModelProto } from '../../src/onnx/index.ts';
import { quantizeDynamic } from '../../src/optimize/dynamic.ts';
import { quantizeBlocks } from '../../src/optimize/nbits.ts';
import { toFloat16 } from '../../src/optimize/float16.ts';
import type { OptimizeRuntime } from '../../src/optimize/runtime.ts';
import { createNodeRuntime } from '../../src/optimize-node/node-cpu.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { compactLimits, compactRelease, type CompactOptions } from '../../src/publish/compact/compact.ts';
import { createMetricGate, openAnswerGate, type Gate } from '../../src/publish/compact/gate.ts';
import { roundOntoGrid } from '../../src/publish/compact/grid.ts';
import { encodePatch } from '../../src/publish/delta/encode.ts';
import { createDeltaEncoder } from '../../src/publish/delta/encoder.ts';
import { segmentsOf } from '../../src/publish/delta/spans.ts';
import { prepareWays } from '../../src/publish/patches.ts';
import { createRandom } from '../../src/stats/random.ts';
import { sha256Hex } from '../../src/trust/keys.ts';
import { createDeltaPatcher } from '../../src/update/delta/patcher.ts';
import { parsePatch } from '../../src/update/delta/read-head.ts';
import { toBlob } from '../../src/cli/patch-files.ts';
import {
  compactModeOf,
  limitsOf,
  withCompactFlags,
  type CompactFlags,
} from '../../src/cli/publish-compact.ts';
import { runMetric } from '../../src/cli/publish-metric.ts';
import { classes, draw, trainPair, width } from './compact-fixture.ts';

const runtime = createNodeRuntime();
afterAll(() => runtime.close());
const platform = nodePlatform();
const held = draw(1000, 11, 0.5);
const samples: readonly TensorMap[] = [{ x: new Tensor('float32', [held.classes.length, width], held.x) }];
let pair: ReturnType<typeof trainPair>;
beforeAll(() => {
  pair = trainPair();
});

/** Models of one byte: which of the answers they give. */
function answering(answers: readonly TensorMap[]): OptimizeRuntime {
  return {
    ...runtime,
    open: async ([which = 0]) => ({
      inputs: [],
      outputs: [],
      run: async () => answers[which] ?? {},
      time: async () => [],
      release: async () => {},
    }),
  };
}

/** Mean loss on examples that nobody was trained on. */
async function loss(model: Uint8Array): Promise<number> {
  const session = await runtime.open(model);
  const { logits } = await session.run(samples[0] as TensorMap);
  await session.release();
  const data = logits?.data as Float32Array;
  let sum = 0;
  held.classes.forEach((label, row) => {
    const own = data.subarray(row * classes, (row + 1) * classes);
    sum += Math.log(own.reduce((total, value) => total + Math.exp(value), 0)) - (own[label] as number);
  });
  return sum / held.classes.length;
}

/** Takes whatever it is told to take, and remembers what it saw. */
function scripted(answers: readonly boolean[]): Gate & { readonly seen: Uint8Array[] } {
  const seen: Uint8Array[] = [];
  return {
    seen,
    judge: async (model) => {
      seen.push(model);
      return { isGood: answers[seen.length - 1] ?? true, figures: [] };
    },
  };
}

type File = Uint8Array<ArrayBuffer>;

const int8Of = (file: Uint8Array): File =>
  encodeModel(quantizeDynamic(parseModel(file), { kind: 'dynamic', perChannel: false }).model);

const encode: CompactOptions['encode'] = (base, next, steps) => encodePatch(base, next, { platform, steps });

describe('compactRelease', () => {
  it('near: decisions stay the same, at less than a fifth of the file, in a patch that gives exactly what was judged', async () => {
    const limits = compactLimits.near;
    const judged: Uint8Array[] = [];
    const gate = await openAnswerGate({ runtime, next: pair.next, samples, limits });
    const { bytes, steps, chosen } = await compactRelease({
      ...pair,
      mode: 'near',
      encode,
      gate: {
        judge: (model) => {
          judged.push(model);
          return gate.judge(model);
        },
      },
    });
    expect(chosen?.verdict.isGood).toBe(true);
    expect(judged.at(-1)).toBe(bytes);
    expect(bytes.length).toBe(pair.next.length);
    const patch = encodePatch(pair.base, bytes, { platform, steps });
    expect(patch.length).toBe(chosen?.patchBytes);
    expect(patch.length).toBeLessThan(bytes.length / 5);
    expect((await applied(pair.base, patch)).equals(bytes)).toBe(true);
    expect(Math.abs((await loss(bytes)) - (await loss(pair.next)))).toBeLessThan(0.002);
  });

  it('small: nearly all that was learnt stays, at less than an eighth of the file', async () => {
    const gate = await createMetricGate({ ...pair, metric: loss, maxLoss: 0.03 });
    const { bytes, steps, chosen, attempts } = await compactRelease({
      ...pair,
      mode: 'small',
      gate,
      seeds: 2,
      encode,
    });
    const [before, trained, published] = [await loss(pair.base), await loss(pair.next), await loss(bytes)];
    expect((before - published) / (before - trained)).toBeGreaterThan(0.97);
    expect(attempts.filter(({ step }) => step === chosen?.step)).toHaveLength(2);
    const patch = encodePatch(pair.base, bytes, { platform, steps });
    expect(patch.length).toBeLessThan(bytes.length / 8);
    expect((await applied(pair.base, patch)).equals(bytes)).toBe(true);
  });

  it('takes the largest step that passes with every seed', async () => {
    const gate = scripted([true, false, true, true]);
    const { attempts, chosen, bytes } = await compactRelease({
      ...pair,
      mode: 'small',
      gate,
      seed: 5,
      seeds: 2,
    });
    expect(attempts.map(({ step, seed }) => `${step}/${seed}`)).toEqual(['4/5', '4/6', '2/5', '2/6']);
    expect(chosen).toMatchObject({ step: '2', seed: 5 });
    expect(gate.seen[2]).toBe(bytes);
  });

  it('publishes what was trained where no step passes, or where nothing can be rounded', async () => {
    const refused = await compactRelease({ ...pair, mode: 'near', gate: scripted([false, false, false]) });
    expect(refused.bytes).toBe(pair.next);
    expect([refused.chosen, refused.steps.size, refused.attempts.length]).toEqual([undefined, 0, 3]);
    const same = await compactRelease({ base: pair.next, next: pair.next, mode: 'near', gate: scripted([]) });
    expect([same.bytes === pair.next, same.attempts.length]).toEqual([true, 0]);
  });

  it('does not let a model pass whose answers are no numbers', async () => {
    const limits = { maxDivergence: 1, minSqnrDb: 0 };
    const gate = await openAnswerGate({ runtime, next: pair.next, samples, limits });
    const broken = pair.next.slice();
    const { offset = 0 } = segmentsOf(broken).find(({ name }) => name === 'b2') ?? {};
    new DataView(broken.buffer).setFloat32(offset, Number.NaN, true);
    expect((await gate.judge(broken)).isGood).toBe(false);
    expect((await gate.judge(pair.next)).isGood).toBe(true);
  });

  it('does not take answers for classes that are none, nor labels for as good as others, nor no answers for right', async () => {
    const unit = (seed: number): Tensor => {
      const random = createRandom(seed);
      return new Tensor(
        'float32',
        [1, 384],
        Float32Array.from({ length: 384 }, () => (random() - 0.5) / 5.7),
      );
    };
    const logits = new Tensor('float32', [1, 3], Float32Array.of(0, 9, 1));
    const number = (value: number): Tensor => new Tensor('float32', [1, 1], Float32Array.of(value));
    const box = (...places: readonly number[]): Tensor =>
      new Tensor('float32', [1, 4], Float32Array.from(places));
    const label = (value: number): Tensor => new Tensor('int32', [1], Int32Array.of(value));
    const cases: readonly (readonly [right: TensorMap, wrong: TensorMap])[] = [
      [{ vector: unit(1) }, { vector: unit(2) }],
      [
        { logits, age: number(40) },
        { logits, age: number(7) },
      ],
      [{ label: label(1) }, { label: label(2) }],
      [{ box: box(300, 200, 50, 60) }, { box: box(400, 20, 350, 90) }],
    ];
    for (const [right, wrong] of cases) {
      const gate = await openAnswerGate({
        runtime: answering([right, wrong]),
        next: Uint8Array.of(0),
        samples,
        limits: compactLimits.small,
      });
      expect((await gate.judge(Uint8Array.of(0))).isGood).toBe(true);
      expect((await gate.judge(Uint8Array.of(1))).isGood).toBe(false);
    }
    const none = { runtime, next: pair.next, samples: [], limits: compactLimits.small };
    await expect(openAnswerGate(none)).rejects.toThrow(/at least one/);
  });
});

describe('an int8 model', () => {
  it('is rounded to whole units of its integers, judged, and comes out of its patch as it was judged', async () => {
    const [base, next] = [pair.base, pair.next].map((file) => int8Of(file)) as [File, File];
    const gate = await createMetricGate({ base, next, metric: loss, maxLoss: 0.1 });
    const { bytes, steps, chosen, tensors } = await compactRelease({
      base,
      next,
      mode: 'small',
      gate,
      seeds: 1,
      encode,
    });
    expect(chosen?.verdict.isGood).toBe(true);
    expect(tensors.some(({ unit = 0 }) => unit >= 2)).toBe(true);
    expect(steps.size).toBe(0);
    const patch = encodePatch(base, bytes, { platform, steps });
    expect(patch.length).toBe(chosen?.patchBytes);
    expect(patch.length).toBeLessThan(0.9 * encodePatch(base, next, { platform }).length);
    expect((await applied(base, patch)).equals(bytes)).toBe(true);
  });
});

describe('a float16 model', () => {
  it('is rounded by its update, judged, and comes out of its patch as an ordinary float16 file', async () => {
    const [base, next] = [pair.base, pair.next].map((file) =>
      encodeModel(toFloat16(parseModel(file), { kind: 'float16' }, new Map()).model),
    ) as [File, File];
    const gate = await createMetricGate({ base, next, metric: loss, maxLoss: 0.05 });
    const release = await compactRelease({ base, next, mode: 'small', gate, seeds: 1, encode });
    const { bytes, steps, chosen, losslessBytes = 0 } = release;
    expect(chosen?.verdict.isGood).toBe(true);
    expect([steps.size > 0, bytes.length]).toEqual([true, next.length]);
    const patch = encodePatch(base, bytes, { platform, steps });
    expect(patch.length).toBe(chosen?.patchBytes);
    expect(patch.length).toBeLessThan(0.3 * losslessBytes);
    expect((await applied(base, patch)).equals(bytes)).toBe(true);
  });
});

describe('variants that the same technique made', () => {
  it('have their blocks of 4 bits found, which bytes hold two of', () => {
    const file = encodeModel(quantizeBlocks(parseModel(pair.next), { kind: 'nbits', bits: 4 }).model);
    const found = segmentsOf(file).find(({ numbers }) => numbers === 'int4');
    expect(found).toMatchObject({
      name: 'w0_blocks',
      isUnsigned: true,
      shape: [128, 1, 32],
      sizeBytes: 2048,
    });
    const wide = encodeModel(quantizeBlocks(parseModel(pair.next), { kind: 'nbits', bits: 8 }).model);
    expect(segmentsOf(wide).some(({ numbers }) => numbers === 'int4')).toBe(false);
  });

  it.each<[string, (file: Uint8Array) => ModelProto, number]>([
    ['int8', (file) => quantizeDynamic(parseModel(file), { kind: 'dynamic' }).model, 0.6],
    ['int4', (file) => quantizeBlocks(parseModel(file), { kind: 'nbits', bits: 4 }).model, 0.6],
  ])('are published as a patch from each other: %s', async (_, variantOf, most) => {
    const [base, next] = [pair.base, pair.next].map((file) => encodeModel(variantOf(file))) as [File, File];
    const sha256 = sha256Hex(platform, base);
    const encoders = [createDeltaEncoder({ platform })];
    const bases = [{ seq: 1, sha256, bytes: base }];
    const ways = await prepareWays({ platform, encoders, bases }, 'v.onnx', next);
    const way = ways.find(({ kind }) => kind === 'patch');
    expect(way?.bytes.length).toBeLessThan(most * next.length);
    expect((await applied(base, way?.bytes ?? base)).equals(next)).toBe(true);
  });
});

describe('a model whose channels were scaled', () => {
  it('is rounded around what gains predict, and its patch gives exactly that', async () => {
    const noise = createRandom(3);
    const base = Float32Array.from({ length: 64 * 72 }, () => noise() - 0.5);
    const folded = base.map(
      (value, k) => value * (1 + (Math.floor(k / 72) % 7) / 10) + 0.001 * (noise() - 0.5),
    );
    const [before, after] = [base, folded].map((weights) => {
      const graph = createGraph({ name: 'folded', opset: 17 });
      graph.input('x', 'float32', [1, 8, 3, 3]);
      graph.initializer('w', new Tensor('float32', [64, 8, 3, 3], weights));
      graph.node('Conv', ['x', 'w'], {}, { outputs: 'y' });
      graph.output('y', 'float32', [1, 64, 1, 1]);
      return encodeModel(graph.toModel());
    }) as [Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>];
    const { bytes, steps } = roundOntoGrid(before, after, { f: 2, isStochastic: true, seed: 1 });
    expect(steps.get('w')?.gain).toHaveLength(64);
    const patch = encodePatch(before, bytes, { platform, steps });
    expect(patch.length).toBeLessThan(bytes.length / 10);
    expect((await applied(before, patch)).equals(bytes)).toBe(true);
  });
});

describe('limits of the publisher', () => {
  it('take the place of those of the mode, each by itself, and belong to rounding by answers', () => {
    const flags = (...given: readonly string[]): CompactFlags => {
      const command = withCompactFlags(new Command())
        .exitOverride()
        .configureOutput({ writeErr: () => {} });
      return command.parse(given, { from: 'user' }).opts();
    };
    const near = flags('--near', '--compact-kl', '2e-2', '--compact-agreement', '.95');
    expect(limitsOf('near', near)).toEqual({
      ...compactLimits.near,
      maxDivergence: 0.02,
      minAgreement: 0.95,
    });
    expect(limitsOf('small', flags('--compact-sqnr', '12.5'))).toEqual({
      ...compactLimits.small,
      minSqnrDb: 12.5,
    });
    expect(() => compactModeOf(flags('--compact-kl', '1'))).toThrow(/--compact-kl belongs to rounded/);
    for (const wrong of [
      ['--compact-kl', '-1'],
      ['--compact-agreement', '2'],
      ['--compact-metric', 'm', '--compact-kl', '1'],
    ])
      expect(() => flags('--near', ...wrong)).toThrow(CommanderError);
  });
});

describe('runMetric', () => {
  const metric = (command: string): Promise<number> =>
    runMetric({ command, cwd: process.cwd(), env: process.env }, Uint8Array.of(1, 2, 3));

  it('gives the number that a command prints last, which finds the model where INLAY_MODEL says', async () => {
    expect(await metric('echo loading; wc -c < "$INLAY_MODEL"')).toBe(3);
  });

  it('refuses commands that fail or print no number', async () => {
    await expect(metric('exit 3')).rejects.toThrow(/ends with 3/);
    await expect(metric('echo fine')).rejects.toThrow(/"fine"/);
    await expect(metric('true')).rejects.toThrow(/one number/);
  });
});

async function applied(base: Uint8Array<ArrayBuffer>, patch: Uint8Array<ArrayBuffer>): Promise<Buffer> {
  const { head } = parsePatch(patch);
  const pieces: Uint8Array[] = [];
  const patcher = createDeltaPatcher(platform);
  for await (const piece of patcher.apply(toBlob(base), toBlob(patch), head.targetBytes)) pieces.push(piece);
  return Buffer.concat(pieces);
}
