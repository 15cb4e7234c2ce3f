import { describe, expect, expectTypeOf, it } from 'vitest';
import { closedError, InputError, StateError } from '../../../src/core/errors.ts';
import type { Tensor } from '../../../src/core/tensor.ts';
import type { Model } from '../../../src/engine/model.ts';
import type {
  PipelineDefinition,
  PipelineModel,
  StepContext,
} from '../../../src/engine/pipeline-definition.ts';
import { createPipeline, type Pipeline } from '../../../src/engine/pipeline.ts';
import { testPlatform } from '../platform.ts';
import { scalar, settleAll, testModel, watchRejections, type ModelCall } from './pipeline-fakes.ts';

const platform = testPlatform();

function pipelineOf(definition: PipelineDefinition): Pipeline {
  return createPipeline(platform, definition);
}

const valueOf = (tensor: unknown): number => (tensor as Tensor<'float32'>).data[0] ?? Number.NaN;

describe('a pipeline', () => {
  it('joins functions and models, under the names that each of them has', async () => {
    expectTypeOf<Model>().toExtend<PipelineModel>();
    const model = testModel();
    const pipeline = createPipeline(platform, {
      inputs: ['photo'],
      steps: {
        total: {
          inputs: ['score', 'photo'],
          run: ({ score, photo }: { score: Tensor; photo: number }) => `${Number(score.data[0]) + photo}`,
        },
        detector: { model, inputs: { x: 'image' }, outputs: { y: 'score' } },
        image: { inputs: ['photo'], run: async ({ photo }: { photo: number }) => photo * 2 },
      },
      outputs: ['total', 'score'],
    });
    expectTypeOf(pipeline.run).parameter(0).toEqualTypeOf<{ readonly photo: number }>();
    const running = pipeline.run({ photo: 4 });
    await settleAll();
    expect(model.calls[0]?.feeds).toEqual({ x: 8 });
    expect(model.calls[0]?.options.outputs).toEqual(['y']);
    model.calls[0]?.answer(10);
    const { total, score } = await running;
    expectTypeOf(total).toEqualTypeOf<string>();
    expectTypeOf(score).toEqualTypeOf<Tensor>();
    expect([total, valueOf(score)]).toEqual(['14', 10]);
    expect([pipeline.inputs, pipeline.outputs]).toEqual([['photo'], ['total', 'score']]);
  });

  it('runs independent steps at the same time and a step when all that it needs is there', async () => {
    const [left, right, both] = [testModel(), testModel(), testModel(['a', 'b'])];
    const running = pipelineOf({
      steps: {
        both: { model: both, inputs: { a: 'l', b: 'r' }, outputs: { y: 'out' } },
        left: { model: left, outputs: { y: 'l' } },
        right: { model: right, outputs: { y: 'r' } },
      },
      outputs: ['out'],
    }).run({ x: 1 });
    expect([left.calls.length, right.calls.length, both.calls.length]).toEqual([1, 1, 0]);
    left.calls[0]?.answer(1);
    await settleAll();
    expect(both.calls).toHaveLength(0);
    right.calls[0]?.answer(2);
    await settleAll();
    both.calls[0]?.answer(3);
    expect(valueOf((await running)['out'])).toBe(3);
  });

  it('runs no step that the wanted outputs do not need, and then does not ask for its inputs', async () => {
    const ran: string[] = [];
    const pipeline = pipelineOf({
      inputs: ['p', 'q'],
      steps: {
        a: { inputs: ['p'], run: () => ran.push('a') },
        b: { inputs: ['q'], run: () => ran.push('b') },
        unused: { inputs: ['a'], run: () => ran.push('unused') },
      },
      outputs: ['a', 'b'],
    });
    expect(Object.keys(await pipeline.run({ p: 1 }, { outputs: ['a'] }))).toEqual(['a']);
    expect(ran).toEqual(['a']);
    await pipeline.run({ p: 1, q: 1 });
    expect(ran.sort()).toEqual(['a', 'a', 'b']);
  });

  it('asks a model for all outputs by asking for none, so that its calls share batches with others', async () => {
    const model = testModel();
    const running = pipelineOf({ steps: { m: { model } }, outputs: ['y', 'z'] }).run({ x: 1 });
    expect(model.calls[0]?.options).toEqual({});
    model.calls[0]?.answer(1);
    expect(Object.keys(await running)).toEqual(['y', 'z']);
  });

  it('leaves a step out when its condition does not hold', async () => {
    const pipeline = createPipeline(platform, {
      inputs: ['n'],
      steps: {
        half: {
          inputs: ['n'],
          when: ({ n }: { n: number }) => n % 2 === 0,
          run: ({ n }: { n: number }) => n / 2,
        },
        text: { inputs: ['half'], run: ({ half }) => `half: ${String(half)}` },
      },
      outputs: ['text', 'half'],
    });
    expectTypeOf(pipeline.run).returns.resolves.toEqualTypeOf<
      Pick<{ readonly text: string; readonly half: number | undefined }, 'text' | 'half'>
    >();
    expect(await pipeline.run({ n: 4 })).toEqual({ text: 'half: 2', half: 2 });
    expect(await pipeline.run({ n: 3 })).toEqual({ text: 'half: undefined', half: undefined });
  });

  it('treats names of the object prototype like any other', async () => {
    const pipeline = pipelineOf({
      inputs: ['constructor'],
      steps: {
        ['__proto__']: {
          inputs: ['constructor'],
          run: ({ constructor }: { constructor: unknown }) => `${String(constructor)}!`,
        },
        toString: { inputs: ['__proto__'], run: (values: object) => Object.entries(values) },
      },
      outputs: ['toString', '__proto__'],
    });
    expect(Object.entries(await pipeline.run({ constructor: 'a' }))).toEqual([
      ['toString', [['__proto__', 'a!']]],
      ['__proto__', 'a!'],
    ]);
    await expect(pipeline.run({})).rejects.toMatchObject({ code: 'ERR_INLAY_FEED_MISSING' });
  });

  it('refuses inputs and outputs that it does not have', async () => {
    const pipeline = pipelineOf({
      inputs: ['a'],
      steps: { b: { inputs: ['a'], run: () => 1 } },
      outputs: ['b'],
    });
    await expect(pipeline.run({})).rejects.toMatchObject({ code: 'ERR_INLAY_FEED_MISSING' });
    await expect(pipeline.run({ a: 1, c: 2 })).rejects.toMatchObject({ code: 'ERR_INLAY_FEED_UNKNOWN' });
    await expect(pipeline.run({ a: 1 }, { outputs: ['a'] })).rejects.toMatchObject({
      code: 'ERR_INLAY_OUTPUT_UNKNOWN',
    });
    await expect(pipeline.run({ a: 1 }, { outputs: [] })).rejects.toThrow(RangeError);
    await expect(pipeline.run({ a: 1 }, { deadlineMs: 0 })).rejects.toThrow(RangeError);
    await expect(pipeline.run(null as never)).rejects.toThrow(TypeError);
  });

  it('survives long chains of functions and many elements without a deep stack', async () => {
    const steps = Object.fromEntries(
      Array.from({ length: 5000 }, (_, n) => [
        `v${n + 1}`,
        {
          inputs: [`v${n}`],
          run: (values: Readonly<Record<string, unknown>>) => Number(values[`v${n}`]) + 1,
        },
      ]),
    );
    expect(await pipelineOf({ steps, outputs: ['v5000'] }).run({ v0: 0 })).toEqual({ v5000: 5000 });
    const each = createPipeline(platform, {
      inputs: ['list'],
      steps: {
        twice: {
          inputs: ['list'],
          each: 'list',
          run: ({ list }: { list: number }) => list * 2,
          maxInFlight: 3,
        },
      },
      outputs: ['twice'],
    });
    expectTypeOf(each.run).parameter(0).toEqualTypeOf<{ readonly list: readonly number[] }>();
    const { twice } = await each.run({ list: Array.from({ length: 20_000 }, (_, n) => n) });
    expectTypeOf(twice).toEqualTypeOf<number[]>();
    expect([twice.length, twice.at(-1)]).toEqual([20_000, 39_998]);
  });

  it('runs over a source', async () => {
    const pipeline = pipelineOf({ steps: { b: { inputs: ['a'], run: async ({ a }) => a } }, outputs: ['b'] });
    const seen: unknown[] = [];
    for await (const { index, outputs } of pipeline.runAll([{ a: 1 }, { a: 2 }], { as: 'entries' })) {
      seen.push([index, outputs?.['b']]);
    }
    for await (const { b } of pipeline.runAll([{ a: 3 }])) seen.push(b);
    expect(seen).toEqual([[0, 1], [1, 2], 3]);
  });
});

