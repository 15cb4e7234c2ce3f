import { beforeEach, describe, expect, it } from 'vitest';
import { StoreError } from '../../../src/core/errors.ts';
import type { Platform } from '../../../src/core/platform.ts';
import type { Store } from '../../../src/core/store.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { openEventLog, type UpdateEvent } from '../../../src/update/events.ts';
import { slotsRecord } from '../../../src/update/slots-record.ts';
import { openSlots, rejectionOf, type Slots } from '../../../src/update/slots.ts';
import { rejectReasons, type SlotName } from '../../../src/update/slot.ts';
import { testPlatform, type TestPlatform } from '../platform.ts';
import { hashOf, slotOf, terms } from './slots-fixture.ts';

const hourMs = 3_600_000;
const owner = 'sync-stable-0011223344556677';

let store: Store;
let platform: TestPlatform;
let alive: Set<string>;
let happened: UpdateEvent[];
beforeEach(() => {
  store = createMemoryStore();
  platform = testPlatform();
  alive = new Set();
  happened = [];
});

/** A run of the app; what it does not close stays marked when it is killed. */
function start(
  run: string,
  over: { sdk?: string; app?: string; store?: Pick<Store, 'readRecord' | 'updateRecord'> } = {},
): Slots {
  alive.add(run);
  const here: Platform = { ...platform, instance: { id: run, isAlive: async (id) => alive.has(id) } };
  const target = over.store ?? store;
  const events = openEventLog({ store: target, platform: here });
  events.subscribe((event) => happened.push(event));
  return openSlots({
    store: target,
    owner,
    model: 'm',
    platform: here,
    sdk: over.sdk ?? '1.0.0',
    app: over.app,
    events,
  });
}

const kill = (run: string): boolean => alive.delete(run);

const namesAt = async (slots: Slots): Promise<readonly SlotName[]> =>
  (await slots.boot()).filter((one) => !one.isLastResort).map(({ name }) => name);

/** Brings a device to where `seq` is committed. */
async function install(slots: Slots, seq: number): Promise<void> {
  await slots.stage(slotOf(seq), terms(`r-${seq}`));
  const token = await slots.beginLoad('trial', slotOf(seq));
  await slots.loaded(token);
  await slots.commit(hashOf(seq));
  await slots.closed(token);
}

/** Starts, opens what is first on the list, and dies. */
async function dieLoading(run: string, name: SlotName, seq: number): Promise<void> {
  const slots = start(run);
  await slots.boot();
  await slots.beginLoad(name, slotOf(seq));
  kill(run);
}

const types = (): readonly string[] => happened.map(({ type }) => type);

