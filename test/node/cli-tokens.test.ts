import { describe, expect, it } from 'vitest';
import { openSqlite } from '../../src/server/db/sqlite.ts';
import type { TokenRecord } from '../../src/server/tokens.ts';
import { runCommand } from '../../src/cli/program.ts';
import { startTestServer, type TestServer } from './server-fixture.ts';
import { join } from 'node:path';

interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function inlay(server: TestServer, args: readonly string[], token = server.token): Promise<Result> {
  const out: string[] = [];
  const err: string[] = [];
  const code = await runCommand(args, {
    print: (text) => out.push(text),
    printError: (text) => err.push(text),
    env: { INLAY_SERVER: server.url, INLAY_TOKEN: token },
    cwd: server.dataDir,
    interrupted: () => new Promise(() => undefined),
  });
  return { code, out: out.join('\n'), err: err.join('\n') };
}

async function created(
  server: TestServer,
  ...args: readonly string[]
): Promise<TokenRecord & { token: string }> {
  const { out } = await inlay(server, ['tokens', 'create', '--name', 'ci', '--json', ...args]);
  return JSON.parse(out) as TokenRecord & { token: string };
}

describe('inlay tokens', () => {
  it('makes a key that does what its role says, shows it once, and lists it', async () => {
    const server = await startTestServer();
    const made = await inlay(server, [
      ...['tokens', 'create', '--name', 'ci', '--role', 'publisher'],
      ...['--model', 'digits', '--model', 'faces', '--channel', 'beta', '--expires', '90d'],
    ]);
    expect(made.code).toBe(0);
    expect(made.out).toContain(
      '(ci): publisher for digits, faces in channel beta, until 2026-05-30 12:00 UTC',
    );
    const token = /inlay_[\w-]{43}/.exec(made.out)?.[0] ?? '';
    expect((await inlay(server, ['status'], token)).code).toBe(0);
    const refused = await inlay(server, ['tokens', 'list'], token);
    expect(refused).toMatchObject({ code: 1, out: '' });
    expect(refused.err).toMatch(/needs the role admin, and the key has publisher.*ERR_INLAY_FORBIDDEN/s);
    const { out } = await inlay(server, ['tokens', 'list']);
    expect(out).toMatch(/^id +name +role +for +state +last used \(UTC\) +expires/);
    expect(out).toMatch(
      /ci +publisher +digits, faces in channel beta +valid +2026-03-01 12:00 +2026-05-30 12:00/,
    );
    expect(out).not.toContain(token.slice(6));
  });

  it('ends a key, and replaces one without a gap', async () => {
    const server = await startTestServer();
    const first = await created(server, '--role', 'viewer');
    const rotated = await inlay(server, ['tokens', 'rotate', first.id, '--grace', '1h', '--json']);
    const second = JSON.parse(rotated.out) as { token: string };
    expect((await inlay(server, ['status'], first.token)).code).toBe(0);
    server.platform.advanceHours(2);
    expect((await inlay(server, ['status'], first.token)).err).toContain(`The key ${first.id} is expired`);
    expect((await inlay(server, ['status'], second.token)).code).toBe(0);
    const third = await created(server, '--role', 'device');
    const ended = await inlay(server, ['tokens', 'revoke', third.id]);
    expect(ended).toEqual({ code: 0, out: `The key ${third.id} (ci) does not hold any more.`, err: '' });
  });

  it.each([
    [['create', '--name', 'ci', '--role', 'root'], 'Allowed choices are admin, publisher, viewer, device.'],
    [['create', '--role', 'viewer'], '--name'],
    [['create', '--name', 'ci', '--role', 'viewer', '--expires', 'soon'], 'such as 6h'],
    [['revoke', 'xyz'], 'It is 8 hex digits'],
  ])('ends with 2 for %j', async (args, words) => {
    const { code, err } = await inlay(await startTestServer(), ['tokens', ...args]);
    expect(code).toBe(2);
    expect(err).toContain(words);
  });

  it('says what there is not', async () => {
    const { code, err } = await inlay(await startTestServer(), ['tokens', 'revoke', '00000000']);
    expect(code).toBe(1);
    expect(err).toBe('error: There is no key 00000000; see `inlay tokens list`. (ERR_INLAY_NOT_FOUND)');
  });
});

describe('inlay audit', () => {
  it('shows who changed what, the newest first', async () => {
    const server = await startTestServer();
    const { id } = await created(server, '--role', 'viewer');
    const { out, err } = await inlay(server, ['audit', '--last', '1']);
    expect(out).toMatch(/^# +at \(UTC\) +by +action +what/);
    expect(out).toMatch(
      new RegExp(`\\n2 +2026-03-01 12:00:00 +[0-9a-f]{8} +token +id=${id} name=ci role=viewer`),
    );
    expect(out.split('\n').filter((line) => line.trim() !== '')).toHaveLength(2);
    expect(err).toBe('');
  });

  it('tells whether the log is as it was written, and where it is not', async () => {
    const server = await startTestServer();
    for (let i = 0; i < 3; i += 1) await created(server, '--role', 'viewer');
    const good = await inlay(server, ['audit', 'verify']);
    expect(good.code).toBe(0);
    expect(good.out).toMatch(
      /^All 4 records are as they were written\.\nKeep this elsewhere.*\n {2}4 [0-9a-f]{64}$/,
    );
    const db = await openSqlite(join(server.dataDir, 'inlay.db'));
    await db.updateTable('audit').set({ actor: 'nobody' }).where('seq', '=', 3).execute();
    await db.destroy();
    const bad = await inlay(server, ['audit', 'verify']);
    expect(bad.code).toBe(1);
    expect(bad.err).toContain('Record 3 of the audit log is missing or not as it was written');
    expect((await inlay(server, ['audit'])).err).toContain('see `inlay audit verify`');
  });
});