describe('the definition of a pipeline', () => {
  const run = (): number => 1;
  const model = testModel();
  it.each<[string, PipelineDefinition | object, string | RegExp]>([
    ['no step', { steps: {}, outputs: ['a'] }, 'at least one step'],
    ['no output', { steps: { a: { run } }, outputs: [] }, 'at least one output'],
    ['an output that nothing gives', { steps: { a: { run } }, outputs: ['b'] }, 'returns "b"'],
    [
      'a value that nothing gives',
      { inputs: ['p'], steps: { a: { inputs: ['q'], run } }, outputs: ['a'] },
      'Step "a" needs "q", which is no input and which no step gives; there are "p", "a".',
    ],
    [
      'a value that two steps give',
      { steps: { a: { run, outputs: ['v'] }, b: { run, outputs: ['v'] } }, outputs: ['v'] },
      'Steps "a" and "b" both give "v"',
    ],
    [
      'an input that a step gives',
      { inputs: ['a'], steps: { a: { run } }, outputs: ['a'] },
      'Step "a" gives "a"',
    ],
    [
      'a circle',
      {
        steps: { a: { inputs: ['c'], run }, b: { inputs: ['a'], run }, c: { inputs: ['b'], run } },
        outputs: ['c'],
      },
      '"a" needs "c" needs "b" needs "a"',
    ],
    ['a step that needs itself', { steps: { a: { inputs: ['a'], run } }, outputs: ['a'] }, '"a" needs "a"'],
    ['neither model nor function', { steps: { a: {} }, outputs: ['a'] }, 'Step "a" is either'],
    ['both model and function', { steps: { a: { run, model } }, outputs: ['a'] }, 'Step "a" is either'],
    [
      'an input that the model lacks',
      { steps: { m: { model, inputs: { w: 'v' } } }, outputs: ['y'] },
      'The model of step "m" has no input "w"; its inputs are "x".',
    ],
    ['a model without an input', { steps: { m: { model, inputs: {} } }, outputs: ['y'] }, 'the input "x"'],
    [
      'an output that the model lacks',
      { steps: { m: { model, outputs: { w: 'v' } } }, outputs: ['v'] },
      'has no output "w"; its outputs are "y", "z".',
    ],
    ['each of what it does not take', { steps: { a: { run, each: 'v' } }, outputs: ['a'] }, 'each of "v"'],
    [
      'names that are no list',
      { steps: { a: { run, inputs: 'v' } }, outputs: ['a'] },
      '`inputs` of step "a"',
    ],
  ])('is refused with %s', (_, definition, message) => {
    expect(() => pipelineOf(definition as PipelineDefinition)).toThrow(TypeError);
    expect(() => pipelineOf(definition as PipelineDefinition)).toThrow(message);
  });

  it.each([0, 1.5, Number.NaN])('is refused with maxInFlight %d', (maxInFlight) => {
    expect(() => pipelineOf({ steps: { a: { run, maxInFlight } }, outputs: ['a'] })).toThrow(RangeError);
  });
});