describe('slots', () => {
  it('start with the trial, then committed, previous and embedded', async () => {
    const slots = start('a');
    await slots.embed(slotOf(1));
    await install(slots, 2);
    await install(slots, 3);
    await slots.stage(slotOf(4), terms());
    expect(await namesAt(slots)).toEqual(['trial', 'committed', 'previous', 'embedded']);
    const { committed, previous, trial, embedded } = await slots.read();
    expect([trial, committed, previous, embedded].map((slot) => slot?.release.seq)).toEqual([4, 3, 2, 1]);
  });

  it('mark a load before it begins and forget it when it is closed', async () => {
    const slots = start('a');
    await install(slots, 1);
    const token = await slots.beginLoad('committed', slotOf(1));
    expect((await slots.read()).markers).toMatchObject([{ run: 'a', phase: 'loading', slot: 'committed' }]);
    await slots.loaded(token);
    expect((await slots.read()).markers).toMatchObject([{ run: 'a', phase: 'running' }]);
    await slots.closed(token);
    await slots.closed(token);
    expect((await slots.read()).markers).toEqual([]);
  });

  it('reject a trial that was being opened when the process died, twice', async () => {
    const slots = start('a');
    await install(slots, 1);
    await slots.stage(slotOf(2), terms());
    await dieLoading('b', 'trial', 2);
    const third = start('c');
    expect(await namesAt(third)).toEqual(['trial', 'committed']);
    expect((await third.read()).strikes).toEqual({ [hashOf(2)]: 1 });
    await third.beginLoad('trial', slotOf(2));
    kill('c');
    const fourth = start('d');
    expect(await namesAt(fourth)).toEqual(['committed']);
    const state = await fourth.read();
    expect(state.trial).toBeUndefined();
    expect(state.strikes).toEqual({});
    expect(state.rejected).toMatchObject([{ sha256: hashOf(2), reason: 'crash', count: 1, seq: 2 }]);
    expect(types().filter((type) => type === 'strike')).toHaveLength(2);
  });

  it('take as many strikes as the rules of the trial say', async () => {
    const slots = start('a');
    await slots.stage(slotOf(1), terms('r', 0, { strikes: 1 }));
    await dieLoading('b', 'trial', 1);
    expect(await start('c').boot()).toEqual([]);
  });

  it('blame a release for a death within the grace period after its first answer, and not later', async () => {
    for (const [afterMs, strikes] of [
      [9999, 1],
      [10_000, 0],
    ] as const) {
      store = createMemoryStore();
      const slots = start('a');
      await slots.stage(slotOf(1), terms());
      await slots.loaded(await slots.beginLoad('trial', slotOf(1)));
      platform.advance(afterMs);
      await slots.read();
      kill('a');
      const next = start('b');
      await next.boot();
      expect((await next.read()).strikes[hashOf(1)] ?? 0).toBe(strikes);
      expect((await next.read()).markers).toEqual([]);
    }
  });

  it('do not blame a release for the end of an app that nobody sees', async () => {
    const slots = start('a');
    await slots.stage(slotOf(1), terms());
    const token = await slots.beginLoad('trial', slotOf(1));
    await slots.loaded(token);
    await slots.settled(token);
    kill('a');
    const next = start('b');
    expect(await namesAt(next)).toEqual(['trial']);
    expect((await next.read()).strikes).toEqual({});
  });

  it('blame what was being opened rather than what had just begun', async () => {
    const slots = start('a');
    await install(slots, 1);
    await slots.stage(slotOf(2), terms());
    await slots.loaded(await slots.beginLoad('committed', slotOf(1)));
    await slots.beginLoad('trial', slotOf(2));
    kill('a');
    const next = start('b');
    await next.boot();
    expect((await next.read()).strikes).toEqual({ [hashOf(2)]: 1 });
  });

  it('count one strike for a run that had a release open twice', async () => {
    const slots = start('a');
    await slots.stage(slotOf(1), terms());
    await slots.beginLoad('trial', slotOf(1));
    await slots.beginLoad('trial', slotOf(1));
    kill('a');
    const next = start('b');
    await next.boot();
    expect((await next.read()).strikes).toEqual({ [hashOf(1)]: 1 });
  });

  it('leave the loads of runs that live alone, and those of which nobody knows', async () => {
    const slots = start('a');
    await slots.stage(slotOf(1), terms());
    await slots.beginLoad('trial', slotOf(1));
    const other = start('b');
    await other.boot();
    expect((await other.read()).markers).toHaveLength(1);
    const blind = openSlots({
      store,
      owner,
      model: 'm',
      sdk: '1',
      platform: { ...platform, instance: { id: 'c', isAlive: () => Promise.reject(new Error('no answer')) } },
    });
    await blind.boot();
    expect((await blind.read()).strikes).toEqual({});
  });

  it('take every other run for dead where there is one process at most', async () => {
    const open = (): Slots => openSlots({ store, owner, model: 'm', sdk: '1', platform });
    const slots = open();
    await slots.stage(slotOf(1), terms());
    await slots.beginLoad('trial', slotOf(1));
    expect((await slots.boot()).map(({ name }) => name)).toEqual(['trial']);
    const next = open();
    await next.boot();
    expect((await next.read()).strikes).toEqual({ [hashOf(1)]: 1 });
  });

  it('step over a committed release that crashed twice, and keep it', async () => {
    const slots = start('a');
    await slots.embed(slotOf(1));
    await install(slots, 2);
    await install(slots, 3);
    await dieLoading('b', 'committed', 3);
    await dieLoading('c', 'committed', 3);
    const next = start('d');
    expect((await next.boot()).map(({ name, isLastResort }) => [name, isLastResort])).toEqual([
      ['previous', false],
      ['embedded', false],
      ['committed', true],
    ]);
    expect((await next.read()).committed?.release.seq).toBe(3);
    kill('d');
    expect(await namesAt(start('e'))).toEqual(['previous', 'embedded']);
    platform.advance(24 * hourMs);
    expect(await namesAt(start('f'))).toEqual(['committed', 'previous', 'embedded']);
  });

  it('offer what is rejected when there is nothing else', async () => {
    const slots = start('a');
    await install(slots, 1);
    await dieLoading('b', 'committed', 1);
    await dieLoading('c', 'committed', 1);
    expect(await start('d').boot()).toMatchObject([{ name: 'committed', isLastResort: true }]);
  });

  it('forget the strikes of a committed release at its first good answer, and those of a trial at its commit', async () => {
    const slots = start('a');
    await install(slots, 1);
    await slots.stage(slotOf(2), terms());
    await dieLoading('b', 'committed', 1);
    await dieLoading('c', 'trial', 2);
    const next = start('d');
    await next.boot();
    expect((await next.read()).strikes).toEqual({ [hashOf(1)]: 1, [hashOf(2)]: 1 });
    await next.loaded(await next.beginLoad('committed', slotOf(1)));
    expect((await next.read()).strikes).toEqual({ [hashOf(2)]: 1 });
    await next.loaded(await next.beginLoad('trial', slotOf(2)));
    expect((await next.read()).strikes).toEqual({ [hashOf(2)]: 1 });
    expect((await next.commit(hashOf(2))).strikes).toEqual({});
  });

  it('do not make a release clean because another rollout brings it', async () => {
    const slots = start('a');
    await slots.stage(slotOf(1), terms('r-1'));
    await dieLoading('b', 'trial', 1);
    const next = start('c');
    await next.boot();
    await next.revert('committed');
    await next.stage(slotOf(1), terms('r-2'));
    expect((await next.read()).strikes).toEqual({ [hashOf(1)]: 1 });
  });

  for (const reason of rejectReasons) {
    const limit = reason === 'crash' || reason === 'hang' ? 2 : 1;
    it(`reject a trial after ${limit} failed load${limit > 1 ? 's' : ''} by ${reason}`, async () => {
      const slots = start('a');
      await slots.stage(slotOf(1), terms());
      for (let i = 1; i <= limit; i += 1) {
        expect((await slots.read()).trial).toBeDefined();
        const token = await slots.beginLoad('trial', slotOf(1));
        await slots.failedLoad(token, reason, 'It did not work.');
        // Reported twice, it still is one failure.
        await slots.failedLoad(token, reason, 'It did not work.');
      }
      const { trial, rejected, markers } = await slots.read();
      expect(trial).toBeUndefined();
      expect(rejected).toMatchObject([{ reason, detail: 'It did not work.', count: 1 }]);
      expect(markers).toEqual([]);
    });
  }

  it('never reject a committed release for a damaged file', async () => {
    const slots = start('a');
    await install(slots, 1);
    for (let i = 0; i < 3; i += 1) {
      await slots.failedLoad(await slots.beginLoad('committed', slotOf(1)), 'hash', 'A bit flipped.');
    }
    expect(await slots.read()).toMatchObject({ rejected: [], strikes: {} });
    await slots.failedLoad(await slots.beginLoad('committed', slotOf(1)), 'open', 'No memory.');
    expect(await slots.read()).toMatchObject({ rejected: [], strikes: { [hashOf(1)]: 1 } });
  });

  it('reject a variant on trial alone, and then the release with its reference', async () => {
    const slots = start('a');
    const int8 = { ...slotOf(1), file: slotOf(9).file, variant: 'int8' };
    await slots.stage(int8, terms());
    await slots.failedLoad(await slots.beginLoad('trial', int8), 'golden', 'It answers wrongly.');
    const { trial, rejected } = await slots.read();
    expect([trial, rejected.map(({ sha256 }) => sha256)]).toEqual([undefined, [hashOf(9)]]);
    await slots.stage(slotOf(1), terms());
    await slots.failedLoad(await slots.beginLoad('trial', slotOf(1)), 'golden', 'So does this one.');
    expect((await slots.read()).rejected.map(({ sha256 }) => sha256)).toEqual([hashOf(9), hashOf(1)]);
    await expect(slots.stage(slotOf(1), terms())).rejects.toMatchObject({
      code: 'ERR_INLAY_UPDATE_REJECTED',
    });
  });

  it('reject the variant that failed in one process, not the one that another process has gone on to', async () => {
    const [here, there] = [start('a'), start('b')];
    const int8 = { ...slotOf(1), file: slotOf(9).file, variant: 'int8' };
    await here.stage(int8, terms('r-1', 3));
    for (const slots of [here, there]) await slots.loaded(await slots.beginLoad('trial', int8));
    await here.reject(hashOf(1), 'errors', 'It fails.', hashOf(9));
    await here.stage(slotOf(1), terms('r-1', 3));
    await there.reject(hashOf(1), 'errors', 'It fails here, too.', hashOf(9));
    expect(await there.read()).toMatchObject({
      trial: { file: { sha256: hashOf(1) } },
      rejected: [{ sha256: hashOf(9), retryNonce: 3 }],
    });
    await here.commit(hashOf(1), hashOf(1));
    await there.reject(hashOf(1), 'errors', 'It fails here, too.', hashOf(9));
    expect(await namesAt(start('c'))).toEqual(['committed']);
    expect((await there.read()).rejected.map(({ sha256 }) => sha256)).toEqual([hashOf(9)]);
  });

  it('hold rejections for 24 hours, 72 hours, and until something changes', async () => {
    const slots = start('a');
    const reject = async (): Promise<void> => {
      await slots.stage(slotOf(1), terms());
      await slots.reject(hashOf(1), 'errors', 'It fails.');
    };
    await reject();
    await expect(slots.stage(slotOf(1), terms())).rejects.toMatchObject({
      code: 'ERR_INLAY_UPDATE_REJECTED',
    });
    platform.advance(24 * hourMs - 1);
    await expect(slots.stage(slotOf(1), terms())).rejects.toMatchObject({
      code: 'ERR_INLAY_UPDATE_REJECTED',
    });
    platform.advance(1);
    await reject();
    platform.advance(72 * hourMs - 1);
    await expect(slots.stage(slotOf(1), terms())).rejects.toMatchObject({ details: { reason: 'errors' } });
    platform.advance(1);
    await reject();
    platform.advance(10_000 * hourMs);
    expect((await slots.read()).rejected).toMatchObject([{ count: 3, until: null }]);
    await expect(slots.stage(slotOf(1), terms())).rejects.toMatchObject({
      code: 'ERR_INLAY_UPDATE_REJECTED',
    });
    await slots.stage(slotOf(1), terms('r-1', 1));
    await slots.reject(hashOf(1), 'errors', 'It still fails.');
    expect((await slots.read()).rejected).toMatchObject([{ count: 1, retryNonce: 1 }]);
  });

  it('hold a crash of all that a device has for ten minutes, and longer each time', async () => {
    for (const [at, minutes] of [10, 60, 360, 1440].entries()) {
      await start(`${at} a`).stage(slotOf(1), terms());
      await dieLoading(`${at} b`, 'trial', 1);
      await dieLoading(`${at} c`, 'trial', 1);
      const slots = start(`${at} d`);
      await slots.boot();
      expect((await slots.read()).rejected).toMatchObject([{ reason: 'crash', count: at + 1 }]);
      platform.advance(minutes * 60_000 - 1);
      await expect(slots.stage(slotOf(1), terms())).rejects.toMatchObject({
        code: 'ERR_INLAY_UPDATE_REJECTED',
      });
      platform.advance(1);
    }
  });

  it('try again what was rejected under another version of Inlay or of the app', async () => {
    const slots = start('a', { app: '1' });
    await slots.stage(slotOf(1), terms());
    const { rejected } = await slots.reject(hashOf(1), 'open', 'Unknown operator.');
    const now = platform.now();
    expect(rejectionOf({ rejected }, hashOf(1), { now, sdk: '1.0.0', app: '1' })).toBeDefined();
    expect(rejectionOf({ rejected }, hashOf(1), { now, sdk: '1.0.1', app: '1' })).toBeUndefined();
    expect(rejectionOf({ rejected }, hashOf(1), { now, sdk: '1.0.0', app: '2' })).toBeUndefined();
    expect(rejectionOf({ rejected }, hashOf(1), { now, sdk: '1.0.0' })).toBeUndefined();
    const newer = start('b', { app: '2' });
    await newer.stage(slotOf(1), terms());
    expect((await newer.reject(hashOf(1), 'open', 'Unknown operator.')).rejected).toMatchObject([
      { count: 1, app: '2' },
    ]);
  });

  it('start with a trial that a higher nonce or another version brought back, where that holds', async () => {
    const slots = start('a');
    await slots.refuse(slotOf(1).release, 'open', 'Unknown operator.');
    await slots.stage(slotOf(1), terms('r', 1));
    expect(await namesAt(slots)).toEqual(['trial']);
    await slots.reject(hashOf(1), 'open', 'Unknown operator.');
    const newer = start('b', { sdk: '1.0.1' });
    await newer.stage(slotOf(1), terms('r', 1));
    expect(await namesAt(newer)).toEqual(['trial']);
    expect(await slots.boot()).toEqual([]);
  });

  it('do not let a rejection last for years because a clock was ahead', async () => {
    platform.advance(20_000 * hourMs);
    const slots = start('a');
    await slots.stage(slotOf(1), terms());
    await slots.reject(hashOf(1), 'open', 'It does not open.');
    platform.setNow(platform.now() - 20_000 * hourMs);
    await slots.stage(slotOf(1), terms());
    expect((await slots.read()).trial).toBeDefined();
  });

  it('remember rejections of releases that never came into a slot, with the nonce of the plan', async () => {
    const slots = start('a');
    await slots.refuse(slotOf(1).release, 'too-large', 'It has 9 GB.', 3);
    await expect(slots.stage(slotOf(1), terms('r', 3))).rejects.toMatchObject({
      details: { reason: 'too-large' },
    });
    await slots.stage(slotOf(1), terms('r', 4));
  });

  it('remember 50 rejections and no more', async () => {
    const slots = start('a');
    for (let seq = 1; seq <= 60; seq += 1) await slots.refuse(slotOf(seq).release, 'open', '');
    const { rejected } = await slots.read();
    expect(rejected).toHaveLength(50);
    expect(rejected[0]?.seq).toBe(11);
  });

  it('keep previous when what is committed is rejected, or has the same bytes as its successor', async () => {
    const slots = start('a');
    await install(slots, 1);
    await install(slots, 2);
    await slots.reject(hashOf(2), 'crash', 'It crashed.');
    await install(slots, 3);
    expect((await slots.read()).previous?.release.seq).toBe(1);
    const again = { ...slotOf(3), release: { ...slotOf(3).release, seq: 9, path: 'models/m/9/m.onnx' } };
    await slots.stage(again, terms('r-9'));
    const state = await slots.commit(hashOf(3));
    expect([state.committed?.release.seq, state.previous?.release.seq]).toEqual([9, 1]);
  });

  it('commit a trial once, whichever process says so first', async () => {
    const one = start('a');
    const two = start('b');
    await install(one, 1);
    await one.stage(slotOf(2), terms());
    await Promise.all([one.commit(hashOf(2)), two.commit(hashOf(2)), two.commit(hashOf(7))]);
    const { committed, previous, trial } = await two.read();
    expect([committed?.release.seq, previous?.release.seq, trial]).toEqual([2, 1, undefined]);
  });

  it.each([
    ['committed', [3, 2, 1, undefined]],
    ['previous', [2, undefined, 1, undefined]],
    ['embedded', [undefined, undefined, 1, undefined]],
  ] as const)('revert to %s', async (to, expected) => {
    const slots = start('a');
    await slots.embed(slotOf(1));
    await install(slots, 2);
    await install(slots, 3);
    await slots.stage(slotOf(4), terms());
    const { committed, previous, embedded, trial } = await slots.revert(to);
    expect([committed, previous, embedded, trial].map((slot) => slot?.release.seq)).toEqual(expected);
  });

  it('never lose the last release by a revert', async () => {
    const slots = start('a');
    await install(slots, 1);
    for (const to of ['previous', 'embedded', 'committed'] as const) await slots.revert(to);
    expect((await slots.read()).committed?.release.seq).toBe(1);
  });

  it('remember the highest share of a rollout and who is in, whatever comes later', async () => {
    const slots = start('a');
    const plan = { id: 'r', bp: 500, salt: '0011223344556677', cand: hashOf(1), isIn: false, verifiedAt: 1 };
    await slots.seen(plan);
    await slots.seen({
      ...plan,
      bp: 100,
      salt: 'ffffffffffffffff',
      cand: hashOf(2),
      isIn: true,
      verifiedAt: 5,
    });
    await slots.seen({ ...plan, bp: 300, verifiedAt: 7 });
    expect((await slots.read()).plan).toEqual({ ...plan, isIn: true, verifiedAt: 7 });
    await slots.seen({ ...plan, id: 'r-2', bp: 1 });
    expect((await slots.read()).plan).toEqual({ ...plan, id: 'r-2', bp: 1 });
  });

  it('take part from the first answer of the candidate', async () => {
    const slots = start('a');
    await slots.seen({
      id: 'r',
      bp: 1,
      salt: '0011223344556677',
      cand: hashOf(1),
      isIn: false,
      verifiedAt: 1,
    });
    await slots.stage(slotOf(1), terms('r'));
    expect((await slots.read()).plan?.isIn).toBe(false);
    await slots.loaded(await slots.beginLoad('trial', slotOf(1)));
    expect((await slots.read()).plan?.isIn).toBe(true);
  });

  it('drop what is withdrawn, remember it, and refuse it', async () => {
    const slots = start('a');
    await slots.embed(slotOf(1));
    await install(slots, 2);
    await install(slots, 3);
    await slots.stage(slotOf(4), terms());
    await slots.forgetWithdrawn({ revoked: [4, 3] });
    expect(await namesAt(slots)).toEqual(['committed', 'embedded']);
    expect((await slots.read()).committed?.release.seq).toBe(2);
    await slots.forgetWithdrawn({ floorSeq: 3 });
    // Metadata that is older says less, and changes nothing.
    await slots.forgetWithdrawn({ floorSeq: 1, revoked: [] });
    expect(await start('b').boot()).toEqual([]);
    const state = await slots.read();
    expect(state.embedded?.release.seq).toBe(1);
    expect(state.policy).toEqual({ floorSeq: 3, revoked: [3, 4] });
    await expect(slots.stage(slotOf(2), terms())).rejects.toMatchObject({ code: 'ERR_INLAY_WITHDRAWN' });
    expect(types().filter((type) => type === 'withdrawn')).toHaveLength(4);
  });

  it('need the files of all slots, the golden inputs, and what runs have open', async () => {
    const slots = start('a');
    await install(slots, 1);
    const token = await slots.beginLoad('committed', slotOf(1));
    await slots.loaded(token);
    await install(slots, 2);
    await install(slots, 3);
    const golden = { path: 'g', sha256: hashOf(40), length: 1, tolerance: { absoluteE6: 1, relativeE6: 1 } };
    await slots.stage({ ...slotOf(4), golden }, terms());
    expect([...(await slots.neededBlobs())].sort()).toEqual([1, 2, 3, 4, 40].map(hashOf).sort());
    await slots.closed(token);
    expect([...(await slots.neededBlobs())].sort()).toEqual([2, 3, 4, 40].map(hashOf).sort());
  });

  it('write the calls of a trial down every 5 seconds and before it ends', async () => {
    const slots = start('a');
    await slots.stage(slotOf(1), terms());
    const token = await slots.beginLoad('trial', slotOf(1));
    const state = await slots.loaded(token);
    expect(state.trial).toMatchObject({ phase: 'active', since: platform.now() });
    slots.progress(token, 3, 0);
    slots.progress(token, 2, 1);
    expect((await slots.read()).trial).toMatchObject({ inferences: 0 });
    platform.advance(5000);
    expect((await slots.read()).trial).toMatchObject({ inferences: 5, errors: 1 });
    slots.progress(token, 1, 0);
    await slots.closed(token);
    expect((await slots.read()).trial).toMatchObject({ inferences: 6, errors: 1 });
    // A trial that goes on in another run goes on from there.
    await slots.loaded(await slots.beginLoad('trial', slotOf(1)));
    expect((await slots.read()).trial).toMatchObject({ inferences: 6, since: state.trial?.since });
    await slots.stage(slotOf(1), terms());
    expect((await slots.read()).trial).toMatchObject({ phase: 'active', inferences: 6 });
  });

  it('keep those of two models and of two owners apart', async () => {
    const names = [
      slotsRecord(platform, 'a', 'm'),
      slotsRecord(platform, 'b', 'm'),
      slotsRecord(platform, 'a', 'n'),
      slotsRecord(platform, 'a-n', 'm'),
    ];
    expect(new Set(names).size).toBe(4);
    expect(slotsRecord(platform, 'x'.repeat(300), 'm'.repeat(128))).toMatch(/^[a-z0-9._-]{1,200}$/);
  });

  it('count a damaged record as empty, and say so', async () => {
    const slots = start('a');
    await install(slots, 1);
    const name = slotsRecord(platform, owner, 'm');
    await store.updateRecord(name, () => Uint8Array.of(1, 2, 3));
    const next = start('b');
    await next.embed(slotOf(9));
    expect(await namesAt(next)).toEqual(['embedded']);
    expect(types().filter((type) => type === 'record-lost')).toHaveLength(1);
  });
});

