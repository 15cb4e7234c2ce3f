import { describe, expect, it } from 'vitest';
import type { Session, SessionRunOptions, TensorMap } from '../../../src/core/backend.ts';
import { BackendError } from '../../../src/core/errors.ts';
import { Tensor } from '../../../src/core/tensor.ts';
import { withStandIn, type StandInParts } from '../../../src/engine/stand-in.ts';
import { manualClock } from './fakes.ts';

const feeds: TensorMap = { x: new Tensor('float32', [1, 2], new Float32Array([1, 2])) };
const lost = new BackendError('ERR_INLAY_DEVICE_UNAVAILABLE', 'The device was lost.', {
  details: { reason: 'unknown' },
});

/** A session that says what it was asked. */
function session(provider: string, answer: () => Promise<TensorMap> | TensorMap = () => feeds) {
  const runs: (SessionRunOptions | undefined)[] = [];
  const state = { releases: 0 };
  const opened: Session = {
    signature: { inputs: [], outputs: [] },
    provider,
    placement: 'worker',
    run: async (_, options) => {
      runs.push(options);
      return answer();
    },
    release: async () => {
      state.releases += 1;
    },
  };
  return { opened, runs, state };
}

/** Something that is to happen when the test says so. */
function gate<T>(): { promise: Promise<T>; open(value: T): void; fail(error: Error): void } {
  let open!: (value: T) => void;
  let fail!: (error: Error) => void;
  const promise = new Promise<T>((resolve, reject) => {
    open = resolve;
    fail = reject;
  });
  return { promise, open, fail };
}

/** A GPU that is lost, and the CPU behind it. */
function start(parts: Partial<StandInParts> = {}) {
  const clock = manualClock();
  const gpu = session('webgpu', () => Promise.reject(lost));
  const cpu = session('wasm');
  const moves: unknown[] = [];
  const whole = withStandIn(gpu.opened, {
    count: () => 'it broke down too often',
    nowMs: clock.monotonicMs,
    open: async () => cpu.opened,
    onMoved: (from, to, reason) => moves.push([from, to.provider, reason]),
    ...parts,
  });
  return { whole, gpu, cpu, clock, moves };
}

describe('withStandIn', () => {
  it('answers elsewhere the run that was one breakdown too many, and all later ones', async () => {
    const { whole, gpu, cpu, moves } = start();
    expect(await whole.run(feeds)).toBe(feeds);
    expect(await whole.run(feeds)).toBe(feeds);
    expect([gpu.runs.length, cpu.runs.length]).toEqual([1, 2]);
    expect(moves).toEqual([['webgpu', 'wasm', 'it broke down too often']]);
    await whole.release();
    expect([gpu.state.releases, cpu.state.releases]).toEqual([1, 1]);
  });

  it('runs nothing on a device that it is leaving', async () => {
    const opening = gate<Session>();
    const { whole, gpu, cpu } = start({ open: () => opening.promise });
    const first = whole.run(feeds);
    await expect.poll(() => gpu.runs.length).toBe(1);
    const second = whole.run(feeds);
    opening.open(cpu.opened);
    await Promise.all([first, second]);
    expect([gpu.runs.length, cpu.runs.length]).toEqual([1, 2]);
  });

  it('names no slot of the first session elsewhere', async () => {
    const { whole, cpu } = start();
    const options = { slot: { name: 'worker 3', isOccupied: false }, outputs: ['y'] };
    await whole.run(feeds, options);
    await whole.run(feeds, options);
    expect(cpu.runs).toEqual([{ outputs: ['y'] }, { outputs: ['y'] }]);
  });

  it('moves also when feeds were transferred, which it does not run again', async () => {
    const { whole, cpu } = start();
    await expect(whole.run(feeds, { transfer: true })).rejects.toBe(lost);
    expect(cpu.runs).toEqual([]);
    await whole.run(feeds, { transfer: true });
    expect(cpu.runs).toEqual([{ transfer: true }]);
    expect(whole.provider).toBe('wasm');
  });

  it('opens nothing for a run that outlives its session', async () => {
    const running = gate<TensorMap>();
    const gpu = session('webgpu', () => running.promise);
    let openings = 0;
    const { cpu } = start();
    const whole = withStandIn(gpu.opened, {
      count: () => 'it broke down too often',
      nowMs: () => 0,
      open: async () => {
        openings += 1;
        return cpu.opened;
      },
      onMoved: () => {},
    });
    const run = whole.run(feeds);
    await expect.poll(() => gpu.runs.length).toBe(1);
    const release = whole.release();
    running.fail(lost);
    await expect(run).rejects.toBe(lost);
    await release;
    expect([openings, gpu.state.releases]).toEqual([0, 1]);
  });

  it('releases what opens while it is being released', async () => {
    const opening = gate<Session>();
    const { whole, gpu, cpu } = start({ open: () => opening.promise });
    const run = whole.run(feeds);
    await expect.poll(() => gpu.runs.length).toBe(1);
    await Promise.resolve();
    const release = whole.release();
    opening.open(cpu.opened);
    await Promise.all([run, release]);
    expect([gpu.state.releases, cpu.state.releases]).toEqual([1, 1]);
  });

  it('throws the breakdown when nothing opens elsewhere, and says why', async () => {
    const { whole } = start({ open: () => Promise.reject(new Error('There is no network.')) });
    await expect(whole.run(feeds)).rejects.toMatchObject({
      code: lost.code,
      message: lost.message,
      cause: lost,
      details: { reason: 'unknown', standIn: 'There is no network.' },
    });
    expect(whole.provider).toBe('webgpu');
  });

  it('goes on where it is after an opening that failed, and tries again after ten seconds', async () => {
    const opening = gate<Session>();
    let openings = 0;
    const { whole, gpu, cpu, clock } = start({
      open: () => {
        openings += 1;
        return openings === 1 ? opening.promise : Promise.resolve(cpu.opened);
      },
    });
    const first = whole.run(feeds);
    await expect.poll(() => openings).toBe(1);
    const second = whole.run(feeds);
    opening.fail(new Error('There is no network.'));
    await expect(first).rejects.toMatchObject({ code: lost.code });
    // It was run, rather than told of an opening that is not its own.
    await expect(second).rejects.toMatchObject({ code: lost.code });
    expect([gpu.runs.length, openings]).toEqual([2, 1]);
    clock.advance(10_000);
    expect(await whole.run(feeds)).toBe(feeds);
    expect(openings).toBe(2);
  });

  it('leaves alone what is the fault of the call, and what is not yet too much', async () => {
    const own = new BackendError('ERR_INLAY_RUN_FAILED', 'The run failed.');
    const gpu = session('webgpu', () => Promise.reject(own));
    const { whole, cpu } = start({ count: () => undefined });
    const other = withStandIn(gpu.opened, {
      count: () => 'it broke down too often',
      nowMs: () => 0,
      open: async () => cpu.opened,
      onMoved: () => {},
    });
    await expect(other.run(feeds)).rejects.toBe(own);
    await expect(whole.run(feeds)).rejects.toBe(lost);
    expect(cpu.runs).toEqual([]);
  });
});
