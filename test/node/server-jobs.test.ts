import { join } from 'node:path';
import type { Kysely, Transaction } from 'kysely';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Platform } from '../../src/core/platform.ts';
import { nodePlatform } from '../../src/platform-node.ts';
import { openDatabase } from '../../src/server/db/open.ts';
import type { Schema } from '../../src/server/db/schema.ts';
import { inTransaction } from '../../src/server/db/transaction.ts';
import type { Fence, Job, JobRunner } from '../../src/server/jobs/job.ts';
import { createJobRunner } from '../../src/server/jobs/runner.ts';
import { createPostgres, lacksPostgres } from './postgres.ts';
import { temporaryDirectory } from './server-fixture.ts';

/** Clocks that stand until they are moved, and timers that fire on the way. */
function clock(): Platform & { advance(ms: number): Promise<void>; skew(ms: number): Platform } {
  let now = 1_800_000_000_000;
  let timers: { at: number; task: () => void }[] = [];
  const platform: Platform = {
    ...nodePlatform(),
    now: () => now,
    monotonicMs: () => now,
    setTimer: (task, delayMs) => {
      const timer = { at: now + delayMs, task };
      timers.push(timer);
      return () => {
        timers = timers.filter((other) => other !== timer);
      };
    },
  };
  return {
    ...platform,
    advance: async (ms) => {
      const end = now + ms;
      for (;;) {
        await settle();
        const next = timers.reduce<{ at: number; task: () => void } | undefined>(
          (first, timer) => (timer.at <= end && timer.at < (first?.at ?? Infinity) ? timer : first),
          undefined,
        );
        if (!next) break;
        now = Math.max(now, next.at);
        timers = timers.filter((timer) => timer !== next);
        next.task();
      }
      now = end;
      await settle();
    },
    skew: (ms) => ({ ...platform, now: () => now + ms }),
  };
}

let inFlight = 0;

/** Counts the transactions that are under way. */
function counted(db: Kysely<Schema>): Kysely<Schema> {
  return new Proxy(db, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      if (name !== 'transaction') return value.bind(target) as unknown;
      return () => ({
        execute: async (task: (tx: Transaction<Schema>) => Promise<unknown>) => {
          inFlight += 1;
          try {
            return await target.transaction().execute(task);
          } finally {
            inFlight -= 1;
          }
        },
      });
    },
  });
}

