import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished } from 'vitest';
import { createFoldJob } from '../../src/server/ingest/fold.ts';
import type { Report, ReportsAnswer } from '../../src/telemetry/report.ts';
import { createPostgres, lacksPostgres, startPostgres } from './postgres.ts';
import { temporaryDirectory } from './server-fixture.ts';
import { openIngest, reportOf, timesOf, totalsOf, windowOf } from './server-ingest-fixture.ts';

const child = fileURLToPath(new URL('server-ingest-child.mjs', import.meta.url));
const [devices, each] = [24, 20];

/** Reports of the last hours by the real clock, which the process that is killed has. */
function createReports(): { readonly reports: Report[]; readonly calls: number } {
  const now = Date.now();
  const last = Math.floor(now / 300_000) * 300 - 300;
  let calls = 0;
  const reports = Array.from({ length: devices * each }, (_, i) => {
    const n = 1 + (i % 13);
    calls += n;
    const h = { lat: timesOf([0.25]) };
    const window = windowOf({ t: last - 300 * (i % 5), n, ok: n, h, ro: 'r-1', st: 1, arm: 't' });
    return reportOf(i % devices, Math.floor(i / devices), [window], { sent: now });
  });
  return { reports, calls };
}

interface Server {
  readonly process: ChildProcess;
  readonly url: string;
}

async function startServer(target: string): Promise<Server> {
  const server = fork(child, [target]);
  onTestFinished(() => {
    server.kill('SIGKILL');
  });
  const [url] = (await once(server, 'message')) as [string];
  return { process: server, url };
}

/** Sends what is not acknowledged, a few at a time, until the server is gone or has all. */
async function sendAll(url: string, waiting: Map<string, Report>): Promise<void> {
  const keyOf = ({ epoch, seq }: Pick<Report, 'epoch' | 'seq'>): string => `${epoch} ${seq}`;
  while (waiting.size > 0) {
    const parts = Array.from({ length: 8 }, (_, i) =>
      [...waiting.values()].filter((__, k) => k % 8 === i).slice(0, 4),
    ).filter((reports) => reports.length > 0);
    const answers = await Promise.all(
      parts.map(async (reports) => {
        const response = await fetch(`${url}/v1/reports`, {
          method: 'POST',
          body: JSON.stringify({ reports }),
        });
        return (await response.json()) as ReportsAnswer;
      }),
    );
    for (const { done } of answers) for (const name of done) waiting.delete(keyOf(name));
  }
}

describe.each([
  ['SQLite', async () => join(await temporaryDirectory(), 'inlay.db'), false],
  ['PostgreSQL', createPostgres, lacksPostgres],
] as const)('a server on %s that is killed', (_name, create, isSkipped) => {
  it.skipIf(isSkipped)('has counted everything once when devices have sent it again', async () => {
    const target = await create();
    const { reports, calls } = createReports();
    const waiting = new Map(reports.map((report) => [`${report.epoch} ${report.seq}`, report]));
    let kills = 0;
    for (const afterMs of [12, 45, 25]) {
      const server = await startServer(target);
      const sent = sendAll(server.url, waiting).catch(() => undefined);
      await setTimeout(afterMs);
      if (waiting.size > 0) kills += 1;
      server.process.kill('SIGKILL');
      await sent;
    }
    const last = await startServer(target);
    await sendAll(last.url, waiting);
    // What was acknowledged may be sent once more, where the answer was lost.
    const again = new Map(reports.slice(0, 40).map((report) => [`${report.epoch} ${report.seq}`, report]));
    await sendAll(last.url, again);
    last.process.kill('SIGKILL');
    await once(last.process, 'exit');

    expect(kills).toBeGreaterThan(0);
    const opened = await openIngest(target);
    await createFoldJob({ db: opened.db, platform: { monotonicMs: () => performance.now() } }).run(
      Date.now(),
      new AbortController().signal,
    );
    const totals = await totalsOf(opened);
    expect([totals.n, totals.h?.lat?.sum]).toEqual([calls, reports.length / 4]);
    const rows = await opened.db.selectFrom('stage_device').select('n').execute();
    expect(rows.reduce((sum, { n }) => sum + n, 0)).toBe(calls);
    const ever = await opened.db.selectFrom('roll').select('body').where('res', '=', 0).execute();
    expect(ever.reduce((sum, { body }) => sum + (JSON.parse(body) as { n: number }).n, 0)).toBe(calls);
  });
});

describe.skipIf(lacksPostgres)('ingest whose PostgreSQL is started again', () => {
  it('counts everything once', async () => {
    const server = await startPostgres();
    onTestFinished(() => server.close());
    const opened = await openIngest(await server.create(), { batchMs: 5 });
    const reports = Array.from({ length: 300 }, (_, i) => reportOf(i % 10, Math.floor(i / 10)));
    // What fails is sent again, as devices do.
    const send = (report: Report): Promise<unknown> =>
      opened.ingest.take([report]).catch(async () => {
        await setTimeout(20);
        return send(report);
      });
    const first = Promise.all(reports.slice(0, 150).map(send));
    await setTimeout(15);
    await server.stop('crash');
    const second = Promise.all(reports.slice(150).map(send));
    await server.start();
    await Promise.all([first, second, ...reports.slice(0, 20).map(send)]);
    expect((await totalsOf(opened)).n).toBe(3000);
  });

  it('counts everything once where two servers take the same reports at the same time', async () => {
    const target = await createPostgres();
    const opened = await openIngest(target);
    const other = await openIngest(target);
    const reports = Array.from({ length: 200 }, (_, i) => reportOf(i % 5, Math.floor(i / 5)));
    const window = windowOf({ ro: 'r-1', st: 1, arm: 't' });
    const all = reports.map((report) => ({ ...report, win: [window] }));
    await Promise.all(all.flatMap((report) => [opened.ingest.take([report]), other.ingest.take([report])]));
    expect((await totalsOf(opened)).n).toBe(2000);
    const rows = await opened.db.selectFrom('stage_device').select('n').execute();
    expect(rows.map(({ n }) => n)).toEqual([400, 400, 400, 400, 400]);
  });
});
