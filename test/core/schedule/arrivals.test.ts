import { describe, expect, it } from 'vitest';
import { createArrivals } from '../../../src/schedule/arrivals.ts';

describe('arrival rate', () => {
  it('is nothing before the first call', () => {
    expect(createArrivals().perMs(50)).toBe(0);
  });

  it('settles at the rate of steady arrivals', () => {
    const arrivals = createArrivals();
    for (let now = 0; now < 2000; now += 2) arrivals.count(3, now);
    expect(arrivals.perMs(2000)).toBeGreaterThan(1.4);
    expect(arrivals.perMs(2000)).toBeLessThan(1.6);
  });

  it('follows a rate that has changed within half a second', () => {
    const arrivals = createArrivals();
    for (let now = 0; now < 1000; now += 1) arrivals.count(1, now);
    for (let now = 1000; now < 1500; now += 1) arrivals.count(5, now);
    expect(arrivals.perMs(1500)).toBeGreaterThan(4.7);
    expect(arrivals.perMs(1500)).toBeLessThan(5.1);
  });

  it('fades when nothing comes', () => {
    const arrivals = createArrivals();
    arrivals.count(1000, 0);
    expect(arrivals.perMs(0)).toBeCloseTo(10);
    expect(arrivals.perMs(100)).toBeCloseTo(10 / Math.E);
    expect(arrivals.perMs(10_000)).toBeLessThan(1e-9);
  });

  it('does not depend on how often it is asked', () => {
    const [asked, left] = [createArrivals(), createArrivals()];
    for (const arrivals of [asked, left]) arrivals.count(7, 10);
    for (let now = 10; now < 200; now += 1) asked.perMs(now);
    expect(asked.perMs(200)).toBeCloseTo(left.perMs(200), 12);
  });
});
