/** Slots under everything that may happen to them: crashes at every write, kills, bad releases, two processes at once. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { StoreError } from '../../../src/core/errors.ts';
import type { Store } from '../../../src/core/store.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { decodeSlots, encodeSlots, noSlots, slotsRecord } from '../../../src/update/slots-record.ts';
import { openSlots, rejectionOf, type LoadToken, type Slots } from '../../../src/update/slots.ts';
import { slotNames, type SlotName, type SlotsState } from '../../../src/update/slot.ts';
import { testPlatform, type TestPlatform } from '../platform.ts';
import { hashOf, slotOf, terms } from './slots-fixture.ts';

const owner = 'sync-stable-0011223344556677';
const sdk = '1.0.0';

interface Run {
  readonly id: string;
  readonly slots: Slots;
  readonly tokens: LoadToken[];
  /** Dies at its next write: before it is done, or after. */
  dies: 'before' | 'after' | undefined;
}

/** What must hold, kept by simpler means than the code under test. */
class World {
  readonly store: Store = createMemoryStore();
  readonly platform: TestPlatform = testPlatform();
  readonly record: string = slotsRecord(this.platform, owner, 'm');
  readonly runs = new Map<number, Run>();
  readonly alive = new Set<string>();
  /** Deaths while a release was opened or in its grace period, since it was last good or rejected. */
  readonly deaths = new Map<string, number>();
  /** The rejections that were there last time. */
  readonly rejected = new Map<string, string>();
  committed: number | undefined;
  previous: number | undefined;
  isEmbedded = false;
  started = 0;

  async state(): Promise<SlotsState> {
    const bytes = await this.store.readRecord(this.record);
    const state = bytes === undefined ? noSlots : decodeSlots(bytes);
    if (state === undefined) throw new Error('The record is damaged.');
    return state;
  }

  async kill(place: number): Promise<void> {
    const run = this.runs.get(place);
    if (run === undefined) return;
    this.runs.delete(place);
    this.alive.delete(run.id);
    for (const sha256 of blamed(await this.state(), run.id))
      this.deaths.set(sha256, (this.deaths.get(sha256) ?? 0) + 1);
  }

  /** A release is good again, or rejected: only deaths that no run has heard of yet still count. */
  async forgive(sha256: string): Promise<void> {
    const state = await this.state();
    const dead = new Set(state.markers.map(({ run }) => run).filter((run) => !this.alive.has(run)));
    this.deaths.set(sha256, [...dead].filter((run) => blamed(state, run).has(sha256)).length);
  }

  start(place: number): Run {
    this.started += 1;
    const id = `run-${this.started}`;
    this.alive.add(id);
    const { alive, store } = this;
    const dead = new StoreError('ERR_INLAY_STORE_IO', 'The process is dead.');
    const mine: Pick<Store, 'readRecord' | 'updateRecord'> = {
      readRecord: (name) => (alive.has(id) ? store.readRecord(name) : Promise.reject(dead)),
      updateRecord: async (name, change) => {
        const { dies } = run;
        if (!alive.has(id) || dies === 'before') {
          await this.kill(place);
          throw dead;
        }
        const content = await store.updateRecord(name, change);
        if (dies !== 'after') return content;
        await this.kill(place);
        throw dead;
      },
    };
    const platform = {
      ...this.platform,
      instance: { id, isAlive: async (other: string) => alive.has(other) },
    };
    const run: Run = {
      id,
      slots: openSlots({ store: mine, owner, model: 'm', platform, sdk }),
      tokens: [],
      dies: undefined,
    };
    this.runs.set(place, run);
    return run;
  }

  /** Compares what is on disk with what must hold. */
  async check(): Promise<void> {
    const state = await this.state();
    for (const { sha256, at, count } of state.rejected) {
      if (this.rejected.get(sha256) === `${at} ${count}`) continue;
      this.rejected.set(sha256, `${at} ${count}`);
      await this.forgive(sha256);
    }
    expect(decodeSlots(encodeSlots(state))).toEqual(state);
    expect(state.embedded !== undefined).toBe(this.isEmbedded);
    expect(state.committed?.release.seq).toBe(this.committed);
    expect(state.previous?.release.seq).toBe(this.previous);
    for (const [sha256, count] of Object.entries(state.strikes)) {
      expect(count).toBeGreaterThan(0);
      expect(count).toBeLessThanOrEqual(this.deaths.get(sha256) ?? 0);
    }
    for (const { id, tokens } of this.runs.values()) {
      const marked = state.markers.filter(({ run }) => run === id).map((marker) => marker.id);
      expect(marked.sort()).toEqual(tokens.map((token) => token.id).sort());
    }
  }
}

