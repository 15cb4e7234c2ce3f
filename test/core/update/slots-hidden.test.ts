import { describe, expect, it } from 'vitest';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { openSlots, type Slots } from '../../../src/update/slots.ts';
import type { Slot } from '../../../src/update/slot.ts';
import { DEFAULT_TRIAL } from '../../../src/update/plan.ts';
import { testPlatform } from '../platform.ts';

const sha256 = 'a'.repeat(64);
const release: Slot = {
  release: { path: 'models/m/1/m.onnx', sha256, length: 1, seq: 1, version: '1' },
  file: { sha256, length: 1 },
};

/** One device, whose runs end as the test says. */
function device(left: ReadonlySet<string> = new Set()): (run: string) => Slots {
  const store = createMemoryStore();
  const platform = testPlatform();
  return (id) =>
    openSlots({
      store,
      owner: 'sync',
      model: 'm',
      sdk: '1.0.0',
      platform: {
        ...platform,
        instance: { id, isAlive: async () => false, wasLeft: (one) => left.has(one) },
      },
    });
}

const stage = (slots: Slots): Promise<unknown> =>
  slots.stage(release, { plan: 'p', rules: DEFAULT_TRIAL, retryNonce: 0 });
const strikesAt = async (slots: Slots): Promise<number> => {
  await slots.boot();
  return (await slots.read()).strikes[sha256] ?? 0;
};

describe('a run that ends while it opens a release', () => {
  it('has crashed', async () => {
    const start = device();
    const slots = start('one');
    await stage(slots);
    await slots.beginLoad('trial', release);
    expect(await strikesAt(start('two'))).toBe(1);
  });

  it('has not crashed when people had stopped seeing the app', async () => {
    const start = device();
    const slots = start('one');
    await stage(slots);
    await slots.beginLoad('trial', release);
    await slots.hidden();
    expect(await strikesAt(start('two'))).toBe(0);
  });

  it('has crashed when that load began after people had stopped seeing the app', async () => {
    const start = device();
    const slots = start('one');
    await stage(slots);
    await slots.hidden();
    await slots.beginLoad('trial', release);
    expect(await strikesAt(start('two'))).toBe(1);
  });

  it('has not crashed when people had left it', async () => {
    const start = device(new Set(['one']));
    const slots = start('one');
    await stage(slots);
    await slots.beginLoad('trial', release);
    expect(await strikesAt(start('two'))).toBe(0);
    expect((await start('three').read()).markers).toEqual([]);
  });
});

it('a load that was settled while it went on stays so after its first answer', async () => {
  const start = device();
  const slots = start('one');
  await stage(slots);
  const token = await slots.beginLoad('trial', release);
  await slots.hidden();
  await slots.loaded(token);
  expect((await slots.read()).markers).toMatchObject([{ phase: 'running', isSettled: true }]);
  expect(await strikesAt(start('two'))).toBe(0);
});
