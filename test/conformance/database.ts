import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { ServerError } from '../../src/core/errors.ts';
import { createStateReader } from '../../src/server/catalog-state.ts';
import { createRepository, type Repository, type Schema } from '../../src/server/index.ts';
import type { Kysely } from 'kysely';

/** A database that can be closed and opened again with what it holds. */
export interface DatabaseUnderTest {
  /** Opens a connection to the same content. */
  open(): Promise<Kysely<Schema>>;
  /** Whether several connections may write at a time. */
  readonly manyWriters: boolean;
}

/** Rules that the repository keeps on every database. `create` gives an empty one. */
export function testDatabase(name: string, create: () => Promise<DatabaseUnderTest>): void {
  describe(`repository on ${name}`, () => {
    let database: DatabaseUnderTest;
    let now: number;

    const open = async (): Promise<Repository> => {
      const repository = createRepository(await database.open(), () => now);
      let closed = false;
      const close = async (): Promise<void> => {
        if (!closed) await repository.close();
        closed = true;
      };
      onTestFinished(close);
      return { ...repository, close };
    };
    const event = { actor: 'test', action: 'add', details: { why: 'because' } };

    beforeEach(async () => {
      database = await create();
      now = Date.parse('2026-03-01T12:00:00Z');
    });

    it('has no heads before the first metadata', async () => {
      expect(await (await open()).heads()).toEqual({});
    });

    it('knows the newest version of each role as a number', async () => {
      const repository = await open();
      for (const version of [1, 2, 10, 9])
        await repository.add([{ role: 'targets', version, text: `t${version}` }], event);
      await repository.add([{ role: 'root', version: 1, text: 'r1' }], event);
      expect(await repository.heads()).toEqual({ root: 1, targets: 10 });
    });

    it('gives texts back as they were, and nothing for what it has not', async () => {
      const repository = await open();
      const text = '{"a":"é 😀 \\u0000 \'\' %"}\n';
      await repository.add([{ role: 'root', version: 1, text }], event);
      expect(await repository.text('root', 1)).toBe(text);
      expect(await repository.text('root', 2)).toBeUndefined();
      expect(await repository.text('targets', 1)).toBeUndefined();
    });

    it('keeps texts of a megabyte', async () => {
      const repository = await open();
      const text = 'x'.repeat(1_000_000);
      await repository.add([{ role: 'targets', version: 1, text }], event);
      expect(await repository.text('targets', 1)).toBe(text);
    });

    it('lists later versions oldest first', async () => {
      const repository = await open();
      for (const version of [3, 1, 11, 2])
        await repository.add([{ role: 'root', version, text: `r${version}` }], event);
      expect(await repository.textsAfter('root', 1)).toEqual(['r2', 'r3', 'r11']);
    });

    it('adds all files or none', async () => {
      const repository = await open();
      await repository.add([{ role: 'snapshot', version: 1, text: 'old' }], event);
      const files = [
        { role: 'targets', version: 1, text: 'new' },
        { role: 'snapshot', version: 1, text: 'new' },
      ] as const;
      await expect(repository.add(files, event)).rejects.toMatchObject({ code: 'ERR_INLAY_CONFLICT' });
      expect(await repository.heads()).toEqual({ snapshot: 1 });
      expect(await repository.text('snapshot', 1)).toBe('old');
      expect(await repository.audit(10)).toHaveLength(1);
    });

    it('lets one of many writers of a version win', async () => {
      const first = await open();
      const second = database.manyWriters ? await open() : first;
      const writes = Array.from({ length: 8 }, (_, i) =>
        (i % 2 === 0 ? first : second).add([{ role: 'timestamp', version: 1, text: `t${i}` }], event),
      );
      const results = await Promise.allSettled(writes);
      expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
      expect(await first.text('timestamp', 1)).toMatch(/^t\d$/);
      expect(await first.audit(10)).toHaveLength(1);
    });

    it('drops timestamps that a newer one replaces, and nothing else', async () => {
      const repository = await open();
      for (const version of [1, 2, 3]) {
        const files = [
          { role: 'timestamp', version, text: `t${version}` },
          { role: 'snapshot', version, text: `s${version}` },
        ] as const;
        await repository.add(files, event);
      }
      expect(await repository.textsAfter('timestamp', 0)).toEqual(['t3']);
      expect(await repository.textsAfter('snapshot', 0)).toEqual(['s1', 's2', 's3']);
    });

    it('numbers audit records without gaps and lists the newest first', async () => {
      const repository = await open();
      for (const version of [1, 2, 3]) {
        now += 1000;
        await repository.add([{ role: 'root', version, text: '' }], event);
      }
      const records = await repository.audit(2);
      expect(records.map(({ seq }) => seq)).toEqual([3, 2]);
      expect(records[0]).toEqual({ ...event, seq: 3, at: '2026-03-01T12:00:03.000Z' });
    });

    it('chains audit records, whoever writes them', async () => {
      const first = await open();
      const second = database.manyWriters ? await open() : first;
      const writes = Array.from({ length: 30 }, (_, i) =>
        (i % 2 === 0 ? first : second).record({ actor: `a${i}`, action: 'é', details: { i, share: 0.25 } }),
      );
      await Promise.all(writes);
      const records = await first.audit(100);
      expect(records.map(({ seq }) => seq)).toEqual(Array.from({ length: 30 }, (_, i) => 30 - i));
      expect(new Set(records.map(({ actor }) => actor)).size).toBe(30);
      const { head, brokenSeq } = await first.verifyAudit();
      expect([head.seq, brokenSeq]).toEqual([30, undefined]);
      expect((await first.audit(2, 11)).map(({ seq }) => seq)).toEqual([10, 9]);
    });

    it.each([
      [
        'changed',
        (db: Kysely<Schema>) => db.updateTable('audit').set({ actor: 'mallory' }).where('seq', '=', 3),
      ],
      ['removed', (db: Kysely<Schema>) => db.deleteFrom('audit').where('seq', '=', 3)],
      ['renamed', (db: Kysely<Schema>) => db.updateTable('audit').set({ seq: 33 }).where('seq', '=', 3)],
    ])('finds an audit record that was %s', async (_, tamper) => {
      const repository = await open();
      for (let i = 0; i < 5; i += 1) await repository.record(event);
      const db = await database.open();
      await tamper(db).execute();
      await db.destroy();
      expect(await repository.verifyAudit()).toMatchObject({ head: { seq: 2 }, brokenSeq: 3 });
    });

    it('makes a change with its audit record or neither', async () => {
      const repository = await open();
      const failing = repository.record(event, async (tx) => {
        await tx.insertInto('setting').values({ name: 'a', body: '1' }).execute();
        throw new ServerError('ERR_INLAY_REFUSED', 'Not this one.');
      });
      await expect(failing).rejects.toMatchObject({ code: 'ERR_INLAY_REFUSED' });
      await repository.record(event, async (tx) => {
        await tx.insertInto('setting').values({ name: 'b', body: '2' }).execute();
      });
      const db = await database.open();
      expect(await db.selectFrom('setting').selectAll().execute()).toEqual([{ name: 'b', body: '2' }]);
      await db.destroy();
      expect(await repository.audit(10)).toHaveLength(1);
    });

    it('shows every replica what another has installed', async () => {
      const first = await open();
      const second = await open();
      const state = createStateReader(second);
      expect((await state()).heads).toEqual({});
      await first.add([{ role: 'root', version: 1, text: 'not a root' }], event);
      // It has seen it.
      await expect(state()).rejects.toMatchObject({ code: 'ERR_INLAY_METADATA_INVALID' });
      expect(await second.heads()).toEqual({ root: 1 });
    });

    it('gives whole numbers back as numbers, however large, and fractions as they were', async () => {
      const db = await database.open();
      onTestFinished(() => db.destroy());
      const row = {
        ...{ rollout: 'r', stage: 1, dev: 'd', arm: 't', cls: 3, n: 2 ** 53 - 1, errors: 0, fatals: 0 },
        ...{ rejections: 0, activations: 0, base_n: 100, base_errors: 1, base_p95: 0.1 + 0.2, base_mem: 1e9 },
        ...{ consent: 1, base_load: 0.7, load: '' },
        ...{ mem: 1234.5, hist: '', outputs: '{}', biz: '{}', first_at: Date.now(), activated_at: 0 },
        ...{ last_at: Date.now(), gap: 1 / 3, judged_at: 0, verdicts: '' },
      };
      await db.insertInto('stage_device').values(row).execute();
      expect(await db.selectFrom('stage_device').selectAll().execute()).toEqual([row]);
      const sums = await db
        .selectFrom('stage_device')
        .select(({ fn }) => [
          fn.sum<number>('cls').as('sum'),
          fn.countAll<number>().as('count'),
          fn.max('n').as('max'),
        ])
        .executeTakeFirstOrThrow();
      expect(sums).toEqual({ sum: 3, count: 1, max: 2 ** 53 - 1 });
    });

    it('counts up identifiers and never gives one twice', async () => {
      const db = await database.open();
      onTestFinished(() => db.destroy());
      const add = async (): Promise<number> => {
        const values = { series: 1, t_s: 300, body: '{}' };
        return (await db.insertInto('delta').values(values).returning('id').executeTakeFirstOrThrow()).id;
      };
      const [first, second] = [await add(), await add()];
      await db.deleteFrom('delta').execute();
      const third = await add();
      expect(first < second && second < third).toBe(true);
    });

    it('remembers everything after it was closed', async () => {
      const repository = await open();
      await repository.add([{ role: 'root', version: 1, text: 'r1' }], event);
      await repository.close();
      const again = await open();
      expect(await again.text('root', 1)).toBe('r1');
    });

    it('says which store failed when the database is gone', async () => {
      const repository = await open();
      await repository.close();
      await expect(repository.heads()).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_IO' });
    });
  });
}
