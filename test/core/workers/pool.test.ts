import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Backend, Session } from '../../../src/core/backend.ts';
import { BackendError } from '../../../src/core/errors.ts';
import { createPool } from '../../../src/workers/pool.ts';
import { errorOf } from '../../conformance/backend.ts';

/** A backend with one slot, whose sessions open and end when told to. */
function createMember(name: string) {
  const slot = { name };
  const opening: { open(): void; fail(): void }[] = [];
  const member = {
    slot,
    /** Sessions that wait to be opened, when `holds` is set. */
    opening,
    holds: false,
    fails: false,
    open: 0,
    opened: 0,
    runs: 0,
    closed: 0,
    backend: {} as Backend,
  };
  const session: Session = {
    signature: { inputs: [], outputs: [] },
    provider: 'cpu',
    placement: 'worker',
    intraOpThreads: 1,
    slots: [slot],
    run: () => {
      member.runs += 1;
      return member.fails ? Promise.reject(failure()) : Promise.resolve({});
    },
    release: () => Promise.resolve(),
  };
  member.backend = {
    name: 'fake',
    providers: () => Promise.resolve([{ name: name, device: 'cpu' }]),
    createSession: async () => {
      if (member.holds) {
        await new Promise<void>((resolve, reject) => {
          opening.push({ open: resolve, fail: () => reject(failure()) });
        });
      }
      if (member.fails) throw failure();
      member.open += 1;
      member.opened += 1;
      let released = false;
      return {
        ...session,
        release: async () => {
          expect(released).toBe(false);
          released = true;
          member.open -= 1;
          await Promise.resolve();
        },
      };
    },
    close: () => {
      member.closed += 1;
      return Promise.resolve();
    },
  };
  return member;
}

function failure(): BackendError {
  return new BackendError('ERR_INLAY_WORKER_LOST', 'Lost.', { details: { reason: 'exit' } });
}

type Member = ReturnType<typeof createMember>;

function createMembers(count: number): { members: Member[]; pool: Backend; open(): Promise<Session> } {
  const members = Array.from({ length: count }, (_, index) => createMember(`worker ${index + 1}`));
  const pool = createPool(members.map(({ backend }) => backend));
  const open = (): Promise<Session> => pool.createSession({ bytes: new Uint8Array() }, { provider: 'cpu' });
  return { members, pool, open };
}

const openOf = (members: readonly Member[]): number[] => members.map(({ open }) => open);

