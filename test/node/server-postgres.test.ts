import { Kysely, PostgresDialect, sql } from 'kysely';
import { Pool } from 'pg';
import { describe, expect, it, onTestFinished } from 'vitest';
import { openDatabase } from '../../src/server/db/open.ts';
import { openPostgres } from '../../src/server/db/postgres.ts';
import { createRepository } from '../../src/server/db/repository.ts';
import type { Schema } from '../../src/server/db/schema.ts';
import { inTransaction } from '../../src/server/db/transaction.ts';
import { testDatabase } from '../conformance/database.ts';
import { createPostgres, lacksPostgres, query, startPostgres } from './postgres.ts';

describe.skipIf(lacksPostgres)('PostgreSQL', () => {
  testDatabase('PostgreSQL', async () => {
    const url = await createPostgres();
    return { open: async () => (await openDatabase(url)).db, manyWriters: true };
  });

  it('is brought to the schema once by servers that start at the same time', async () => {
    const url = await createPostgres('empty');
    const opened = await Promise.all([1, 2, 3, 4].map(() => openDatabase(url)));
    onTestFinished(async () => {
      await Promise.all(opened.map(({ db }) => db.destroy()));
    });
    expect(opened.map(({ dialect }) => dialect)).toEqual(Array.from({ length: 4 }, () => 'postgres'));
    const steps = await query(url, 'select name from kysely_migration order by name');
    expect(steps.map(({ name }) => name)).toEqual(['0001-metadata', '0002-fleet']);
  });

  it('is refused in another encoding than UTF-8', async () => {
    const url = await createPostgres();
    await query(url, "create database latin encoding 'LATIN1' template template0");
    await expect(openDatabase(url.replace(/test_\d+/, 'latin'))).rejects.toMatchObject({
      code: 'ERR_INLAY_REFUSED',
      details: { encoding: 'LATIN1' },
    });
  });

  it('ends statements that take too long, and goes on', async () => {
    const db = await openPostgres(await createPostgres(), { statementMs: 50 });
    onTestFinished(() => db.destroy());
    await expect(sql`select pg_sleep(10)`.execute(db)).rejects.toMatchObject({ code: '57014' });
    expect(await db.selectFrom('setting').selectAll().execute()).toEqual([]);
  });

  it('runs transactions again that were in each other’s way', async () => {
    const { db } = await openDatabase(await createPostgres());
    onTestFinished(() => db.destroy());
    for (const name of ['a', 'b']) await db.insertInto('setting').values({ name, body: '0' }).execute();
    let attempts = 0;
    let waiting: (() => void)[] = [];
    /** Waits for the other, so that each has what the other needs. */
    const meet = (): Promise<void> =>
      new Promise((resolve) => {
        waiting.push(resolve);
        if (waiting.length === 2 || attempts > 2) for (const go of waiting.splice(0)) go();
      });
    const add = (first: string, second: string): Promise<void> =>
      inTransaction(db, async (tx) => {
        attempts += 1;
        for (const name of [first, second]) {
          const { body } = await tx
            .selectFrom('setting')
            .select('body')
            .where('name', '=', name)
            .forUpdate()
            .executeTakeFirstOrThrow();
          await tx
            .updateTable('setting')
            .set({ body: String(Number(body) + 1) })
            .where('name', '=', name)
            .execute();
          if (name === first) await meet();
        }
      });
    await Promise.all([add('a', 'b'), add('b', 'a')]);
    waiting = [];
    expect(attempts).toBe(3);
    expect((await db.selectFrom('setting').select('body').execute()).map(({ body }) => body)).toEqual([
      '2',
      '2',
    ]);
  });

  it('loses and doubles nothing when the server restarts in the middle of transactions', async () => {
    const server = await startPostgres();
    onTestFinished(() => server.close());
    const { db } = await openDatabase(await server.create('empty'));
    onTestFinished(() => db.destroy());
    const repository = createRepository(db, () => Date.now());
    let stopped = false;
    const acknowledged: number[] = [];
    const writer = async (role: 'root' | 'targets' | 'snapshot'): Promise<void> => {
      for (let version = 1; !stopped; version += 1) {
        const event = { actor: role, action: 'add', details: { version } };
        await repository.add([{ role, version, text: `${role} ${version}` }], event);
        acknowledged.push(version);
      }
    };
    const writers = (['root', 'targets', 'snapshot'] as const).map(writer);
    for (const how of ['fast', 'crash'] as const) {
      const before = acknowledged.length;
      while (acknowledged.length < before + 30) await new Promise((resolve) => setImmediate(resolve));
      await server.stop(how);
      await server.start();
    }
    stopped = true;
    await Promise.all(writers);

    const { head, brokenSeq } = await repository.verifyAudit();
    expect([head.seq, brokenSeq]).toEqual([acknowledged.length, undefined]);
    const { count } = await db
      .selectFrom('metadata')
      .select(({ fn }) => fn.countAll<number>().as('count'))
      .executeTakeFirstOrThrow();
    expect(count).toBe(acknowledged.length);
  });

  it('is given up with a code where it stays away', async () => {
    const db = new Kysely<Schema>({
      dialect: new PostgresDialect({ pool: new Pool({ host: '/nowhere', database: 'none' }) }),
    });
    onTestFinished(() => db.destroy());
    const waits: number[] = [];
    const task = inTransaction(db, () => Promise.resolve(), {
      attempts: 5,
      pause: (ms) => {
        waits.push(ms);
        return Promise.resolve();
      },
    });
    await expect(task).rejects.toMatchObject({ code: 'ENOENT' });
    expect(waits).toHaveLength(4);
    expect(waits[3]).toBeGreaterThan(waits[0] ?? 0);
    await expect(createRepository(db, () => 0).heads()).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_IO' });
  });
});