/** The files that the death of a run is blamed on. */
function blamed({ markers }: SlotsState, id: string): ReadonlySet<string> {
  const open = markers.filter(({ run, isSettled }) => run === id && isSettled !== true);
  const loading = open.filter(({ phase }) => phase === 'loading');
  return new Set((loading.length > 0 ? loading : open).map(({ sha256 }) => sha256));
}

type Step = fc.AsyncCommand<object, World>;

/** A command on a run that lives. */
function onRun(name: string, place: number, act: (world: World, run: Run) => Promise<void>): Step {
  return {
    check: () => true,
    run: async (_, world) => {
      world.platform.advance(1);
      const run = world.runs.get(place);
      if (run !== undefined) {
        const before = await world.state();
        await act(world, run);
        const { strikes } = await world.state();
        for (const sha256 of Object.keys(before.strikes))
          if (strikes[sha256] === undefined) await world.forgive(sha256);
        // A crash at a write leaves the old state or the new one; which of them, the record says.
        if (!world.alive.has(run.id)) {
          const after = await world.state();
          const known = [before.committed, before.previous, before.trial].map((slot) => slot?.release.seq);
          expect([...known, undefined]).toContain(after.committed?.release.seq);
          expect([...known, undefined]).toContain(after.previous?.release.seq);
          if (before.committed && !after.committed) expect(after.embedded).toBeDefined();
          world.committed = after.committed?.release.seq;
          world.previous = after.previous?.release.seq;
        }
      }
      await world.check();
    },
    toString: () => `${name}(${place})`,
  };
}

const place = fc.constantFrom(0, 1);
type Outcome = 'answers' | 'dies' | 'opening' | 'fails';
const outcome = fc.constantFrom<Outcome>('answers', 'dies', 'opening', 'fails');
const seq = fc.integer({ min: 2, max: 5 });

const boot = (at: number): Step => ({
  check: () => true,
  run: async (_, world) => {
    world.platform.advance(1);
    const run = world.runs.get(at) ?? world.start(at);
    const before = await world.state();
    const tries = await run.slots.boot();
    // What a run rejects and dies of at once, the next one must not be charged with.
    if (!world.alive.has(run.id)) return world.check();
    const state = await world.state();
    const context = { now: world.platform.now(), sdk };
    const slots = slotNames.filter((name) => name !== 'trial' && state[name] !== undefined);
    // There is always something to start with, and the embedded version is always among it.
    expect(tries.length).toBeGreaterThanOrEqual(Math.min(1, slots.length));
    if (world.isEmbedded) expect(tries.map(({ name }) => name)).toContain('embedded');
    for (const { slot, name, isLastResort } of tries) {
      expect(rejectionOf(state, slot.release.sha256, context) !== undefined).toBe(isLastResort);
      expect(name === 'trial' && isLastResort).toBe(false);
    }
    // What died twice in a row is not offered, and its deaths are told.
    for (const [sha256, count] of world.deaths) {
      // Of a trial that was given up before its death was heard of, nobody keeps count.
      if (slotNames.every((name) => before[name]?.file.sha256 !== sha256))
        world.deaths.set(sha256, state.strikes[sha256] ?? 0);
      else if (count >= 2)
        expect(
          tries.find(({ slot, isLastResort }) => slot.file.sha256 === sha256 && !isLastResort),
        ).toBeUndefined();
    }
    await world.check();
  },
  toString: () => `boot(${at})`,
});

const open = (at: number, name: SlotName, how: Outcome): Step =>
  onRun(`open ${name} ${how}`, at, async (world, run) => {
    const slot = (await run.slots.read())[name];
    if (slot === undefined) return;
    const token = await run.slots.beginLoad(name, slot);
    if (!world.alive.has(run.id)) return;
    run.tokens.push(token);
    if (how === 'opening') return;
    if (how === 'dies') return world.kill(at);
    if (how === 'fails') {
      const sha256 = slot.file.sha256;
      // A process that dies before it can say so leaves its marker, and that counts.
      if (run.dies !== 'before') world.deaths.set(sha256, (world.deaths.get(sha256) ?? 0) + 1);
      await run.slots.failedLoad(token, 'crash', 'Its worker died.');
      if (world.alive.has(run.id)) run.tokens.splice(run.tokens.indexOf(token), 1);
      return;
    }
    await run.slots.loaded(token);
  });