describe('createPool', () => {
  it('refuses to have no members', () => {
    expect(() => createPool([])).toThrow(RangeError);
  });

  it('opens a session in the member with the fewest, the first of several', async () => {
    const { members, open } = createMembers(3);
    const sessions = [await open(), await open(), await open(), await open()];
    expect(openOf(members)).toEqual([2, 1, 1]);
    await sessions[1]?.release();
    await open();
    expect(openOf(members)).toEqual([2, 1, 1]);
  });

  it('counts sessions that are still being opened', async () => {
    const { members, open } = createMembers(2);
    await Promise.all([open(), open()]);
    expect(openOf(members)).toEqual([1, 1]);
  });

  it('asks the first member what there is, and closes all', async () => {
    const { members, pool } = createMembers(2);
    expect(await pool.providers()).toEqual([{ name: 'worker 1', device: 'cpu' }]);
    await pool.close();
    expect(members.map(({ closed }) => closed)).toEqual([1, 1]);
  });

  it('grows member by member, and not further', async () => {
    const { members, open } = createMembers(3);
    const session = await open();
    const { slots } = session;
    for (const _ of members.slice(1)) await session.grow?.();
    expect(slots).toEqual(members.map(({ slot }) => slot));
    expect(slots?.every((slot, index) => slot === members[index]?.slot)).toBe(true);
    expect(session.grow?.()).toBeUndefined();
    expect(session.intraOpThreads).toBe(1);
  });

  it('grows by one member at a time', async () => {
    const { members, open } = createMembers(3);
    const session = await open();
    const [first, second] = [session.grow?.(), session.grow?.()];
    expect(first).toBe(second);
    await first;
    expect(openOf(members)).toEqual([1, 1, 0]);
  });

  it('runs in the slot that is asked for, in the first when none is', async () => {
    const { members, open } = createMembers(2);
    const session = await open();
    await session.grow?.();
    await session.run({});
    await session.run({}, { slot: (members[1] as Member).slot });
    await session.run({}, { slot: (members[1] as Member).slot });
    expect(members.map(({ runs }) => runs)).toEqual([1, 2]);
  });

  it('refuses a slot in which the session is not open', async () => {
    const { members, open } = createMembers(2);
    const session = await open();
    expect(await errorOf(session.run({}, { slot: (members[1] as Member).slot }))).toBeInstanceOf(RangeError);
  });

  it('tries a member in which the session did not open after the others, and runs on elsewhere', async () => {
    const { members, open } = createMembers(3);
    const [first, second, third] = members as [Member, Member, Member];
    const session = await open();
    second.fails = true;
    expect(await errorOf(session.grow?.() as Promise<void>)).toMatchObject({ code: 'ERR_INLAY_WORKER_LOST' });
    second.fails = false;
    await session.run({});
    await session.grow?.();
    expect(session.slots).toEqual([first.slot, third.slot]);
    expect(openOf(members)).toEqual([1, 0, 1]);
    await session.grow?.();
    expect(session.slots).toEqual([first.slot, third.slot, second.slot]);
    expect(session.grow?.()).toBeUndefined();
    expect(openOf(members)).toEqual([1, 1, 1]);
  });

  it('leaves runs in other slots alone when one is lost', async () => {
    const { members, open } = createMembers(2);
    const session = await open();
    await session.grow?.();
    (members[0] as Member).fails = true;
    const runs = [session.run({}), session.run({}, { slot: (members[1] as Member).slot })];
    expect((await Promise.allSettled(runs)).map(({ status }) => status)).toEqual(['rejected', 'fulfilled']);
    expect(session.slots).toHaveLength(2);
  });

  it('releases what is still growing, once', async () => {
    const { members, open } = createMembers(2);
    const second = members[1] as Member;
    second.holds = true;
    const session = await open();
    const growing = session.grow?.() as Promise<void>;
    const released = Promise.all([session.release(), session.release()]);
    expect(await errorOf(session.run({}))).toMatchObject({ code: 'ERR_INLAY_CLOSED' });
    second.opening[0]?.open();
    expect(await errorOf(growing)).toMatchObject({ code: 'ERR_INLAY_CLOSED' });
    await released;
    expect([openOf(members), second.opened]).toEqual([[0, 0], 1]);
    expect(session.grow?.()).toBeUndefined();
  });

  it('leaves nothing open, whatever is opened, grown and released in whatever order', async () => {
    const act = fc.record({
      kind: fc.constantFrom('open', 'grow', 'release', 'run', 'settle', 'fail'),
      at: fc.nat(5),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 4 }),
        fc.array(act, { maxLength: 40 }),
        async (count, acts) => {
          const { members, open } = createMembers(count);
          const sessions: Session[] = [];
          const pending: Promise<unknown>[] = [];
          const doneWith = (task: Promise<unknown> | undefined): void => {
            if (task !== undefined) pending.push(task.catch(() => {}));
          };
          const settleOne = (at: number, how: 'open' | 'fail'): void => {
            const waiting = members.flatMap(({ opening }) => opening.splice(0, 1));
            for (const [index, each] of waiting.entries()) each[index === at ? how : 'open']();
          };
          for (const member of members) member.holds = true;
          for (const { kind, at } of acts) {
            const session = sessions[at % Math.max(1, sessions.length)];
            if (kind === 'open') doneWith(open().then((opened) => sessions.push(opened)));
            else if (kind === 'settle') settleOne(at, 'open');
            else if (kind === 'fail') settleOne(at, 'fail');
            else if (kind === 'grow') doneWith(session?.grow?.());
            else if (kind === 'release') doneWith(session?.release());
            else doneWith(session?.run({}, { slot: session.slots?.at(-1) as { name: string } }));
            await Promise.resolve();
            for (const { slots = [] } of sessions) expect(new Set(slots).size).toBe(slots.length);
          }
          for (const member of members) member.holds = false;
          while (members.some(({ opening }) => opening.length > 0)) settleOne(-1, 'open');
          await Promise.all(pending);
          await Promise.all(sessions.map((session) => session.release()));
          expect(openOf(members)).toEqual(members.map(() => 0));
          // All count as empty again, so that new sessions spread evenly.
          await Promise.all(members.map(open));
          expect(openOf(members)).toEqual(members.map(() => 1));
        },
      ),
      { numRuns: 200 },
    );
  });
});
