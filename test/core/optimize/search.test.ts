import { describe, expect, it } from 'vitest';
import { createGraph } from '../../../src/onnx/build.ts';
import { fastest } from '../../../src/optimize/choose.ts';
import type { Attempt } from '../../../src/optimize/decision.ts';
import { completeGoal } from '../../../src/optimize/options.ts';
import { confirm } from '../../../src/optimize/search.ts';
import { statesOf } from '../../../src/optimize/states.ts';
import type { Trial } from '../../../src/optimize/trial.ts';

const trial = (name: string, speedup: number): Trial => ({
  attempt: {
    name,
    outcome: 'beaten',
    reason: '',
    times: [{ batch: 1, p10Ms: 1 / speedup, p50Ms: 1, speedup }],
  },
  changed: [],
  missed: [],
  isAccuracyMissed: false,
});
const original: Attempt = trial('original', 1).attempt;

/** What is taken, and who ran once more, when races go as told. */
async function confirmed(
  first: Readonly<Record<string, number>>,
  second: Readonly<Record<string, number>>,
): Promise<readonly [taken: string | undefined, raced: readonly string[]]> {
  const raced: string[] = [];
  const pick = (tried: readonly Trial[]): Trial | undefined => {
    const winner = fastest([original, ...tried.map(({ attempt }) => attempt)]);
    return tried.find(({ attempt }) => attempt === winner);
  };
  const found = await confirm(
    Object.entries(first).map(([name, speedup]) => trial(name, speedup)),
    pick,
    {
      time: async (trials) =>
        trials.map(({ attempt: { name } }) => {
          raced.push(name);
          return trial(name, second[name] ?? 1);
        }),
    },
  );
  return [pick(found)?.attempt.name, raced];
}

describe('what wins a race', () => {
  it('is taken when it wins another one', async () => {
    expect(await confirmed({ a: 2, b: 1.5 }, { a: 1.9 })).toEqual(['a', ['a']]);
  });

  it('gives way to the next, which has to win as well', async () => {
    expect(await confirmed({ a: 3, b: 1.5 }, { a: 0.9, b: 1.4 })).toEqual(['b', ['a', 'b']]);
  });

  it('leaves the original where none wins twice', async () => {
    expect(await confirmed({ a: 3, b: 1.5 }, { a: 0.9, b: 1.01 })).toEqual([undefined, ['a', 'b']]);
  });
});

describe('a model that hands on a state', () => {
  const model = (inputs: Record<string, number[]>, outputs: Record<string, number[]>) => {
    const graph = createGraph({ name: 'state', opset: 17 });
    for (const [name, shape] of Object.entries(inputs)) graph.input(name, 'float32', shape);
    for (const [name, shape] of Object.entries(outputs)) {
      graph.node('Identity', [Object.keys(inputs)[0] ?? ''], {}, { outputs: name });
      graph.output(name, 'float32', shape);
    }
    return graph.toModel();
  };

  it('has an output of the form of an input', () => {
    const states = statesOf(
      model({ x: [1, 512], h: [2, 128], c: [2, 128] }, { y: [1, 1], hn: [2, 128], cn: [2, 128] }),
    );
    expect(states).toEqual([
      { input: 'h', output: 'hn' },
      { input: 'c', output: 'cn' },
    ]);
  });

  it('has more than one input, and more than one axis to hand on', () => {
    expect(statesOf(model({ picture: [1, 3, 8, 8] }, { sharper: [1, 3, 8, 8] }))).toEqual([]);
    expect(statesOf(model({ x: [1, 8], bias: [1] }, { y: [1] }))).toEqual([]);
  });

  it('is asked for more by default, and not by those who say what they want', () => {
    expect(completeGoal({}, [1], true).minSqnrDb).toBe(40);
    expect(completeGoal({}, [1]).minSqnrDb).toBe(25);
    expect(completeGoal({ minSqnrDb: 20 }, [1], true).minSqnrDb).toBe(20);
  });
});
