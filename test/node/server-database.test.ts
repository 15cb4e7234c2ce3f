import { join } from 'node:path';
import Database from 'libsql';
import { describe, expect, it } from 'vitest';
import { openSqlite } from '../../src/server/index.ts';
import { testDatabase } from '../conformance/database.ts';
import { temporaryDirectory } from './server-fixture.ts';

testDatabase('SQLite', async () => {
  const path = join(await temporaryDirectory(), 'inlay.db');
  return { open: () => openSqlite(path), manyWriters: false };
});

describe('openSqlite', () => {
  it('writes ahead and syncs every commit', async () => {
    const path = join(await temporaryDirectory(), 'inlay.db');
    const db = await openSqlite(path);
    await db.destroy();
    const database = new Database(path);
    expect(database.pragma('journal_mode')).toEqual([{ journal_mode: 'wal' }]);
    expect(database.pragma('integrity_check')).toEqual([{ integrity_check: 'ok' }]);
    database.close();
  });

  it('refuses a file that is no database', async () => {
    const directory = await temporaryDirectory();
    await expect(openSqlite(directory)).rejects.toThrow();
  });
});
