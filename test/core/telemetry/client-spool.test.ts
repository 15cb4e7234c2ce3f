import { describe, expect, it } from 'vitest';
import { StoreError } from '../../../src/core/errors.ts';
import type { Store } from '../../../src/core/store.ts';
import { createMemoryStore } from '../../../src/stores/memory.ts';
import { createSender } from '../../../src/telemetry/sender.ts';
import { INDEX_RECORD, decodeIndex } from '../../../src/telemetry/spool-index.ts';
import { decodeSpool, MAX_SPOOL_BYTES, type ReportHead } from '../../../src/telemetry/spool-record.ts';
import { createSpool, type Spool } from '../../../src/telemetry/spool.ts';
import { joinWindows } from '../../../src/telemetry/window-join.ts';
import type { ReportWindow } from '../../../src/telemetry/report.ts';
import { testPlatform } from '../platform.ts';
import { createReportServer, type ReportServer } from './report-server.ts';

type Records = Pick<Store, 'readRecord' | 'updateRecord'>;

const head = (dev: string): ReportHead => ({
  app: 'stable',
  dev,
  sdk: 'inlay/0.3.0',
  rt: 'test',
  cls: 0,
  consent: 'necessary',
});

/** One call, of a version of its own, so that what counts twice shows. */
function call(ver: string, t = 0): ReportWindow {
  return { t, d: 60, m: 'digits', ver, n: 1, ok: 1 };
}

const dies = new Promise<never>(() => {});

/** What goes wrong with one access to a store: it fails or the process dies, before or after it has taken effect. */
type Fault = 'fails before' | 'fails after' | 'dies before' | 'dies after';

/** A store with a fault at its n-th write. After a process has died, it is never heard of again. */
function faulty(
  store: Store,
  at: number,
  fault: Fault,
): Records & { readonly writes: () => number; readonly died: Promise<'dead'> } {
  let writes = 0;
  let isDead = false;
  let die = (): void => {};
  const died = new Promise<'dead'>((resolve) => {
    die = () => {
      resolve('dead');
    };
  });
  const fail = (): never => {
    throw new StoreError('ERR_INLAY_STORE_IO', 'The disk fails.');
  };
  return {
    writes: () => writes,
    died,
    readRecord: (name) => (isDead ? dies : store.readRecord(name)),
    updateRecord: async (name, change) => {
      if (isDead) return dies;
      writes += 1;
      const isHit = writes === at;
      if (isHit && fault === 'fails before') return fail();
      if (isHit && fault === 'dies before') {
        isDead = true;
        die();
        return dies;
      }
      const kept = await store.updateRecord(name, change);
      if (isHit && fault === 'fails after') return fail();
      if (isHit && fault === 'dies after') {
        isDead = true;
        die();
        return dies;
      }
      return kept;
    },
  };
}

/** What becomes of a task in a process that may die. */
function orDeath(task: Promise<unknown>, died: Promise<'dead'> = dies): Promise<'done' | 'failed' | 'dead'> {
  const settled = task.then(
    () => 'done' as const,
    () => 'failed' as const,
  );
  return Promise.race([settled, died]);
}

async function send(spool: Spool, server: ReportServer): Promise<void> {
  const sender = createSender({
    platform: { ...testPlatform(), fetch: server.fetch },
    url: 'https://sync.test',
  });
  const { done, refused } = await sender.send(spool.sealed());
  await spool.acknowledge([...done, ...refused]);
}

let seed = 1;
function open(store: Records): Spool {
  seed += 1;
  return createSpool({ platform: testPlatform({ seed }), store, join: joinWindows });
}

function countByVersion(server: ReportServer): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { ver, n } of server.windows()) counts.set(ver, (counts.get(ver) ?? 0) + n);
  return counts;
}