/** Lets everything happen that waits for no timer, transactions included. */
async function settle(): Promise<void> {
  for (let calm = 0; calm < 3; calm = inFlight === 0 ? calm + 1 : 0) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const databases: [string, boolean, () => Promise<string>][] = [
  ['SQLite', false, async () => join(await temporaryDirectory(), 'inlay.db')],
  ['PostgreSQL', lacksPostgres, createPostgres],
];

describe.each(databases)('jobs on %s', (_, skipped, create) => {
  const open: Kysely<Schema>[] = [];
  const runners: JobRunner[] = [];
  let platform: ReturnType<typeof clock>;

  beforeEach(() => {
    platform = clock();
  });

  afterEach(async () => {
    const closed = Promise.all(runners.splice(0).map((made) => made.close()));
    await platform.advance(6000);
    await closed;
    await Promise.all(open.splice(0).map((db) => db.destroy()));
  });

  /** Two connections to one database, as two replicas have. */
  async function replicas(): Promise<[Kysely<Schema>, Kysely<Schema>]> {
    const target = await create();
    const pair = [(await openDatabase(target)).db, (await openDatabase(target)).db] as const;
    open.push(...pair);
    return [counted(pair[0]), counted(pair[1])];
  }

  function runner(
    db: Kysely<Schema>,
    clocks: Platform,
    jobs: readonly Job[],
    errors: unknown[] = [],
  ): JobRunner {
    const made = createJobRunner({ db, platform: clocks, jobs, onError: (error) => errors.push(error) });
    runners.push(made);
    return made;
  }

  const counting = (name: string, everyMs = 60_000): Job & { runs: number } => {
    const job = {
      name,
      everyMs,
      runs: 0,
      run: () => {
        job.runs += 1;
        return Promise.resolve();
      },
    };
    return job;
  };

  it.skipIf(skipped)('run on one of two replicas', async () => {
    const [a, b] = await replicas();
    const jobs = [counting('a'), counting('b')] as const;
    runner(a, platform, [jobs[0]]).start();
    await settle();
    runner(b, platform, [jobs[1]]).start();
    await platform.advance(600_000);
    expect(jobs.map(({ runs }) => runs)).toEqual([11, 0]);
  });

  it.skipIf(skipped)('go to the next replica as soon as one stops', async () => {
    const [a, b] = await replicas();
    const jobs = [counting('a'), counting('b')] as const;
    const first = runner(a, platform, [jobs[0]]);
    first.start();
    await settle();
    runner(b, platform, [jobs[1]]).start();
    await settle();
    await first.close();
    await platform.advance(10_000);
    expect(jobs.map(({ runs }) => runs)).toEqual([1, 1]);
  });

  it.skipIf(skipped)('go to the next replica when the lease of one that died has run out', async () => {
    const [a, b] = await replicas();
    const jobs = [counting('a'), counting('b')] as const;
    // It runs once and is never heard of again.
    expect(await runner(a, platform, [jobs[0]]).runOnce(platform.now())).toBe(true);
    runner(b, platform, [jobs[1]]).start();
    await platform.advance(29_000);
    expect(jobs.map(({ runs }) => runs)).toEqual([1, 0]);
    await platform.advance(11_000);
    expect(jobs.map(({ runs }) => runs)).toEqual([1, 1]);
  });

  it.skipIf(skipped)('do not wait for the clock of a replica that died with it ahead', async () => {
    const [a, b] = await replicas();
    const job = counting('b');
    const ahead = platform.skew(24 * 3_600_000);
    expect(await runner(a, ahead, []).runOnce(ahead.now())).toBe(true);
    runner(b, platform, [job]).start();
    await platform.advance(41_000);
    expect(job.runs).toBe(1);
  });

  it.skipIf(skipped)('cannot write after another replica has taken over', async () => {
    const [a, b] = await replicas();
    let write = (): Promise<unknown> => Promise.resolve();
    const slow: Job = {
      name: 'slow',
      everyMs: 1000,
      run: (_now, _signal, fence?: Fence) => {
        write = () =>
          inTransaction(a, async (tx) => {
            await fence?.assertHeld(tx);
            await tx.insertInto('setting').values({ name: 'slow', body: 'late' }).execute();
          });
        return Promise.resolve();
      },
    };
    expect(await runner(a, platform, [slow]).runOnce(platform.now())).toBe(true);
    expect(await runner(b, platform, []).runOnce(platform.now() + 31_000)).toBe(true);
    await expect(write()).rejects.toMatchObject({ code: 'ERR_INLAY_CONFLICT' });
    expect(await a.selectFrom('setting').selectAll().execute()).toEqual([]);
    expect(await runner(a, platform, []).runOnce(platform.now() + 32_000)).toBe(false);
  });

  it.skipIf(skipped)('never overlap themselves, and do not wait for each other', async () => {
    const [a] = await replicas();
    let running = 0;
    let most = 0;
    let runs = 0;
    const slow: Job = {
      name: 'slow',
      everyMs: 1000,
      run: async () => {
        running += 1;
        runs += 1;
        most = Math.max(most, running);
        await new Promise<void>((resolve) => platform.setTimer(resolve, 20_000));
        running -= 1;
      },
    };
    const quick = counting('quick', 1000);
    const made = runner(a, platform, [slow, quick]);
    made.start();
    await settle();
    void made.runOnce(platform.now());
    await platform.advance(65_000);
    expect([most, runs]).toEqual([1, 4]);
    expect(quick.runs).toBeGreaterThan(60);
  });

  it.skipIf(skipped)('go on after one of them has failed, and say which', async () => {
    const [a] = await replicas();
    const errors: unknown[] = [];
    const cause = new Error('broken');
    const broken: Job = { name: 'broken', everyMs: 1000, run: () => Promise.reject(cause) };
    const sound = counting('sound', 1000);
    runner(a, platform, [broken, sound], errors).start();
    await platform.advance(2500);
    expect(sound.runs).toBe(3);
    expect(errors).toHaveLength(3);
    expect(errors[0]).toMatchObject({ code: 'ERR_INLAY_SERVER', cause, details: { job: 'broken' } });
  });

  it.skipIf(skipped)('are told to end when the replica stops, which waits for them', async () => {
    const [a] = await replicas();
    let ended = false;
    const endless: Job = {
      name: 'endless',
      everyMs: 1000,
      run: (_now, signal) =>
        new Promise((resolve) =>
          signal.addEventListener('abort', () => {
            ended = true;
            resolve();
          }),
        ),
    };
    const errors: unknown[] = [];
    const made = runner(a, platform, [endless], errors);
    made.start();
    await settle();
    await made.close();
    expect([ended, errors]).toEqual([true, []]);
    const { until_at } = await a.selectFrom('lease').selectAll().executeTakeFirstOrThrow();
    expect(until_at).toBe(0);
  });

  it.skipIf(skipped)('do not keep a replica from stopping for more than a while', async () => {
    const [a, b] = await replicas();
    const deaf: Job = { name: 'deaf', everyMs: 1000, run: () => new Promise(() => undefined) };
    const made = runner(a, platform, [deaf]);
    made.start();
    await settle();
    let isClosed = false;
    const closed = made.close().then(() => {
      isClosed = true;
    });
    await platform.advance(4900);
    expect(isClosed).toBe(false);
    await platform.advance(200);
    await closed;
    expect(await runner(b, platform, []).runOnce(platform.now())).toBe(true);
  });

  it.skipIf(skipped)('run again after a database that was away', async () => {
    const [a] = await replicas();
    const errors: unknown[] = [];
    const job = counting('job', 1000);
    let isAway = false;
    const flaky = new Proxy(a, {
      get: (target, name) => {
        if (isAway && name === 'transaction') throw new Error('The database is away.');
        return Reflect.get(target, name, target) as unknown;
      },
    });
    runner(flaky, platform, [job], errors).start();
    await platform.advance(5000);
    isAway = true;
    await platform.advance(60_000);
    const before = job.runs;
    isAway = false;
    await platform.advance(20_000);
    expect(errors.length).toBeGreaterThan(3);
    expect(before).toBeLessThan(45);
    expect(job.runs).toBeGreaterThan(before + 9);
  });
});
