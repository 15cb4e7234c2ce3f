import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
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

    it('has one valid token at a time', async () => {
      const repository = await open();
      expect(await repository.tokenHashes()).toEqual([]);
      await repository.replaceTokens('a'.repeat(64));
      await repository.replaceTokens('b'.repeat(64));
      expect(await repository.tokenHashes()).toEqual(['b'.repeat(64)]);
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

    it('remembers everything after it was closed', async () => {
      const repository = await open();
      await repository.add([{ role: 'root', version: 1, text: 'r1' }], event);
      await repository.replaceTokens('a'.repeat(64));
      await repository.close();
      const again = await open();
      expect(await again.text('root', 1)).toBe('r1');
      expect(await again.tokenHashes()).toEqual(['a'.repeat(64)]);
    });

    it('says which store failed when the database is gone', async () => {
      const repository = await open();
      await repository.close();
      await expect(repository.heads()).rejects.toMatchObject({ code: 'ERR_INLAY_STORE_IO' });
    });
  });
}
