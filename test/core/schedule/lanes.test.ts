import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import type { Signature } from '../../../src/core/signature.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { createLanes } from '../../../src/schedule/lanes.ts';
import { newJob } from './virtual.ts';

const OPTIONS = { maxSamples: 64, maxRunMs: Infinity };
const VARIABLE: Signature = {
  inputs: [
    { name: 'a', dtype: 'float32', shape: ['batch', 'length'] },
    { name: 'b', dtype: 'float32', shape: ['batch', 'height', 'width'] },
  ],
  outputs: [],
};
const FIXED: Signature = { inputs: [{ name: 'a', dtype: 'float32', shape: ['batch', 3] }], outputs: [] };

const zeros = (shape: readonly number[]): Tensor =>
  new Tensor('float32', shape, new Float32Array(shape.reduce((size, length) => size * length, 1)));
const feeds = (a: readonly number[], b: readonly number[] = [1, 1, 1]): TensorMap => ({
  a: zeros(a),
  b: zeros(b),
});

describe('lanes', () => {
  it('are one where the model fixes all axes but the first', () => {
    const lanes = createLanes(FIXED, OPTIONS);
    expect(lanes.of({ a: zeros([1, 3]) })).toBe(lanes.of({ a: zeros([9, 3]) }));
    expect(lanes.of({ a: zeros([1, 3]) }).key).toBe('');
  });

  it('are shared by feeds that differ in the first axis only', () => {
    const lanes = createLanes(VARIABLE, OPTIONS);
    expect(lanes.of(feeds([1, 5]))).toBe(lanes.of(feeds([4, 5], [4, 1, 1])));
    expect(lanes.of(feeds([1, 5]))).not.toBe(lanes.of(feeds([1, 6])));
  });

  it('tell shapes apart whose digits are the same', () => {
    const lanes = createLanes(VARIABLE, OPTIONS);
    const keys = [
      feeds([1, 12], [1, 3, 4]),
      feeds([1, 1], [1, 23, 4]),
      feeds([1, 1], [1, 2, 34]),
      feeds([1, 12], [1, 34, 1]),
    ];
    expect(new Set(keys.map((each) => lanes.of(each))).size).toBe(keys.length);
  });

  it('tell ranks apart where the model leaves them open', () => {
    const open: Signature = { inputs: [{ name: 'a', dtype: 'float32', shape: null }], outputs: [] };
    const lanes = createLanes(open, OPTIONS);
    const all = [[2], [2, 2], [2, 2, 1], []].map((shape) => lanes.of({ a: zeros(shape) }));
    // A scalar and a vector have no axis but the first.
    expect(new Set(all).size).toBe(3);
  });

  it('are kept in a bounded number, and those with work stay', () => {
    const lanes = createLanes(VARIABLE, OPTIONS);
    const waiting = lanes.of(feeds([1, 1]));
    waiting.line.push(newJob({ lane: waiting }));
    const retrying = lanes.of(feeds([1, 2]));
    retrying.retries.push([newJob({ lane: retrying })]);
    for (let length = 3; length < 500; length += 1) lanes.of(feeds([1, length]));
    expect([...lanes.all()].length).toBeLessThanOrEqual(64);
    expect(lanes.of(feeds([1, 1]))).toBe(waiting);
    expect(lanes.of(feeds([1, 2]))).toBe(retrying);
  });

  it('forget the one that was not used for longest', () => {
    const lanes = createLanes(VARIABLE, OPTIONS);
    const popular = lanes.of(feeds([1, 1000]));
    for (let length = 1; length < 200; length += 1) {
      lanes.of(feeds([1, length]));
      expect(lanes.of(feeds([1, 1000]))).toBe(popular);
    }
  });

  it('start with what was written down of them', () => {
    const first = createLanes(VARIABLE, OPTIONS);
    const lane = first.of(feeds([1, 5]));
    for (let run = 0; run < 40; run += 1) {
      const { samples } = lane.cap;
      lane.cost.observe(samples, samples + 10);
      lane.cap.review(samples);
    }
    first.of(feeds([1, 6]));
    const record = first.toRecord();
    expect(Object.keys(record)).toEqual([lane.key]);
    const again = createLanes(VARIABLE, { ...OPTIONS, record: JSON.parse(JSON.stringify(record)) }).of(
      feeds([1, 5]),
    );
    expect(again.cap.samples).toBe(lane.cap.samples);
    expect(again.cost.predict(8)).toBeCloseTo(lane.cost.predict(8), 10);
  });

  it('do not exceed a limit that has become smaller than what was learned', () => {
    const record = { '': { cost: { sums: [1, 1, 1, 1, 1], sizes: [], spread: 0 }, cap: 64 } };
    expect(
      createLanes(FIXED, { ...OPTIONS, maxSamples: 8, record }).of({ a: zeros([1, 3]) }).cap.samples,
    ).toBe(8);
  });
});
