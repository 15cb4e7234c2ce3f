import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { toUtf8 } from '../../../src/core/bytes.ts';
import { StoreError } from '../../../src/core/errors.ts';
import type { Store } from '../../../src/core/store.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { eventsRecord, openEventLog, readEvents } from '../../../src/update/events.ts';
import { testPlatform, testStart, type TestPlatform } from '../platform.ts';

let store: Store;
let platform: TestPlatform;
beforeEach(() => {
  store = createMemoryStore();
  platform = testPlatform();
});

const kept = async (): Promise<readonly string[]> =>
  readEvents(await store.readRecord(eventsRecord)).map(({ version = '' }) => version);

describe('the log of updates', () => {
  it('tells listeners at once, and writes in one go after two seconds', async () => {
    const log = openEventLog({ store, platform });
    const heard: string[] = [];
    const off = log.subscribe(({ type }) => heard.push(type));
    log.add({ model: 'm', type: 'offered', version: '1' });
    log.add({ model: 'm', type: 'staged', version: '2' });
    off();
    log.add({ model: 'm', type: 'activated', version: '3' });
    expect(heard).toEqual(['offered', 'staged']);
    expect(await kept()).toEqual([]);
    expect((await log.history()).map(({ at }) => at)).toEqual([testStart, testStart, testStart]);
    platform.advance(2000);
    await log.flush();
    expect(await kept()).toEqual(['1', '2', '3']);
    expect(platform.timers()).toEqual([]);
  });

  it('is flushed before something that may end the process', async () => {
    const log = openEventLog({ store, platform });
    log.add({ model: 'm', type: 'load-started', version: '1', slot: 'trial', sha256: 'a'.repeat(64) });
    await log.flush();
    expect(readEvents(await store.readRecord(eventsRecord))).toEqual([
      {
        at: testStart,
        model: 'm',
        type: 'load-started',
        version: '1',
        sha256: 'a'.repeat(64),
        slot: 'trial',
      },
    ]);
  });

  it('joins what several processes write, in order', async () => {
    const one = openEventLog({ store, platform });
    const two = openEventLog({ store, platform });
    one.add({ model: 'm', type: 'offered', version: '1' });
    two.add({ model: 'm', type: 'offered', version: '2' });
    await Promise.all([one.flush(), two.flush()]);
    one.add({ model: 'm', type: 'offered', version: '3' });
    expect((await one.history()).map(({ version }) => version)).toEqual(['1', '2', '3']);
    expect((await two.history()).map(({ version }) => version)).toEqual(['1', '2']);
  });

  it('keeps the last 200 events in at most 64 kB', async () => {
    const log = openEventLog({ store, platform });
    for (let i = 1; i <= 250; i += 1) log.add({ model: 'm', type: 'error', version: String(i) });
    await log.flush();
    expect(await kept()).toEqual(Array.from({ length: 200 }, (_, i) => String(i + 51)));
    for (let i = 1; i <= 250; i += 1)
      log.add({ model: 'm'.repeat(300), type: 'error', version: String(i), detail: '\u{1F600}'.repeat(400) });
    await log.flush();
    const bytes = await store.readRecord(eventsRecord);
    expect(bytes?.length).toBeLessThanOrEqual(65_536);
    expect(bytes?.length).toBeGreaterThan(32_768);
    expect((await kept()).at(-1)).toBe('250');
  });

  it('counts the same result of checks in a row once, and keeps the last time', async () => {
    const log = openEventLog({ store, platform });
    for (let i = 0; i < 3; i += 1) {
      log.add({ model: '', type: 'checked', bytes: i });
      await log.flush();
      platform.advance(1000);
    }
    log.add({ model: '', type: 'checked', reason: 'offline' });
    log.add({ model: '', type: 'checked' });
    expect((await log.history()).map(({ at, reason }) => [at - testStart, reason])).toEqual([
      [2000, undefined],
      [3000, 'offline'],
      [3000, undefined],
    ]);
  });

  it('goes on in memory while the store cannot be written, and writes later', async () => {
    let isFull = true;
    const failing: Pick<Store, 'readRecord' | 'updateRecord'> = {
      readRecord: () => Promise.reject(new StoreError('ERR_INLAY_STORE_IO', 'The disk is gone.')),
      updateRecord: (name, change) =>
        isFull
          ? Promise.reject(new StoreError('ERR_INLAY_STORE_FULL', 'The disk is full.'))
          : store.updateRecord(name, change),
    };
    const log = openEventLog({ store: failing, platform });
    log.add({ model: 'm', type: 'error', version: '1' });
    await log.flush();
    expect((await log.history()).map(({ version }) => version)).toEqual(['1']);
    isFull = false;
    log.add({ model: 'm', type: 'error', version: '2' });
    await log.close();
    expect(await kept()).toEqual(['1', '2']);
    log.add({ model: 'm', type: 'error', version: '3' });
    await log.close();
    expect(await kept()).toEqual(['1', '2']);
  });

  it('is not stopped by a listener that fails', () => {
    const failures: unknown[] = [];
    const log = openEventLog({ store, platform, onListenerError: (error) => failures.push(error) });
    log.subscribe(() => {
      throw new Error('A fault of the host.');
    });
    log.add({ model: 'm', type: 'error' });
    expect(failures).toHaveLength(1);
  });

  it('keeps known fields only', async () => {
    const log = openEventLog({ store, platform });
    const event = { model: 'm', type: 'error' as const, input: 'what somebody said' };
    log.add(event);
    expect(await log.history()).toEqual([{ at: testStart, model: 'm', type: 'error' }]);
  });
});

describe('readEvents', () => {
  it('reads anything as a list of events', () => {
    const field = fc.oneof(fc.string(), fc.integer(), fc.double(), fc.constant(null), fc.constant('error'));
    const event = fc.record(
      { at: field, model: field, type: field, ms: field, slot: field },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(fc.oneof(fc.array(event), field), (events) => {
        for (const one of readEvents(toUtf8(JSON.stringify({ v: 1, events })))) {
          expect(one).toMatchObject({ type: 'error' });
          expect(typeof one.model).toBe('string');
          expect(Number.isSafeInteger(one.at)).toBe(true);
        }
      }),
    );
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        expect(readEvents(bytes)).toEqual([]);
      }),
    );
    expect(readEvents(undefined)).toEqual([]);
  });
});