/** Starts, and opens what is first on the list. */
const live = (at: number, how: Outcome): Step => ({
  check: () => true,
  run: async (model, world) => {
    await boot(at).run(model, world);
    const [first] = (await world.runs.get(at)?.slots.boot()) ?? [];
    if (first) await open(at, first.name, how).run(model, world);
  },
  toString: () => `live(${at}, ${how})`,
});

const commands = [
  fc.tuple(place, outcome).map(([at, how]) => live(at, how)),
  fc.tuple(place, outcome).map(([at, how]) => live(at, how)),
  place.map(boot),
  place.map((at) =>
    onRun('embed', at, async (world, run) => {
      await run.slots.embed(slotOf(1));
      world.isEmbedded = (await world.state()).embedded !== undefined;
    }),
  ),
  fc.tuple(place, seq).map(([at, n]) =>
    onRun(`stage ${n}`, at, async (world, run) => {
      const { trial, committed } = await run.slots.read();
      const state = await run.slots.stage(slotOf(n), terms()).catch((error: unknown) => {
        expect(error).toMatchObject({ code: 'ERR_INLAY_UPDATE_REJECTED' });
        return undefined;
      });
      if (state === undefined || !world.alive.has(run.id)) return;
      // A trial that has answered is what to go back to, where nothing has proved itself.
      const isReplaced = trial?.phase === 'active' && state.trial?.phase === 'staged';
      if (isReplaced && committed === undefined) world.previous = trial.release.seq;
    }),
  ),
  fc.tuple(place, fc.constantFrom(...slotNames), outcome).map(([at, name, how]) => open(at, name, how)),
  place.map((at) =>
    onRun('close', at, async (world, run) => {
      const token = run.tokens[0];
      if (token === undefined) return;
      await run.slots.closed(token);
      if (world.alive.has(run.id)) run.tokens.shift();
    }),
  ),
  place.map((at) =>
    onRun('commit', at, async (world, run) => {
      const { trial, committed, previous, rejected } = await run.slots.read();
      if (trial === undefined) return;
      await run.slots.commit(trial.release.sha256);
      if (!world.alive.has(run.id)) return;
      const context = { now: world.platform.now(), sdk };
      const isKept =
        committed !== undefined &&
        committed.file.sha256 !== trial.file.sha256 &&
        rejectionOf({ rejected }, committed.release.sha256, context) === undefined;
      world.previous = (isKept ? committed : previous)?.release.seq;
      world.committed = trial.release.seq;
    }),
  ),
  fc.tuple(place, seq).map(([at, n]) =>
    onRun(`reject ${n}`, at, async (_, run) => {
      await run.slots.reject(hashOf(n), 'errors', 'It fails.');
    }),
  ),
  place.map((at) =>
    onRun('revert', at, async (world, run) => {
      const { committed, previous, embedded } = await run.slots.read();
      await run.slots.revert('previous');
      if (!world.alive.has(run.id) || (previous === undefined && embedded === undefined)) return;
      if (committed === undefined && previous === undefined) return;
      world.committed = previous?.release.seq;
      world.previous = undefined;
    }),
  ),
  fc.tuple(place, fc.constantFrom('before' as const, 'after' as const)).map(([at, dies]) =>
    onRun(`dies ${dies} the next write`, at, async (_, run) => {
      run.dies = dies;
    }),
  ),
  place.map((at) => onRun('kill', at, (world) => world.kill(at))),
  fc.constantFrom(3000, 11_000, 90_000_000).map((ms): Step => ({
    check: () => true,
    run: async (_, world) => {
      world.platform.advance(ms);
      for (const [at, run] of world.runs) {
        await run.slots.read();
        if (!world.alive.has(run.id)) world.runs.delete(at);
      }
      await world.check();
    },
    toString: () => `advance(${ms})`,
  })),
];

it('slots keep their promises whatever happens', { timeout: 120_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(fc.commands(commands, { maxCommands: 60, size: 'max' }), async (sequence) => {
      await fc.asyncModelRun(() => ({ model: {}, real: new World() }), sequence);
    }),
    { numRuns: 300 },
  );
});