describe('a spool', () => {
  it('loses nothing that was journaled and counts nothing twice, whatever fails at whatever write', async () => {
    for (const fault of ['fails before', 'fails after', 'dies before', 'dies after'] as const) {
      for (let at = 1, isOver = false; !isOver; at += 1) {
        const disk = createMemoryStore();
        const server = createReportServer();
        const counted: string[] = [];
        const journaled: string[] = [];
        const live = async (store: Records, run: string, died?: Promise<'dead'>): Promise<void> => {
          const spool = open(store);
          for (let round = 0; round < 3; round += 1) {
            const ver = `${run}.${round}`;
            counted.push(ver);
            const wrote = await orDeath(spool.journal([call(ver)]), died);
            if (wrote === 'dead') return;
            if (wrote === 'done') journaled.push(ver);
            const sealed = await orDeath(spool.seal(head), died);
            if (sealed === 'dead') return;
            if (sealed === 'done' && (await orDeath(send(spool, server), died)) === 'dead') return;
          }
          if ((await orDeath(spool.close(), died)) === 'done' && !fault.startsWith('dies'))
            journaled.push(...counted);
        };
        const broken = faulty(disk, at, fault);
        await live(broken, 'a', broken.died);
        isOver = broken.writes() < at;
        await live(disk, 'b');
        await live(disk, 'c');
        const counts = countByVersion(server);
        const doubled = [...counts].filter(([, count]) => count > 1);
        expect([fault, at, doubled]).toEqual([fault, at, []]);
        const lost = journaled.filter((ver) => !counts.has(ver));
        expect([fault, at, lost]).toEqual([fault, at, []]);
      }
    }
  });

  it('sends what a lost answer leaves in doubt again, byte by byte', async () => {
    const server = createReportServer();
    const disk = createMemoryStore();
    const spool = open(disk);
    await spool.journal([call('1.0.0')]);
    await spool.seal(head);
    server.after = () => {
      throw new TypeError('The connection is lost.');
    };
    await send(spool, server);
    const next = open(disk);
    await next.open();
    server.after = () => {};
    await send(next, server);
    expect([server.calls(), server.duplicates()]).toEqual([1, 1]);
    const reports = (body: string): string => body.slice(body.indexOf('"reports"'));
    expect(reports(server.bodies[1] ?? '')).toBe(reports(server.bodies[0] ?? ''));
    expect(next.sealed()).toEqual([]);
  });

  it('gives every reporter an epoch of its own, and neighbours do not touch each other', async () => {
    const server = createReportServer();
    const disk = createMemoryStore();
    const alive = { id: '7', isAlive: async () => true };
    const spools = [1, 2, 3].map((number) =>
      createSpool({
        platform: { ...testPlatform({ seed: number }), instance: alive },
        store: disk,
        join: joinWindows,
      }),
    );
    for (const [number, spool] of spools.entries()) {
      await spool.journal([call(`${number}`)]);
      await spool.seal(head);
    }
    for (const spool of spools) await send(spool, server);
    const epochs = new Set(server.reports.map(({ epoch }) => epoch));
    expect([epochs.size, server.calls(), server.duplicates()]).toEqual([3, 3, 0]);
    expect(new Set(server.reports.map(({ dev }) => dev)).size).toBe(1);
  });

  it('that lost its record to another reporter goes on in a new one, and counts nothing twice', async () => {
    const server = createReportServer();
    const disk = createMemoryStore();
    // Without a way to tell, each takes the other for dead.
    const [first, second] = [open(disk), open(disk)];
    for (let round = 0; round < 4; round += 1) {
      for (const [name, spool] of [['a', first] as const, ['b', second] as const]) {
        await spool.journal([call(`${name}.${round}`)]);
        await spool.seal(head);
        await send(spool, server);
      }
    }
    const last = open(disk);
    await last.open();
    await last.seal(head);
    await send(last, server);
    expect([...countByVersion(server).values()]).toEqual(Array.from({ length: 8 }, () => 1));
  });

  it('frees the records of dead runs, so that restarts do not fill the store', async () => {
    const disk = createMemoryStore();
    for (let run = 0; run < 20; run += 1) {
      const spool = open(disk);
      await spool.journal([call('1.0.0')]);
      if (run % 2 === 0) await spool.close();
    }
    expect(decodeIndex(await disk.readRecord(INDEX_RECORD)).owners).toHaveLength(1);
    const last = open(disk);
    await last.open();
    await last.seal(head);
    const server = createReportServer();
    await send(last, server);
    expect(server.calls()).toBe(20);
  });

  it('merges windows instead of dropping counts while nothing can be sent', async () => {
    const disk = createMemoryStore();
    const spool = open(disk);
    const calls = 2000;
    for (let minute = 0; minute < calls; minute += 1)
      await spool.journal([call(`1.0.${minute % 3}`, minute * 300)]);
    await spool.seal(head);
    const server = createReportServer();
    await send(spool, server);
    expect(server.calls()).toBe(calls);
    expect(server.reports.length).toBeLessThan(20);
  });

  it('stays below its limit on disk, drops the oldest first, and says what it has lost', async () => {
    const disk = createMemoryStore();
    const spool = open(disk);
    const day = 86_400;
    const err = Object.fromEntries(
      Array.from({ length: 8 }, (_, at) => [`a_failure_with_a_long_name_${at}`, 1]),
    );
    for (let at = 0; at < 25; at += 1) {
      await spool.journal(
        Array.from({ length: 120 }, (_, more) => ({ ...call(`1.${at}.${more}`, at * day), n: 9, err })),
      );
    }
    const record = await disk.readRecord('telemetry-0');
    expect(record?.length).toBeLessThanOrEqual(MAX_SPOOL_BYTES);
    const { open: kept = [], drop = {} } = decodeSpool(record) ?? {};
    expect(kept.length + (drop['cap'] ?? 0)).toBe(25 * 120);
    expect(Object.keys(drop)).toEqual(['cap']);
    expect(kept.at(-1)?.ver).toBe('1.24.119');
  });

  it('keeps counts in memory while the store cannot be written, and no more of them than fit', async () => {
    const disk = createMemoryStore();
    let isFull = true;
    const store: Records = {
      readRecord: (name) => disk.readRecord(name),
      updateRecord: (name, change) =>
        isFull
          ? Promise.reject(new StoreError('ERR_INLAY_STORE_FULL', 'The disk is full.'))
          : disk.updateRecord(name, change),
    };
    const spool = open(store);
    const day = 86_400;
    for (let at = 0; at < 100; at += 1)
      await expect(spool.journal([call(`1.0.${at}`, at * day)])).rejects.toThrow('full');
    isFull = false;
    await spool.seal(head);
    const server = createReportServer();
    await send(spool, server);
    const lost = server.reports.reduce((sum, { drop }) => sum + (drop?.['disk_full'] ?? 0), 0);
    expect(server.calls() + lost).toBe(100);
    expect(lost).toBeGreaterThan(0);
  });

  it('has no more than 128 reports without an answer', async () => {
    const spool = open(createMemoryStore());
    for (let at = 0; at < 140; at += 1) {
      await spool.journal([call(`1.0.${at}`)]);
      await spool.seal(head);
    }
    expect([spool.sealed().length, spool.waiting()]).toEqual([128, 12]);
  });

  it('that is wiped leaves nothing behind, and another name comes after it', async () => {
    const disk = createMemoryStore();
    const spool = open(disk);
    await spool.journal([call('1.0.0')]);
    await spool.seal(head);
    await spool.journal([call('1.0.1')]);
    const before = spool.dev();
    expect(await spool.wipe()).toEqual([before]);
    expect(decodeSpool(await disk.readRecord('telemetry-0'))).toBeUndefined();
    const next = open(disk);
    await next.open();
    expect([next.sealed(), next.waiting(), next.dev() === before]).toEqual([[], 0, false]);
    expect(await next.toForget()).toEqual([before]);
  });

  it('that dies while it is wiped sends nothing of it later', async () => {
    for (let at = 1; at <= 4; at += 1) {
      for (const fault of ['dies before', 'dies after'] as const) {
        const disk = createMemoryStore();
        const spool = open(disk);
        await spool.journal([call('1.0.0')]);
        await spool.seal(head);
        const broken = faulty(disk, at, fault);
        await orDeath(open(broken).wipe(), broken.died);
        const { dev } = decodeIndex(await disk.readRecord(INDEX_RECORD));
        const next = open(disk);
        await next.open();
        // Either it was not yet wiped at all, or nothing is left.
        expect(next.sealed()).toHaveLength(dev === undefined ? 0 : 1);
      }
    }
  });

  it('begins anew with a record that is damaged', async () => {
    const disk = createMemoryStore();
    const spool = open(disk);
    await spool.journal([call('1.0.0')]);
    await disk.updateRecord('telemetry-0', () => Uint8Array.of(123, 34, 0, 255));
    await spool.journal([call('1.0.1')]);
    await spool.seal(head);
    const server = createReportServer();
    await send(spool, server);
    expect([...countByVersion(server)]).toEqual([['1.0.1', 1]]);
  });
});