describe('a step that fails', () => {
  it('hands what a function threw to the caller as it is, and tells the step', async () => {
    watchRejections();
    const foreign = Object.freeze(new RangeError('mine'));
    for (const run of [
      () => {
        throw foreign;
      },
      () => Promise.reject(foreign),
    ]) {
      const pipeline = pipelineOf({ steps: { a: { run } }, outputs: ['a'] });
      await expect(pipeline.run({})).rejects.toBe(foreign);
      expect(pipeline.stepOf(foreign)).toBe('a');
      expect(pipeline.stats()['a']).toMatchObject({ runs: 0, failures: 1, inFlight: 0 });
    }
    const pipeline = pipelineOf({
      steps: { a: { run: () => Promise.reject('text') } },
      outputs: ['a'],
    });
    await expect(pipeline.run({})).rejects.toBe('text');
    expect(pipeline.stepOf('text')).toBeUndefined();
  });

  it('keeps class, code and details of an Inlay error, names the step, and leaves the original alone', async () => {
    const model = testModel();
    const pipeline = pipelineOf({ steps: { detector: { model } }, outputs: ['y'] });
    const cause = new InputError('ERR_INLAY_FEED_SHAPE', 'Too wide.', { details: { input: 'x' } });
    const first = pipeline.run({ x: 1 });
    model.calls[0]?.fail(cause);
    const error = await first.catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(InputError);
    expect(error).toMatchObject({
      code: 'ERR_INLAY_FEED_SHAPE',
      message: 'Step "detector": Too wide.',
      details: { input: 'x', step: 'detector' },
    });
    expect((error as Error).cause).toBe(cause);
    expect(cause.message).toBe('Too wide.');
    expect(pipeline.stepOf(error)).toBe('detector');

    const closed = pipeline.run({ x: 1 });
    model.calls[1]?.fail(closedError('Model "faces"'));
    await expect(closed).rejects.toBeInstanceOf(StateError);
    await expect(closed).rejects.toMatchObject({ code: 'ERR_INLAY_CLOSED' });
  });

  it('gives the other branches of its call up, and no other call', async () => {
    watchRejections();
    const [left, right] = [testModel(), testModel()];
    const pipeline = pipelineOf({
      steps: { left: { model: left, outputs: { y: 'l' } }, right: { model: right, outputs: { y: 'r' } } },
      outputs: ['l', 'r'],
    });
    const [first, second] = [pipeline.run({ x: 1 }), pipeline.run({ x: 2 })];
    left.calls[0]?.fail(new Error('left broke'));
    await expect(first).rejects.toThrow('left broke');
    expect(right.calls.map(({ options }) => options.signal?.aborted)).toEqual([true, false]);
    left.calls[1]?.answer(1);
    right.calls[1]?.answer(2);
    await second;
    expect(pipeline.stats()['right']).toMatchObject({ runs: 1, failures: 0, inFlight: 0, waiting: 0 });
  });

  it('is one that does not return what it promised, or whose condition throws', async () => {
    const broken = pipelineOf({ steps: { a: { run: () => ({ x: 1 }), outputs: ['v'] } }, outputs: ['v'] });
    await expect(broken.run({})).rejects.toThrow('Step "a" returned no "v"');
    const when = (): boolean => {
      throw new Error('condition');
    };
    await expect(
      pipelineOf({ steps: { a: { run: () => 1, when } }, outputs: ['a'] }).run({}),
    ).rejects.toThrow('condition');
    const each = pipelineOf({ steps: { a: { inputs: ['l'], each: 'l', run: () => 1 } }, outputs: ['a'] });
    await expect(each.run({ l: 5 })).rejects.toThrow('which is an array, got a number');
    expect(await each.run({ l: [] })).toEqual({ a: [] });
  });
});

