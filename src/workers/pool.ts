/** Several workers as one backend: a session opens in one of them, and in further ones when it is asked to grow. */
import type { Backend, ModelSource, Session, SessionOptions, Slot } from '../core/backend.ts';
import { closedError } from '../core/errors.ts';

interface Member {
  readonly backend: Backend;
  /** Sessions that are open in it or being opened. */
  sessions: number;
}

/**
 * Joins backends of the same library, each with a worker of its own.
 *
 * A session opens in the member with the fewest sessions; its `grow` opens it in one more, its `slots` are where it is
 * open. A run without a slot goes to the first. A member that is lost disturbs no run in another one.
 *
 * @param members - at least one; they are closed with the pool.
 * @example
 * const backend = createPool([createWorkerBackend(first), createWorkerBackend(second)]);
 */
export function createPool(members: readonly Backend[]): Backend {
  const [first] = members;
  if (first === undefined) throw new RangeError('A pool has at least one member, got none.');
  const pool: readonly Member[] = members.map((backend) => ({ backend, sessions: 0 }));
  return {
    name: first.name,
    providers: () => first.providers(),
    createSession: (source, options) => openInPool(pool, source, options),
    close: async () => {
      await Promise.all(members.map((member) => member.close()));
    },
  };
}

async function openInPool(
  pool: readonly Member[],
  source: ModelSource,
  options: SessionOptions,
): Promise<Session> {
  const untried = new Set(pool);
  const sessions = new Map<Slot, Session>();
  const opened: (readonly [Session, Member])[] = [];
  const slots: Slot[] = [];
  let growing: Promise<void> | undefined;
  let released: Promise<void> | undefined;

  const open = async (member: Member): Promise<Session> => {
    untried.delete(member);
    member.sessions += 1;
    try {
      const session = await member.backend.createSession(source, options);
      opened.push([session, member]);
      for (const slot of session.slots ?? [{ name: member.backend.name }]) {
        sessions.set(slot, session);
        slots.push(slot);
      }
      return session;
    } catch (error) {
      member.sessions -= 1;
      untried.add(member);
      throw error;
    }
  };
  const grow = async (member: Member): Promise<void> => {
    try {
      await open(member);
      if (released !== undefined) throw closedError('The session');
    } finally {
      growing = undefined;
    }
  };
  const releaseAll = async (): Promise<void> => {
    await growing?.catch(() => {});
    const outcomes = await Promise.allSettled(
      opened.map(async ([session, member]) => {
        await session.release();
        member.sessions -= 1;
      }),
    );
    const failed = outcomes.find((outcome) => outcome.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  };

  const { signature, provider, placement, intraOpThreads, threadsReason } = await open(
    leastUsed(pool) as Member,
  );
  return {
    signature,
    provider,
    placement,
    ...(intraOpThreads !== undefined && { intraOpThreads }),
    ...(threadsReason !== undefined && { threadsReason }),
    slots,
    grow: () => {
      if (growing !== undefined || released !== undefined) return growing;
      const member = leastUsed(untried);
      if (member !== undefined) growing = grow(member);
      return growing;
    },
    run: (feeds, runOptions) => {
      if (released !== undefined) return Promise.reject(closedError('The session'));
      const slot = runOptions?.slot ?? slots[0];
      const session = slot && sessions.get(slot);
      return session === undefined
        ? Promise.reject(new RangeError(`The session is not open in the slot "${slot?.name}".`))
        : session.run(feeds, runOptions);
    },
    release: () => (released ??= releaseAll()),
  };
}

/** The first of those with the fewest sessions. */
function leastUsed(members: Iterable<Member>): Member | undefined {
  let least: Member | undefined;
  for (const member of members) {
    if (least === undefined || member.sessions < least.sessions) least = member;
  }
  return least;
}
