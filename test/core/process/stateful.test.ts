import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import type { Signature } from '../../../src/core/signature.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { createStateful, type StatefulRunOptions } from '../../../src/process/index.ts';

const scalar = (value: number): Tensor<'float32'> => new Tensor('float32', [1], new Float32Array([value]));
const numberOf = (tensor: Tensor | undefined): number => tensor?.data[0] as number;

const signature: Signature = {
  inputs: [
    { name: 'x', dtype: 'float32', shape: [1] },
    { name: 'total', dtype: 'float32', shape: ['batch'] },
  ],
  outputs: [
    { name: 'y', dtype: 'float32', shape: [1] },
    { name: 'totalN', dtype: 'float32', shape: ['batch'] },
  ],
};
const state = { totalN: 'total' };

/** Adds up; each run waits until the test lets it go on. */
function createSum(changes: Partial<Signature> = {}): {
  readonly model: {
    readonly signature: Signature;
    run(feeds: Readonly<Record<string, Tensor>>, options?: StatefulRunOptions): Promise<TensorMap>;
  };
  readonly calls: { readonly feeds: TensorMap; readonly options: StatefulRunOptions | undefined }[];
  readonly gates: (() => void)[];
  readonly faults: Set<number>;
} {
  const calls: { feeds: TensorMap; options: StatefulRunOptions | undefined }[] = [];
  const gates: (() => void)[] = [];
  const faults = new Set<number>();
  return {
    calls,
    gates,
    faults,
    model: {
      signature: { ...signature, ...changes },
      async run(feeds, options) {
        calls.push({ feeds, options });
        const number = calls.length;
        const before = numberOf(feeds['total']);
        if (gates.length > 0) await new Promise<void>((resolve) => gates.push(resolve));
        if (faults.has(number)) throw new Error(`run ${number} failed`);
        const total = before + numberOf(feeds['x']);
        return { y: scalar(10 * total), totalN: scalar(total) };
      },
    },
  };
}