describe('a bound on runs in flight', () => {
  it('holds over all calls, lets them in as they came, and counts those that wait', async () => {
    const model = testModel();
    const pipeline = pipelineOf({ steps: { m: { model, maxInFlight: 2 } }, outputs: ['y'] });
    const calls = [1, 2, 3, 4, 5].map((x) => pipeline.run({ x }));
    expect(pipeline.stats()['m']).toMatchObject({ inFlight: 2, waiting: 3 });
    for (let at = 0; at < 5; at += 1) {
      expect(model.calls.length).toBe(Math.min(5, at + 2));
      model.calls[at]?.answer(at);
      await settleAll();
    }
    await Promise.all(calls);
    expect(model.calls.map(({ feeds }) => feeds['x'])).toEqual([1, 2, 3, 4, 5]);
    expect(pipeline.stats()['m']).toMatchObject({ runs: 5, failures: 0, inFlight: 0, waiting: 0 });
  });

  it('lets those that were aborted leave the line', async () => {
    watchRejections();
    const model = testModel();
    const pipeline = pipelineOf({ steps: { m: { model, maxInFlight: 1 } }, outputs: ['y'] });
    const abort = new AbortController();
    const running = pipeline.run({ x: 0 });
    const given = [1, 2, 3].map((x) => pipeline.run({ x }, { signal: abort.signal }));
    const last = pipeline.run({ x: 4 });
    abort.abort(new Error('no more'));
    for (const call of given) await expect(call).rejects.toThrow('no more');
    expect(pipeline.stats()['m']).toMatchObject({ inFlight: 1, waiting: 1 });
    model.calls[0]?.answer(1);
    await running;
    await settleAll();
    expect(model.calls.at(-1)?.feeds).toEqual({ x: 4 });
    model.calls.at(-1)?.answer(1);
    await last;
  });

  it('keeps the place of a function that does not heed its signal until it is done', async () => {
    const answers: ((value: number) => void)[] = [];
    const pipeline = pipelineOf({
      steps: { a: { maxInFlight: 1, run: () => new Promise<number>((resolve) => answers.push(resolve)) } },
      outputs: ['a'],
    });
    const abort = new AbortController();
    const first = pipeline.run({}, { signal: abort.signal });
    const second = pipeline.run({});
    abort.abort(new Error('gone'));
    await expect(first).rejects.toThrow('gone');
    expect(pipeline.stats()['a']).toMatchObject({ inFlight: 1, waiting: 1 });
    answers[0]?.(1);
    await settleAll();
    answers[1]?.(2);
    expect(await second).toEqual({ a: 2 });
  });

  it('bounds the elements of a list, whose results keep their order', async () => {
    const model = testModel(['face', 'photo']);
    const pipeline = createPipeline(platform, {
      inputs: ['photo', 'faces'],
      steps: {
        who: {
          model,
          inputs: { face: 'faces', photo: 'photo' },
          outputs: { y: 'names' },
          each: 'faces',
          maxInFlight: 2,
        },
      },
      outputs: ['names'],
    });
    const running = pipeline.run({ photo: 9, faces: [1, 2, 3] });
    expect(model.calls.map(({ feeds }) => feeds)).toEqual([
      { face: 1, photo: 9 },
      { face: 2, photo: 9 },
    ]);
    expect(pipeline.stats()['who']).toMatchObject({ inFlight: 2, waiting: 0 });
    model.calls[1]?.answer(20);
    await settleAll();
    model.calls[2]?.answer(30);
    model.calls[0]?.answer(10);
    expect(((await running).names as unknown as unknown[]).map(valueOf)).toEqual([10, 20, 30]);
  });

  it('fails the call with the first element that fails, and starts no further ones', async () => {
    watchRejections();
    const started: number[] = [];
    const pipeline = pipelineOf({
      steps: {
        a: {
          inputs: ['l'],
          each: 'l',
          maxInFlight: 2,
          run: async ({ l }) => {
            started.push(Number(l));
            if (l === 2) throw new Error('two');
            return l;
          },
        },
      },
      outputs: ['a'],
    });
    await expect(pipeline.run({ l: [1, 2, 3, 4, 5, 6] })).rejects.toThrow('two');
    await settleAll();
    expect(started.length).toBeLessThanOrEqual(4);
    expect(pipeline.stats()['a']).toMatchObject({ failures: 1, inFlight: 0, waiting: 0 });
  });
});

