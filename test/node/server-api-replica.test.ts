import { describe, expect, it } from 'vitest';
import type { FleetAnswer } from '../../src/server/api/answers.ts';
import { createPostgres, lacksPostgres } from './postgres.ts';
import { startFakeS3 } from './s3-fake.ts';
import { expectOk, install, problemOf, publish, startTestServer, tipOf } from './server-fixture.ts';

describe.skipIf(lacksPostgres)('two servers on one PostgreSQL and one S3', () => {
  it('are one to devices and people: one signs, the other serves, counts, and says where to go', async () => {
    const s3 = await startFakeS3();
    const env = { ...s3.env, INLAY_DATABASE_URL: await createPostgres() };
    const primary = await startTestServer({ env });
    const replica = await startTestServer({
      ...{ env, role: 'replica', token: primary.token, primaryUrl: primary.url },
      platform: primary.platform,
    });
    expect(replica.onlineKey).toEqual(primary.onlineKey);
    const publisher = await install(primary);
    const { url } = await publish(primary, publisher, '1.0.0');
    const body = JSON.stringify({ version: '1.0.0', percent: 100 });
    expect(await problemOf(replica.put('rollouts/stable/digits', body))).toEqual([421, 'ERR_INLAY_REFUSED']);
    await expectOk(primary.put('rollouts/stable/digits', body));

    expect(await tipOf(replica)).toEqual(await tipOf(primary));
    const [mine, other] = await Promise.all([primary.get(url), replica.get(url)]);
    expect(await other.text()).toBe(await mine.text());

    const now = primary.platform.now();
    const window = { t: now / 1000 - 600, d: 300, m: 'digits', ver: '1.0.0', n: 3, ok: 3 };
    const reports = Array.from({ length: 20 }, (_, i) => ({
      ...{ v: 1, app: 'stable', dev: `device${String(i).padStart(10, '0')}`, epoch: 'epoch000000', seq: 0 },
      ...{ sent: now, sdk: 'inlay/0.0.0', rt: 'node', cls: 0, consent: 'necessary', win: [window] },
    }));
    const half = (part: unknown[]): RequestInit => ({
      method: 'POST',
      body: JSON.stringify({ reports: part }),
    });
    for (const [server, part] of [
      [primary, reports.slice(0, 12)],
      [replica, reports.slice(8)],
    ] as const) {
      const answer = await expectOk(fetch(`${server.url}/v1/reports`, half(part)));
      expect(answer).toMatchObject({ done: part.map(() => ({ seq: 0 })), refused: [] });
    }
    for (const server of [primary, replica]) {
      const fleet = (await expectOk(server.admin('fleet'))) as FleetAnswer;
      expect(fleet).toMatchObject({
        devices: 20,
        rows: [{ model: 'digits', version: '1.0.0', devices: 20 }],
      });
    }

    // A key that one ends holds nowhere.
    const made = (await expectOk(
      replica.admin('tokens', { method: 'POST', body: JSON.stringify({ name: 'ci', role: 'viewer' }) }),
    )) as { token: string; record: { id: string } };
    const ask = async (server: typeof primary): Promise<number> => {
      const headers = { Authorization: `Bearer ${made.token}` };
      return (await fetch(`${server.url}/v1/admin/me`, { headers })).status;
    };
    expect(await ask(primary)).toBe(200);
    await expectOk(primary.admin(`tokens/${made.record.id}`, { method: 'DELETE' }));
    expect(await ask(replica)).toBe(401);
    expect([...primary.errors, ...replica.errors]).toEqual([]);
  });
});
