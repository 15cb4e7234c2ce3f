/** Calls in the shadow: what a release gets of them, and that nobody notices. */
import { describe, expect, it } from 'vitest';
import type { TensorMap } from '../../../src/core/backend.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { createMirror, type Mirror } from '../../../src/engine/mirror.ts';
import type { CallOptions } from '../../../src/schedule/job.ts';
import { testPlatform } from '../platform.ts';
import { answerOf, callOften, createWorld, made, startDevice, type Device, type World } from './device.ts';

const minute = 60_000;
const floats = (...values: number[]): Tensor =>
  new Tensor('float32', [1, values.length], Float32Array.from(values));

interface Bench {
  readonly mirror: Mirror;
  readonly outcomes: string[];
  /** What the release in the shadow was asked. */
  readonly asked: { readonly feeds: TensorMap; readonly call: CallOptions }[];
  /** Lets the caller have its answer, and what comes after it happen. */
  turn(): Promise<void>;
}

function setUp(sampleBp: number, run: (feeds: TensorMap) => Promise<TensorMap>): Bench {
  const platform = testPlatform();
  const outcomes: string[] = [];
  const asked: Bench['asked'] = [];
  const serving = {
    run: (feeds: TensorMap, call: CallOptions) => {
      asked.push({ feeds, call });
      return run(feeds);
    },
  };
  const watch = { answered: () => outcomes.push('answered'), failed: () => outcomes.push('error') };
  const target = { golden: undefined, watch };
  const observer = { shadow: (outcome: string) => void outcomes.push(outcome) };
  const mirror = createMirror({ platform, serving, target, sampleBp, observer });
  const turn = async (): Promise<void> => {
    platform.advance(0);
    for (let i = 0; i < 5; i += 1) await Promise.resolve();
  };
  return { mirror, outcomes, asked, turn };
}

describe('a mirror', () => {
  it('takes the first call, and then every tenth where that is the share', async () => {
    const { mirror, turn } = setUp(1000, async () => ({ y: floats(1, 0) }));
    const taken: number[] = [];
    for (let call = 0; call < 25; call += 1) {
      const sample = mirror.take({ x: floats(call) }, undefined);
      if (sample) taken.push(call);
      sample?.answered({ y: floats(1, 0) });
      await turn();
    }
    expect(taken).toEqual([0, 10, 20]);
  });

  it('says whether answers are alike, after the caller has its own', async () => {
    const answers = [floats(1, 0), floats(0, 1)];
    const { mirror, outcomes, turn } = setUp(10_000, async () => ({ y: answers.shift() ?? floats(0, 0) }));
    for (const expected of [floats(9, 1), floats(9, 1)]) {
      mirror.take({ x: floats(1) }, undefined)?.answered({ y: expected });
      expect(outcomes.length % 2).toBe(0);
      await turn();
    }
    expect(outcomes).toEqual(['alike', 'answered', 'unlike', 'answered']);
  });

  it('repeats what was asked, whatever becomes of the feeds and answers of the caller', async () => {
    const { mirror, asked, outcomes, turn } = setUp(10_000, async () => ({ y: floats(1, 0) }));
    const [x, y] = [floats(1, 2), floats(1, 0)];
    const sample = mirror.take({ x }, ['y']);
    (x.data as Float32Array).fill(7);
    sample?.answered({ y });
    (y.data as Float32Array).fill(7);
    structuredClone(y.data, { transfer: [(y.data as Float32Array).buffer] });
    await turn();
    expect([...((asked[0]?.feeds['x']?.data as Float32Array) ?? [])]).toEqual([1, 2]);
    expect(asked[0]?.call).toMatchObject({ priority: -100, outputs: ['y'] });
    expect(outcomes[0]).toBe('alike');
  });

  it('has one call at a time, and drops the others', async () => {
    let finish = (): void => {};
    const { mirror, turn } = setUp(
      10_000,
      () => new Promise((resolve) => (finish = () => resolve({ y: floats(1, 0) }))),
    );
    mirror.take({ x: floats(1) }, undefined)?.answered({ y: floats(1, 0) });
    await turn();
    expect(mirror.take({ x: floats(2) }, undefined)).toBeUndefined();
    finish();
    await turn();
    const next = mirror.take({ x: floats(3) }, undefined);
    expect(next).toBeDefined();
    next?.dropped();
    expect(mirror.take({ x: floats(4) }, undefined)).toBeDefined();
  });

  it('hears of failures, and goes on', async () => {
    const { mirror, outcomes, turn } = setUp(10_000, () => Promise.reject(new Error('It fails.')));
    for (let call = 0; call < 2; call += 1) {
      mirror.take({ x: floats(1) }, undefined)?.answered({ y: floats(1, 0) });
      await turn();
    }
    expect(outcomes).toEqual(['failed', 'error', 'failed', 'error']);
  });

  it('leaves calls alone that are too large to copy beside others', () => {
    const { mirror } = setUp(10_000, async () => ({}));
    const large = new Tensor('float32', [2 ** 22 + 1], new Float32Array(2 ** 22 + 1));
    expect(mirror.take({ x: large }, undefined)).toBeUndefined();
    const many = new Tensor('float32', [2 ** 18 + 1], new Float32Array(2 ** 18 + 1));
    mirror.take({ x: floats(1) }, undefined)?.answered({ y: many });
    expect(mirror.take({ x: floats(1) }, undefined)).toBeDefined();
  });

  it('that is stopped gives up what is under way, and says nothing of it', async () => {
    const { mirror, asked, outcomes, turn } = setUp(10_000, () => new Promise(() => {}));
    mirror.take({ x: floats(1) }, undefined)?.answered({ y: floats(1, 0) });
    await turn();
    void mirror.stop();
    expect(asked[0]?.call.signal?.aborted).toBe(true);
    expect(outcomes).toEqual([]);
    expect(mirror.take({ x: floats(1) }, undefined)).toBeUndefined();
  });
});

