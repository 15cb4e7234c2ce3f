import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createWatchdog } from '../../../src/workers/watchdog.ts';

/** A clock that goes when told to; its timers fire in order, late when the event loop stands still. */
function createClock() {
  const timers = new Set<{ readonly atMs: number; readonly task: () => void }>();
  const clock = {
    nowMs: 0,
    timers,
    now: () => clock.nowMs,
    setTimer: (task: () => void, delayMs: number) => {
      const timer = { atMs: clock.nowMs + delayMs, task };
      timers.add(timer);
      return () => void timers.delete(timer);
    },
    fire: () => {
      const due = [...timers].filter(({ atMs }) => atMs <= clock.nowMs).sort((a, b) => a.atMs - b.atMs);
      for (const timer of due) if (timers.delete(timer)) timer.task();
    },
    go: (ms: number) => {
      const endMs = clock.nowMs + ms;
      while (clock.nowMs < endMs) {
        clock.nowMs += 1;
        clock.fire();
      }
    },
    stall: (ms: number) => {
      clock.nowMs += ms;
      clock.fire();
    },
  };
  return clock;
}

function start() {
  const clock = createClock();
  const hung: number[] = [];
  const watch = createWatchdog((limitMs) => hung.push(limitMs), clock);
  return { clock, hung, watch };
}

describe('createWatchdog', () => {
  it('reports a call that passes its limit, once, soon after', () => {
    const { clock, hung, watch } = start();
    watch(100);
    clock.go(99);
    expect(hung).toEqual([]);
    clock.go(30);
    expect(hung).toEqual([100]);
    clock.go(1000);
    expect(hung).toEqual([100]);
    expect(clock.timers.size).toBe(0);
  });

  it('gives each call its own time', () => {
    const { clock, hung, watch } = start();
    for (let call = 0; call < 20; call += 1) {
      watch(100);
      clock.go(90);
    }
    expect(hung).toEqual([]);
    clock.go(40);
    expect(hung).toEqual([100]);
  });

  it('keeps a short limit after a long one', () => {
    const { clock, hung, watch } = start();
    watch(30_000);
    clock.go(50);
    watch(100);
    clock.go(130);
    expect(hung).toEqual([100]);
  });

  it('gives a worker that slept together with its host no more than the limit again', () => {
    const { clock, hung, watch } = start();
    watch(100);
    clock.stall(1_000_000);
    clock.go(99);
    expect(hung).toEqual([]);
    clock.go(2);
    expect(hung).toEqual([100]);
  });

  it('has one timer for many calls, and none once that has fired without one', () => {
    const { clock, hung, watch } = start();
    for (let call = 0; call < 20; call += 1) {
      watch(100);
      clock.go(1);
      watch(undefined);
      expect(clock.timers.size).toBe(1);
    }
    clock.go(100);
    expect(clock.timers.size).toBe(0);
    clock.go(1000);
    expect(hung).toEqual([]);
  });

  it('does not count the time in which its own event loop stood still', () => {
    const { clock, hung, watch } = start();
    watch(100);
    clock.go(50);
    clock.stall(5000);
    expect(hung).toEqual([]);
    // The answer that waited is read now.
    watch(undefined);
    clock.go(10_000);
    expect(hung).toEqual([]);
  });

  it('reports exactly the calls that pass their limit', () => {
    const call = fc.record({
      limitMs: fc.integer({ min: 30, max: 300 }),
      share: fc.constantFrom(0, 0.5, 0.9, 1.6, 3),
      idle: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(call, { maxLength: 20 }), (calls) => {
        const { clock, hung, watch } = start();
        const expected: number[] = [];
        for (const { limitMs, share, idle } of calls) {
          watch(limitMs);
          const tookMs = Math.floor(limitMs * share) + (share > 1 ? 30 : 0);
          clock.go(tookMs);
          if (share > 1) expected.push(limitMs);
          if (idle) {
            watch(undefined);
            clock.go(500);
          }
        }
        expect(hung).toEqual(expected);
      }),
    );
  });
});