describe('a call of a pipeline', () => {
  const threeSteps = () => {
    const models = [testModel(), testModel(), testModel()] as const;
    const pipeline = pipelineOf({
      steps: {
        one: { model: models[0], outputs: { y: 'a' } },
        two: { model: models[1], inputs: { x: 'a' }, outputs: { y: 'b' }, maxInFlight: 1 },
        three: { model: models[2], inputs: { x: 'b' }, outputs: { y: 'c' } },
      },
      outputs: ['c'],
    });
    return { models, pipeline };
  };

  it.each([0, 1, 2])(
    'ends with the reason of its signal in step %d, and later steps are not run',
    async (stage) => {
      watchRejections();
      const { models, pipeline } = threeSteps();
      const abort = new AbortController();
      const reason = new InputError('ERR_INLAY_FEED_VALUE', 'An odd reason.');
      const running = pipeline.run({ x: 1 }, { signal: abort.signal });
      for (let at = 0; at < stage; at += 1) {
        models[at]?.calls[0]?.answer(at);
        await settleAll();
      }
      abort.abort(reason);
      await expect(running).rejects.toBe(reason);
      expect(models.map(({ calls }) => calls.length)).toEqual([0, 1, 2].map((at) => Number(at <= stage)));
      expect((models[stage]?.calls[0] as ModelCall).options.signal?.reason).toBe(reason);
      await settleAll();
      for (const stats of Object.values(pipeline.stats())) {
        expect(stats).toMatchObject({ failures: 0, inFlight: 0, waiting: 0 });
      }
    },
  );

  it('runs nothing when it was aborted before', async () => {
    const { models, pipeline } = threeSteps();
    const signal = AbortSignal.abort(new Error('before'));
    await expect(pipeline.run({ x: 1 }, { signal })).rejects.toThrow('before');
    expect(models[0].calls).toHaveLength(0);
  });

  it('gives each step what is left of its deadline, and ends when nothing is left', async () => {
    watchRejections();
    const clock = testPlatform();
    const [first, second] = [testModel(), testModel()];
    const pipeline = createPipeline(clock, {
      steps: {
        one: { model: first, outputs: { y: 'a' } },
        two: { model: second, inputs: { x: 'a' }, outputs: { y: 'b' } },
      },
      outputs: ['b'],
    });
    const running = pipeline.run({ x: 1 }, { deadlineMs: 50, priority: 3 });
    expect(first.calls[0]?.options).toMatchObject({ deadlineMs: 50, priority: 3 });
    clock.advance(20);
    first.calls[0]?.answer(1);
    await settleAll();
    expect(second.calls[0]?.options).toMatchObject({ deadlineMs: 30, priority: 3 });
    clock.advance(30);
    await expect(running).rejects.toMatchObject({
      code: 'ERR_INLAY_DEADLINE',
      details: { reason: 'deadline_passed', steps: ['two'] },
    });
    expect(second.calls[0]?.options.signal?.aborted).toBe(true);

    const inTime = pipeline.run({ x: 1 }, { deadlineMs: 50 });
    first.calls[1]?.answer(1);
    await settleAll();
    second.calls[1]?.answer(1);
    await inTime;
    expect(clock.timers()).toEqual([]);
    expect(pipeline.stats()['one']).toMatchObject({ runs: 2, p50Ms: 0, p95Ms: 20 });
  });

  it('starts no step after its deadline, although timers are late', async () => {
    let now = 0;
    let ran = 0;
    const pipeline = createPipeline(
      { monotonicMs: () => now, setTimer: () => () => {} },
      {
        steps: {
          slow: { run: () => (now += 100) },
          next: { inputs: ['slow'], run: () => (ran += 1) },
        },
        outputs: ['next'],
      },
    );
    await expect(pipeline.run({}, { deadlineMs: 50 })).rejects.toMatchObject({ code: 'ERR_INLAY_DEADLINE' });
    expect(ran).toBe(0);
  });

  it('tells functions its signal, priority and the time that is left, so that pipelines nest', async () => {
    let seen: StepContext | undefined;
    const model = testModel();
    const inner = pipelineOf({ steps: { m: { model } }, outputs: ['y'] });
    const outer = pipelineOf({
      steps: {
        inner: {
          inputs: ['x'],
          outputs: ['y'],
          run: (values, context) => {
            seen = context;
            return inner.run(values, context);
          },
        },
      },
      outputs: ['y'],
    });
    const running = outer.run({ x: 1 }, { priority: 7, deadlineMs: 40 });
    expect(model.calls[0]?.options).toMatchObject({ priority: 7, deadlineMs: 40 });
    expect(seen?.signal.aborted).toBe(false);
    model.calls[0]?.fail(closedError('The model'));
    await expect(running).rejects.toThrow('Step "inner": Step "m": The model was closed');
  });

  it('settles among 10,000 others, some of which fail or are aborted', async () => {
    watchRejections();
    const abort = new AbortController();
    let most = 0;
    let inFlight = 0;
    const pipeline = pipelineOf({
      inputs: ['n'],
      steps: {
        a: { inputs: ['n'], run: async ({ n }) => Number(n) + 1, maxInFlight: 7 },
        b: {
          inputs: ['a'],
          maxInFlight: 5,
          run: async ({ a }) => {
            most = Math.max(most, (inFlight += 1));
            await Promise.resolve();
            inFlight -= 1;
            if (a === 4000) abort.abort(new Error('enough'));
            if (Number(a) % 10 === 0) throw new Error('ten');
            return scalar(Number(a));
          },
        },
        c: { inputs: ['n'], run: async ({ n }) => n, maxInFlight: 3 },
      },
      outputs: ['b', 'c'],
    });
    const settled = await Promise.allSettled(
      Array.from({ length: 10_000 }, (_, n) =>
        pipeline.run({ n }, n % 2 === 0 ? { signal: abort.signal } : {}),
      ),
    );
    expect(most).toBe(5);
    const reasons = new Set(
      settled.map((result) => (result.status === 'rejected' ? String(result.reason) : 'ok')),
    );
    expect(reasons).toEqual(new Set(['ok', 'Error: ten', 'Error: enough']));
    await settleAll();
    for (const stats of Object.values(pipeline.stats()))
      expect(stats).toMatchObject({ inFlight: 0, waiting: 0 });
  });
});
