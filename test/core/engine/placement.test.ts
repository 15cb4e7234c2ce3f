import { describe, expect, it } from 'vitest';
import type { Backend, Session } from '../../../src/core/backend.ts';
import { BackendError } from '../../../src/core/errors.ts';
import { chooseInline, chooseThreads, placedAt, withinCores } from '../../../src/engine/placement.ts';
import { fakeBackend, manualClock } from './fakes.ts';

/** Sessions whose runs take as long as the test says. */
function stage(cores?: number) {
  const clock = { ...manualClock(), ...(cores !== undefined && { cores }) };
  const released: string[] = [];
  const runs: Record<string, number> = {};
  const session = (name: string, ms: number | Error, threads = 1): Session => ({
    signature: {
      inputs: [{ name: 'x', dtype: 'float32', shape: ['n'] }],
      outputs: [{ name: 'y', dtype: 'float32', shape: ['n'] }],
    },
    provider: 'cpu',
    placement: 'worker',
    intraOpThreads: threads,
    run: async (feeds) => {
      runs[name] = (runs[name] ?? 0) + 1;
      if (ms instanceof Error) throw ms;
      clock.advance(ms);
      return feeds;
    },
    release: async () => {
      released.push(name);
    },
  });
  return { clock, released, runs, session };
}

const refusal = new BackendError('ERR_INLAY_RUN_FAILED', 'Out of range.');
const unavailable = new BackendError('ERR_INLAY_DEVICE_UNAVAILABLE', 'No threads.');

describe('placedAt', () => {
  it('gives the backend in that place, or as it is where it has only one', () => {
    const inline = fakeBackend({ name: 'inline' });
    const backend: Backend = { ...fakeBackend(), elsewhere: { inline } };
    expect(placedAt(backend, 'inline')).toBe(inline);
    expect(placedAt(inline, 'process')).toBe(inline);
    expect(() => placedAt(backend, 'process')).toThrow("does not run with placement 'process'");
  });
});

describe('chooseInline', () => {
  it('moves a short run to the calling thread, and releases the session in the worker', async () => {
    const { clock, released, session } = stage();
    const near = session('near', 0.02);
    const chosen = await chooseInline(clock, session('far', 0.2), async () => near);
    expect(chosen).toEqual({
      session: near,
      placementReason: 'a run takes 0.020 ms on the calling thread, 0.20 through a worker',
    });
    expect(released).toEqual(['far']);
  });

  it('leaves a run that is not short where it is', async () => {
    const { clock, released, session } = stage();
    const far = session('far', 0.2);
    const chosen = await chooseInline(clock, far, async () => session('near', 0.1));
    expect([chosen.session, released]).toEqual([far, ['near']]);
  });

  it('does not open a model a second time whose run takes long', async () => {
    const { clock, runs, session } = stage();
    const far = session('far', 30);
    const chosen = await chooseInline(clock, far, () => expect.fail('It opened.'));
    expect(chosen).toEqual({ session: far, placementReason: 'a run takes 30 ms' });
    expect(runs['far']).toBeLessThan(5);
  });

  it('stays in the worker, and says why, when nothing can be timed or opened', async () => {
    const { clock, released, session } = stage();
    const silent = session('silent', refusal);
    expect(await chooseInline(clock, silent, () => expect.fail('It opened.'))).toEqual({
      session: silent,
      placementReason: 'it takes no example feeds to be timed with',
    });
    const far = session('far', 0.1);
    expect(await chooseInline(clock, far, () => Promise.reject(unavailable))).toEqual({
      session: far,
      placementReason: 'it does not open on the calling thread',
    });
    expect(await chooseInline(clock, far, async () => session('near', refusal))).toEqual({
      session: far,
      placementReason: 'it does not run on the calling thread',
    });
    expect(released).toEqual(['near']);
  });
});

describe('chooseThreads', () => {
  it('takes all cores where a run becomes nearly as much faster', async () => {
    const { clock, released, session } = stage(4);
    const wide = session('wide', 2.6, 4);
    const chosen = await chooseThreads(clock, session('one', 10), async (threads) => {
      expect(threads).toBe(4);
      return wide;
    });
    expect(chosen).toEqual({ session: wide, threadsReason: 'a run takes 10 ms on one thread, 2.6 on 4' });
    expect(released).toEqual(['one']);
  });

  it('keeps one thread where it does not, where it cannot be timed, opened or run, and on one core', async () => {
    const { clock, released, session } = stage(4);
    const one = session('one', 10);
    const reasons: string[] = [];
    for (const open of [
      async () => session('slow', 3, 4),
      async () => session('failing', refusal, 4),
      () => Promise.reject(unavailable),
    ]) {
      const chosen = await chooseThreads(clock, one, open);
      expect(chosen.session).toBe(one);
      reasons.push(chosen.threadsReason);
    }
    expect(reasons).toEqual([
      'a run takes 10 ms on one thread, 3.0 on 4',
      'it does not run on 4 threads',
      'it does not open with 4 threads',
    ]);
    expect(released).toEqual(['slow', 'failing']);
    const silent = session('silent', refusal);
    expect((await chooseThreads(clock, silent, () => expect.fail('It opened.'))).threadsReason).toMatch(
      /no example feeds/,
    );
    expect((await chooseThreads(stage(1).clock, one, () => expect.fail('It opened.'))).threadsReason).toBe(
      'there is one core',
    );
  });
});

describe('withinCores', () => {
  it('lets a session grow as long as all its threads have a core', () => {
    const { clock, session } = stage(4);
    const slots = [{ name: 'worker 1' }];
    let grown = 0;
    const growing = (threads: number): Session => ({
      ...session('any', 1, threads),
      slots,
      grow: async () => {
        grown += 1;
      },
    });
    const within = withinCores(clock, growing(2));
    expect(within.grow?.()).toBeDefined();
    slots.push({ name: 'worker 2' });
    expect(within.grow?.()).toBeUndefined();
    expect(grown).toBe(1);
    const narrow = growing(1);
    expect(withinCores(clock, narrow)).toBe(narrow);
    const fixed = session('fixed', 1, 4);
    expect(withinCores(clock, fixed)).toBe(fixed);
  });
});
