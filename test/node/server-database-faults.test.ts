import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import Sqlite from 'libsql';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { moveDatabase } from '../../src/server/db/move.ts';
import { openDatabase, type Database } from '../../src/server/db/open.ts';
import { createRepository } from '../../src/server/db/repository.ts';
import type { Schema } from '../../src/server/db/schema.ts';
import { createPostgres, lacksPostgres } from './postgres.ts';
import { temporaryDirectory } from './server-fixture.ts';

let folder: string;
beforeAll(async () => {
  // Where packages are found.
  folder = await mkdtemp(fileURLToPath(new URL('../../node_modules/.inlay-test-', import.meta.url)));
  await build({
    entryPoints: [fileURLToPath(new URL('database.worker.ts', import.meta.url))],
    outfile: join(folder, 'child.mjs'),
    bundle: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    logLevel: 'error',
  });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Runs the child until it has said `lines` lines and `ms` have passed, or to its end. @returns what it said. */
async function runChild(args: readonly string[], lines = Infinity, ms = 0): Promise<string[]> {
  const child = spawn(process.execPath, [join(folder, 'child.mjs'), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit');
  const said: string[] = [];
  createInterface(child.stdout).on('line', (line) => {
    said.push(line);
    if (said.length === lines) void setTimeout(ms).then(() => child.kill('SIGKILL'));
  });
  await ended;
  return said;
}

async function open(target: string, forMove = false): Promise<Database> {
  const database = await openDatabase(target, { forMove });
  onTestFinished(() => database.db.destroy());
  return database;
}

const auditRows = 3000;

/** A file as the first version of the server left it. */
function createOldFile(path: string): void {
  const file = new Sqlite(path);
  file.exec(`
    create table kysely_migration (name varchar(255) not null primary key, timestamp varchar(255) not null);
    create table kysely_migration_lock (id varchar(255) not null primary key, is_locked integer default 0 not null);
    insert into kysely_migration values ('0001-metadata', '2026-01-01T00:00:00.000Z');
    insert into kysely_migration_lock values ('migration_lock', 0);
    create table metadata (role varchar(64) not null, version integer not null, text text not null,
      created_at varchar(32) not null, constraint metadata_key primary key (role, version));
    create table admin_token (sha256 varchar(64) primary key, created_at varchar(32) not null);
    create table audit (seq integer primary key, at varchar(32) not null, actor varchar(64) not null,
      action varchar(64) not null, details text not null);
    insert into metadata values ('root', 1, 'r1', '2026-01-01T00:00:00.000Z');
    insert into admin_token values ('${'ab'.repeat(32)}', '2026-01-02T00:00:00.000Z');
    with recursive n(i) as (select 1 union all select i + 1 from n where i < ${auditRows})
      insert into audit select i, '2026-01-01T00:00:00.000Z', 'server', 'add', '{"i":' || i || '}' from n;
  `);
  file.close();
}

async function expectMigrated(path: string): Promise<void> {
  const { db } = await open(path);
  const repository = createRepository(db, () => Date.parse('2026-03-01T00:00:00Z'));
  expect(await repository.text('root', 1)).toBe('r1');
  const { head, brokenSeq } = await repository.verifyAudit();
  expect([head.seq, brokenSeq]).toEqual([auditRows, undefined]);
  expect(await db.selectFrom('token').selectAll().execute()).toEqual([
    {
      ...{ id: 'abababab', sha256: 'ab'.repeat(32), name: 'admin', role: 'admin', scope: '{}' },
      ...{ created_at: Date.parse('2026-01-02'), expires_at: 0, revoked_at: 0, used_at: 0 },
    },
  ]);
}

describe('migration', () => {
  it('keeps what an older server has written, and chains its audit log', async () => {
    const path = join(await temporaryDirectory(), 'inlay.db');
    createOldFile(path);
    await expectMigrated(path);
  });

  it('is whole after kill -9 at any time, and goes on where it was', async () => {
    const path = join(await temporaryDirectory(), 'inlay.db');
    createOldFile(path);
    const ends = new Set<string>();
    for (const ms of [0, 30, 60]) {
      ends.add((await runChild([path], 1, ms)).at(-1) ?? '');
      const file = new Sqlite(path);
      const tables = file.prepare("select name from sqlite_master where type = 'table'").all() as {
        name: string;
      }[];
      const names = tables.map(({ name }) => name);
      // All of the step or nothing of it.
      expect(names.includes('admin_token')).toBe(!names.includes('token'));
      expect(names.includes('setting')).toBe(names.includes('token'));
      file.close();
    }
    expect(ends).toContain('begin');
    await expectMigrated(path);
  });

  it('is done once by processes that start at the same time', async () => {
    const path = join(await temporaryDirectory(), 'inlay.db');
    createOldFile(path);
    const ends = await Promise.all([runChild([path]), runChild([path])]);
    expect(ends.map((said) => said.at(-1))).toEqual(['done', 'done']);
    await expectMigrated(path);
  });
});

/** Fills a database with something of everything; several pages of some. */
async function fill({ db }: Database): Promise<void> {
  const repository = createRepository(db, () => Date.parse('2026-03-01T00:00:00Z'));
  for (let version = 1; version <= 20; version += 1) {
    const files = [{ role: 'targets', version, text: `é 😀 ${'x'.repeat(5000)}` }] as const;
    await repository.add(files, { actor: 'a', action: 'add', details: { version } });
  }
  const token = { id: 'a', sha256: 'a'.repeat(64), name: 'admin', role: 'admin', scope: '{}' };
  const times = { created_at: 0, expires_at: 0, revoked_at: 0, used_at: 0 };
  await repository.record({ actor: 'a', action: 'token', details: {} }, async (tx) => {
    await tx
      .insertInto('token')
      .values({ ...token, ...times })
      .execute();
  });
  const many = <Row>(count: number, row: (i: number) => Row): Row[] =>
    Array.from({ length: count }, (_, i) => row(i));
  await db
    .insertInto('health')
    .values(many(1700, (i) => ({ t_s: 3600 * (i % 50), name: `n${i}`, n: i })))
    .execute();
  await db
    .insertInto('delta')
    .values(many(700, (i) => ({ series: i, t_s: 300, body: '{"n":1}' })))
    .execute();
  await db.deleteFrom('delta').where('id', '<=', 100).execute();
  await db
    .insertInto('device')
    .values(
      many(600, (i) => ({
        ...{ dev: `d${i % 300}`, model: `m${i}`, version: '1', rollout: '', stage: 0, arm: '', cls: 1 },
        ...{
          sdk: '',
          runtime: '',
          app: '',
          first_at: 1_800_000_000_000,
          last_at: 2,
          last_t_s: 3,
          counted: '',
        },
      })),
    )
    .execute();
  await db.insertInto('setting').values({ name: 'a', body: '{}' }).execute();
  await db.insertInto('lease').values({ name: 'jobs', holder: 'x', until_at: 5 }).execute();
}

async function contents({ db }: Database): Promise<Record<string, unknown[]>> {
  const all: Record<string, unknown[]> = {};
  const names: (keyof Schema)[] = ['metadata', 'token', 'audit', 'health', 'delta', 'device', 'setting'];
  for (const name of names) {
    const rows = await db.selectFrom(name).selectAll().execute();
    all[name] = rows.map((row) => JSON.stringify(row, Object.keys(row).sort())).sort();
  }
  return all;
}

describe.skipIf(lacksPostgres)('moveDatabase', () => {
  const now = (): number => 1_900_000_000_000;

  async function source(): Promise<{ path: string; from: Database }> {
    const path = join(await temporaryDirectory(), 'inlay.db');
    const from = await open(path);
    await fill(from);
    return { path, from };
  }

  it('copies everything to PostgreSQL and back', async () => {
    const { from } = await source();
    const there = await open(await createPostgres(), true);
    const progress: string[] = [];
    const counts = await moveDatabase(from, there, {
      now,
      onProgress: (table, rows, of) => progress.push(`${table} ${rows}/${of}`),
    });
    expect(counts).toMatchObject({ metadata: 20, health: 1700, delta: 600, device: 600, token: 1 });
    expect(progress).toContain('health 1500/1700');
    expect(progress).toContain('metadata 20/20');
    expect(await contents(there)).toEqual(await contents(from));
    expect(await createRepository(there.db, () => 0).verifyAudit()).toMatchObject({ head: { seq: 21 } });

    const back = await open(join(await temporaryDirectory(), 'inlay.db'), true);
    await moveDatabase(there, back, { now });
    expect(await contents(back)).toEqual(await contents(from));
    for (const { db } of [there, back]) {
      const values = { series: 1, t_s: 1, body: '' };
      const { id } = await db.insertInto('delta').values(values).returning('id').executeTakeFirstOrThrow();
      expect(id).toBeGreaterThan(700);
    }
  });

  it('goes on where it was after kill -9, and copies nothing twice', async () => {
    const { path, from } = await source();
    const expected = await contents(from);
    await from.db.destroy();
    const url = await createPostgres();
    for (const lines of [2, 4]) {
      const said = await runChild([path, url], lines);
      expect(said.at(-1)).not.toBe('done');
      await expect(openDatabase(url)).rejects.toMatchObject({ code: 'ERR_INLAY_CONFLICT' });
    }
    const said = await runChild([path, url]);
    expect(said[1]).not.toMatch(/^metadata/);
    expect(said.at(-1)).toBe('done');
    expect(await contents(await open(url))).toEqual(expected);
  });

  it('refuses a target that is not empty, and changes nothing there', async () => {
    const { from } = await source();
    const to = await open(await createPostgres(), true);
    await to.db.insertInto('contact').values({ id: 'a', kind: 'webhook', body: '{}' }).execute();
    await expect(moveDatabase(from, to, { now })).rejects.toMatchObject({
      code: 'ERR_INLAY_CONFLICT',
      details: { table: 'contact', rows: 1 },
    });
    expect(await contents(to)).toMatchObject({ metadata: [], setting: [] });
  });

  it('refuses a source that a server uses', async () => {
    const { from } = await source();
    await from.db
      .updateTable('lease')
      .set({ until_at: now() + 1000 })
      .execute();
    const to = await open(await createPostgres(), true);
    await expect(moveDatabase(from, to, { now })).rejects.toMatchObject({ code: 'ERR_INLAY_CONFLICT' });
  });

  it('refuses to go on from a source that has changed', async () => {
    const { path, from } = await source();
    const url = await createPostgres();
    await from.db.destroy();
    await runChild([path, url], 3);
    const changed = await open(path);
    await createRepository(changed.db, () => 0).record({ actor: 'a', action: 'b', details: {} });
    await expect(moveDatabase(changed, await open(url, true), { now })).rejects.toMatchObject({
      code: 'ERR_INLAY_CONFLICT',
    });
  });

  it('lets nobody write to the source meanwhile', async () => {
    const from = await open(await createPostgres());
    await fill(from);
    const other = await openDatabase(join(await temporaryDirectory(), 'inlay.db'));
    onTestFinished(() => other.db.destroy());
    let blocked: Promise<unknown> | undefined;
    let isWritten = false;
    const { db } = from;
    await moveDatabase(from, other, {
      now,
      onProgress: () => {
        blocked ??= db
          .insertInto('contact')
          .values({ id: 'late', kind: 'webhook', body: '{}' })
          .execute()
          .then(() => {
            isWritten = true;
          });
        expect(isWritten).toBe(false);
      },
    });
    await blocked;
    expect(await other.db.selectFrom('contact').selectAll().execute()).toEqual([]);
  });
});