async function shadowed(bytes: Uint8Array): Promise<{
  readonly world: World;
  readonly device: Device;
  readonly model: Awaited<ReturnType<Device['load']>>;
}> {
  const world = await createWorld();
  await world.ship('1.0.0', made(2));
  const device = startDevice(world);
  const model = await device.load();
  await callOften(model);
  await device.pass(2 * minute);
  await world.ship('1.1.0', bytes);
  await world.change({ state: 'ramp', bp: 0, shadow: { bp: 10_000, sampleBp: 10_000 } });
  await device.update();
  return { world, device, model };
}

describe('a release in the shadow', () => {
  it.each([
    ['does well', made(3)],
    ['fails at every call', made(3, 'fails')],
    ['gives no numbers', made(3, 'givesNaN')],
    ['does not open', made(3, 'refusesToOpen')],
  ])('that %s answers nobody', async (_, bytes) => {
    const { device, model } = await shadowed(bytes);
    for (let call = 0; call < 6; call += 1) {
      expect(await answerOf(model)).toEqual(['1.0.0', 2]);
      await device.pass(100);
    }
    const { trial, rejected, committed } = await device.slots();
    expect(committed?.release.version).toBe('1.0.0');
    const isGood = bytes[0] === made(3)[0];
    expect([trial !== undefined, rejected.length]).toEqual([isGood, isGood ? 0 : 1]);
    await device.inlay.close();
  });

  it('answers once the share has come to it', async () => {
    const { world, device, model } = await shadowed(made(3));
    await world.change({ state: 'complete', bp: 10_000, shadow: undefined });
    await device.update();
    expect(await answerOf(model)).toEqual(['1.1.0', 3]);
    await device.inlay.close();
  });

  it('goes with its model', async () => {
    const { device, model } = await shadowed(made(3));
    await model.close();
    await device.inlay.close();
  });
});