describe('a stream', () => {
  it('feeds each run the state that the one before it gave, zeros at first', async () => {
    const { model } = createSum();
    const stream = createStateful(model, { state });
    expect(numberOf(stream.state['total'])).toBe(0);
    expect(numberOf((await stream.run({ x: scalar(1) }))['y'])).toBe(10);
    expect(numberOf((await stream.run({ x: scalar(2) }))['y'])).toBe(30);
    expect(numberOf(stream.state['total'])).toBe(3);
  });

  it('keeps calls in the order in which they were made, one at a time', async () => {
    const { model, calls, gates } = createSum();
    gates.push(() => {});
    const stream = createStateful(model, { state });
    const answers = [1, 2, 3].map((x) => stream.run({ x: scalar(x) }));
    for (let run = 1; run <= 3; run += 1) {
      while (gates.length <= run) await Promise.resolve();
      expect(calls).toHaveLength(run);
      gates[run]?.();
    }
    expect((await Promise.all(answers)).map(({ y }) => numberOf(y))).toEqual([10, 30, 60]);
  });

  it('keeps its state when a run fails, and goes on with it', async () => {
    const { model, faults } = createSum();
    const stream = createStateful(model, { state });
    faults.add(2);
    const answers = await Promise.allSettled([1, 2, 4].map((x) => stream.run({ x: scalar(x) })));
    expect(answers.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(answers[1]).toMatchObject({ reason: new Error('run 2 failed') });
    expect(numberOf(stream.state['total'])).toBe(5);
  });

  it('drops a call that is aborted while it waits, at once and without a run', async () => {
    const { model, calls, gates } = createSum();
    gates.push(() => {});
    const stream = createStateful(model, { state });
    const first = stream.run({ x: scalar(1) });
    const aborter = new AbortController();
    const second = stream.run({ x: scalar(2) }, { signal: aborter.signal });
    const third = stream.run({ x: scalar(4) });
    const reason = new Error('too late');
    aborter.abort(reason);
    await expect(second).rejects.toBe(reason);
    for (let run = 1; run <= 2; run += 1) {
      while (gates.length <= run) await Promise.resolve();
      gates[run]?.();
    }
    await Promise.all([first, third]);
    expect(calls).toHaveLength(2);
    expect(numberOf(stream.state['total'])).toBe(5);
  });

  it('keeps its state when a call is aborted while it runs', async () => {
    const { model, gates } = createSum();
    gates.push(() => {});
    const stream = createStateful(model, { state });
    const aborter = new AbortController();
    const run = stream.run({ x: scalar(2) }, { signal: aborter.signal });
    while (gates.length < 2) await Promise.resolve();
    aborter.abort(new Error('too late'));
    gates[1]?.();
    await expect(run).rejects.toThrow('too late');
    expect(numberOf(stream.state['total'])).toBe(0);
  });

  it('says so when the model has lost its state output, and keeps the state', async () => {
    const { model } = createSum();
    const forgetful = { ...model, run: async () => ({ y: scalar(1) }) };
    const stream = createStateful(forgetful, { state });
    await expect(stream.run({ x: scalar(1) })).rejects.toMatchObject({ code: 'ERR_INLAY_OUTPUT_UNKNOWN' });
    expect(numberOf(stream.state['total'])).toBe(0);
  });

  it('begins anew after reset, for calls from then on', async () => {
    const { model } = createSum();
    const stream = createStateful(model, { state, initial: { total: scalar(100) } });
    const before = [stream.run({ x: scalar(1) }), stream.run({ x: scalar(1) })];
    stream.reset();
    const after = stream.run({ x: scalar(5) });
    expect((await Promise.all([...before, after])).map(({ totalN }) => numberOf(totalN))).toEqual([
      101, 102, 105,
    ]);
  });

  it('is apart from other streams of its model', async () => {
    const { model } = createSum();
    const [a, b] = [createStateful(model, { state }), createStateful(model, { state })];
    await Promise.all([a.run({ x: scalar(1) }), b.run({ x: scalar(2) })]);
    expect([numberOf(a.state['total']), numberOf(b.state['total'])]).toEqual([1, 2]);
  });

  it('asks for the state even if the caller wants other outputs', async () => {
    const { model, calls } = createSum();
    await createStateful(model, { state }).run({ x: scalar(1) }, { outputs: ['y'] });
    expect(calls[0]?.options?.outputs).toEqual(['y', 'totalN']);
  });

  it('hands only a copy of its state over', async () => {
    const { model, calls } = createSum();
    const stream = createStateful(model, { state });
    const kept = stream.state['total'];
    await stream.run({ x: scalar(1) }, { transfer: true });
    expect(calls[0]?.feeds['total']?.data).toEqual(new Float32Array(1));
    expect(calls[0]?.feeds['total']?.data).not.toBe(kept?.data);
    await stream.run({ x: scalar(1) });
    expect(calls[1]?.feeds['total']).not.toBe(kept);
  });
});

describe('the initial state', () => {
  const inputs = (shape: readonly (number | string | null)[] | null): Partial<Signature> => ({
    inputs: [{ name: 'total', dtype: 'int64', shape }],
  });

  it('has the shape of the signature, with 1 or the given size for symbolic dimensions', () => {
    const { model } = createSum(inputs([2, 'batch', null, 'past']));
    const stream = createStateful(model, { state, sizes: { past: 0 } });
    expect(stream.state['total']).toMatchObject({ dtype: 'int64', shape: [2, 1, 1, 0] });
    expect(createStateful(model, { state }).state['total']?.data).toEqual(new BigInt64Array(2));
  });

  it.each([
    [
      'an output that there is not',
      { state: { h: 'total' } },
      /no output "h" to carry state; it has y, totalN/,
    ],
    [
      'an input that there is not',
      { state: { totalN: 'h' } },
      /no input "h" to carry state; it has x, total/,
    ],
    [
      'a start for something else',
      { state, initial: { x: scalar(1) } },
      /initial holds "x", which is no state input/,
    ],
    [
      'a size that is none',
      { state, sizes: { batch: -1 } },
      /sizes\.batch must be an integer of at least 0, got -1/,
    ],
  ])('refuses %s', (_, options, message) => {
    expect(() => createStateful(createSum().model, options)).toThrow(RangeError);
    expect(() => createStateful(createSum().model, options)).toThrow(message);
  });

  it('must be given where the signature has no shape', () => {
    const { model } = createSum(inputs(null));
    expect(() => createStateful(model, { state })).toThrow(
      /no zeros for total: int64 \[…\]; give initial\.total/,
    );
    expect(createStateful(model, { state, initial: { total: scalar(7) } }).state['total']?.data[0]).toBe(7);
  });
});