describe('slots whose record cannot be written', () => {
  let isFull: boolean;
  let failing: Pick<Store, 'readRecord' | 'updateRecord'>;
  beforeEach(() => {
    isFull = true;
    failing = {
      readRecord: (name) => store.readRecord(name),
      updateRecord: async (name, change) =>
        store.updateRecord(name, (present) => {
          const changed = change(present);
          if (isFull && changed !== undefined)
            throw new StoreError('ERR_INLAY_STORE_FULL', 'The disk is full; free some space.');
          return changed;
        }),
    };
  });

  it('go on in memory, and say so once', async () => {
    const slots = start('a', { store: failing });
    await slots.embed(slotOf(1));
    await install(slots, 2);
    expect(await namesAt(slots)).toEqual(['committed', 'embedded']);
    expect(await slots.neededBlobs()).toHaveLength(2);
    expect(types().filter((type) => type === 'record-unwritable')).toHaveLength(1);
    expect(await namesAt(start('b'))).toEqual([]);
  });

  it('make up for it when the record can be written again, on top of what others wrote', async () => {
    isFull = false;
    const slots = start('a', { store: failing });
    await install(slots, 1);
    await slots.stage(slotOf(2), terms());
    const token = await slots.beginLoad('trial', slotOf(2));
    isFull = true;
    await slots.loaded(token);
    await slots.commit(hashOf(2));
    await slots.embed(slotOf(5));
    const other = start('b');
    await other.refuse(slotOf(8).release, 'open', '');
    expect((await other.read()).trial?.release.seq).toBe(2);
    isFull = false;
    await slots.closed(token);
    const state = await other.read();
    expect([state.committed, state.previous, state.embedded].map((slot) => slot?.release.seq)).toEqual([
      2, 1, 5,
    ]);
    expect(state.rejected).toMatchObject([{ seq: 8 }]);
    expect(state.markers).toEqual([]);
    expect(state).toEqual(await slots.read());
  });

  it('keep the calls of a trial in memory meanwhile', async () => {
    const slots = start('a', { store: failing });
    await slots.stage(slotOf(1), terms());
    const token = await slots.beginLoad('trial', slotOf(1));
    await slots.loaded(token);
    slots.progress(token, 7, 1);
    await slots.settled(token);
    await slots.closed(token);
    await slots.embed(slotOf(2));
    expect((await slots.read()).trial).toMatchObject({ inferences: 7, errors: 1 });
  });

  it('write all of it at last, however much it was', async () => {
    const slots = start('a', { store: failing });
    for (let seq = 1; seq <= 250; seq += 1) {
      await slots.stage(slotOf(seq), terms());
      await slots.commit(hashOf(seq));
    }
    isFull = false;
    await slots.embed(slotOf(500));
    const state = await start('b').read();
    expect([state.committed, state.previous, state.embedded].map((slot) => slot?.release.seq)).toEqual([
      250, 249, 500,
    ]);
    expect(await slots.read()).toEqual(state);
  });

  it('go on when it cannot be read either', async () => {
    const broken = new StoreError('ERR_INLAY_STORE_IO', 'The disk is gone.');
    const slots = start('a', {
      store: { readRecord: () => Promise.reject(broken), updateRecord: () => Promise.reject(broken) },
    });
    expect(await slots.boot()).toEqual([]);
    await slots.embed(slotOf(1));
    expect(await namesAt(slots)).toEqual(['embedded']);
  });
});
