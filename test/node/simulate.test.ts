import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createAgenda } from '../../src/server/simulate/agenda.ts';
import { createSimulatedFleet } from '../../src/server/simulate/fleet.ts';
import { effectOf, readRegression } from '../../src/server/simulate/regression.ts';
import { simulateRollout, type SimulationOptions } from '../../src/server/simulate/simulate.ts';
import { temporaryDirectory } from './server-fixture.ts';

/** A large part of the fleet: one of this size has no devices to spare. */
const stage = { bp: 4000, ctl: 4000, soakS: 900, maxS: 14_400 } as const;
const everybody = { bp: 10_000, soakS: 600, maxS: 3600 } as const;
const good: SimulationOptions = {
  devices: 600,
  hours: 3,
  seed: 7,
  pollS: 900,
  programme: {
    strategy: 'canary',
    stages: [stage, everybody],
    guard: { required: [] },
  },
};
const bad: SimulationOptions = { ...good, regression: { kind: 'errors', before: 0.01, after: 0.3 } };

describe('a simulated rollout', { timeout: 90_000 }, () => {
  it('is halted when the release fails and all devices leave it, the same again after restarts of the server', async () => {
    const result = await simulateRollout(bad);
    expect(result).toMatchObject({ outcome: 'halted', stage: 0, brokenLooks: 0 });
    expect(result.exposed).toBeGreaterThan(0);
    expect(result.exposed).toBeLessThan(200);
    expect(result.leftAfterH).toBeGreaterThan(0);
    const database = join(await temporaryDirectory(), 'inlay.db');
    expect(await simulateRollout({ ...bad, database, restartsAtH: [0.1, 0.25] })).toEqual(result);
  });

  it('is halted when devices die of the release without a word', async () => {
    const result = await simulateRollout({ ...bad, regression: { kind: 'crash', share: 0.7 } });
    expect(result).toMatchObject({ outcome: 'halted', by: 'silence' });
  });

  it('goes through all stages with a good release', async () => {
    const result = await simulateRollout(good);
    expect(result).toMatchObject({ outcome: 'completed', stage: 1, brokenLooks: 0 });
  });
});

describe('a regression', () => {
  it('is read from text, and nothing else is', () => {
    expect(readRegression('errors:1:10')).toEqual({ kind: 'errors', before: 0.01, after: 0.1 });
    expect(readRegression('slower:1.5')).toEqual({ kind: 'slower', times: 1.5, share: 1 });
    expect(readRegression('memory:2:20')).toEqual({ kind: 'memory', times: 2, share: 0.2 });
    for (const text of [
      '',
      'errors',
      'errors:10',
      'errors:10:1',
      'slower:0',
      'nan:101',
      'crash:1:2',
      'odd:1',
    ]) {
      expect(readRegression(text), text).toBeUndefined();
    }
  });

  it('befalls the devices that it befell before', () => {
    const errors = { kind: 'errors', before: 0.05, after: 0.2 } as const;
    expect(effectOf(errors, false, 0.03).failing).toBeGreaterThan(0);
    expect(effectOf(errors, true, 0.03).failing).toBeGreaterThan(0);
    expect(effectOf(errors, false, 0.1).failing).toBe(0);
    expect(effectOf(errors, true, 0.1).failing).toBeGreaterThan(0);
  });
});

describe('the agenda', () => {
  it('gives events in the order of their times, and those of one time as they came', () => {
    const agenda = createAgenda(1000);
    for (const [device, at] of [2500, 100, 900, 100].entries()) agenda.add({ device, at, what: 'report' });
    expect(agenda.take(2000).map(({ device }) => device)).toEqual([1, 3, 2]);
    expect(agenda.take(2000)).toEqual([]);
    expect(agenda.take(3000).map(({ device }) => device)).toEqual([0]);
  });
});

describe('a simulated fleet', () => {
  it('has one device in twenty that was bad before, and names that differ', () => {
    const fleet = createSimulatedFleet(20_000, 3);
    const devices = Array.from({ length: fleet.size }, (_, i) => i);
    const share = devices.filter((i) => fleet.failuresOf(i) > 0.1).length / fleet.size;
    expect(share).toBeCloseTo(0.05, 2);
    expect(new Set(devices.map(fleet.idOf)).size).toBe(fleet.size);
  });
});
