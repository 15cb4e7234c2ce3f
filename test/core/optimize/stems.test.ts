import { describe, expect, it } from 'vitest';
import { Tensor } from '../../../src/core/tensor.ts';
import { createGraph } from '../../../src/onnx/build.ts';
import type { ModelProto } from '../../../src/onnx/messages.ts';
import { climb } from '../../../src/optimize/climb.ts';
import { stemsOf } from '../../../src/optimize/stems.ts';
import type { Trial } from '../../../src/optimize/trial.ts';

const zeros = (...shape: number[]): Tensor<'float32'> =>
  new Tensor('float32', shape, new Float32Array(shape.reduce((product, length) => product * length, 1)));

/** A chain of convolutions, given as channels, group and width of the kernel, each named by its place. */
function chain(...layers: readonly (readonly [out: number, perGroup: number, kernel: number])[]): ModelProto {
  const graph = createGraph({ name: 'chain', opset: 17 });
  let value = graph.input('x', 'float32', null);
  for (const [i, [out, perGroup, kernel]] of layers.entries()) {
    const weights = graph.initializer(`w${i}`, zeros(out, perGroup, kernel, kernel));
    const group = perGroup === 1 ? out : 1;
    value = graph.node('Conv', [value, weights], { group }, { name: `c${i}`, outputs: `v${i}` });
  }
  graph.output(value, 'float32', null);
  return graph.toModel();
}
/** Such as phones use: depthwise layers of 9 terms and pointwise ones by turns. */
const mobile = chain([8, 3, 3], [8, 1, 3], [16, 8, 2], [16, 1, 3], [32, 16, 2], [32, 1, 3], [32, 256, 1]);

describe('layers that may better stay float', () => {
  it('are sets from the inputs on, each with those before, that end where sums get longer', () => {
    expect(stemsOf(mobile, { kind: 'static' })).toEqual([
      ['c0', 'c1'],
      ['c0', 'c1', 'c2', 'c3'],
      ['c0', 'c1', 'c2', 'c3', 'c4', 'c5'],
    ]);
  });

  it('are never more than six sets, nor reach sums of many terms', () => {
    const growing = Array.from({ length: 9 }, (_, i) => [4, i + 2, 2] as const);
    expect(stemsOf(chain(...growing), { kind: 'static' })).toHaveLength(6);
    expect(stemsOf(chain([4, 41, 2], [4, 50, 2]), { kind: 'static' })).toEqual([]);
  });

  it('are only such as would be quantized', () => {
    expect(stemsOf(mobile, { kind: 'static', depthwise: false }, { exclude: ['c0'] })).toEqual([
      ['c2'],
      ['c2', 'c4'],
    ]);
  });
});

/** A model that runs so much faster than the original; `undefined`: it misses a goal. */
function trialOf(name: string, speedup: number | undefined): Trial {
  return {
    attempt: {
      name,
      outcome: 'beaten',
      reason: 'it is tried',
      ...(speedup !== undefined && { times: [{ batch: 1, p10Ms: 1, p50Ms: 1, speedup }] }),
    },
    changed: [],
    missed: speedup === undefined ? ['accuracy'] : [],
    isAccuracyMissed: speedup === undefined,
  };
}

async function climbed(speeds: readonly (number | undefined)[], start = 0.9): Promise<string[]> {
  const stems = speeds.map((_, i) => Array.from({ length: 2 * i + 2 }, (__, k) => `c${k}`));
  const trials = await climb(trialOf('int8-static', start), {
    stems,
    make: async (name, stem) => trialOf(name, speeds[stem.length / 2 - 1]),
    time: async (both) => both,
  });
  return trials.map(({ attempt }) => attempt.name);
}

describe('the climb from layer to layer', () => {
  it('goes on while each step gains two percent, and keeps the last as well', async () => {
    expect(await climbed([1.1, 1.2, 1.21, 1.5])).toEqual([
      'int8-static-stem2',
      'int8-static-stem4',
      'int8-static-stem6',
    ]);
  });

  it('ends at the first model that misses a goal', async () => {
    expect(await climbed([1.1, undefined, 2])).toEqual(['int8-static-stem2', 'int8-static-stem4']);
  });

  it('starts from a model that is too slow, and compares both in the same race', async () => {
    const races: string[][] = [];
    const slow = { ...trialOf('int8-static', 0.5), missed: ['it is slow'] };
    await climb(slow, {
      stems: [['c0']],
      make: async (name) => trialOf(name, 1),
      time: async (both) => {
        races.push(both.map(({ missed, attempt }) => `${attempt.name} ${missed.length}`));
        return both;
      },
    });
    expect(races).toEqual([['int8-static 0', 'int8-static-stem1 0']]);
  });
});
