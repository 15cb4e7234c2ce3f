import { once } from 'node:events';
import { spawn } from 'node:child_process';
import { chmod, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { nodePlatform } from '../../src/platform-node.ts';
import { expiresIn } from '../../src/publish/release.ts';
import { signMetadata } from '../../src/publish/sign.ts';
import type { RunningServer, StartServerOptions } from '../../src/server/index.ts';
import {
  expectOk,
  install,
  publish,
  reach,
  rootOf,
  temporaryDirectory,
  testPlatform,
  tipOf,
  verify,
  type ReachableServer,
} from './server-fixture.ts';

const { startServer } = (await import(
  new URL('../../build/server/index.js', import.meta.url).href
)) as typeof import('../../src/server/index.ts');
const script = fileURLToPath(new URL('../../build/server/signer/main.js', import.meta.url));

interface ProcessServer extends ReachableServer {
  readonly running: RunningServer;
  readonly errors: unknown[];
  readonly dataDir: string;
}

async function start(options: StartServerOptions & { token?: string } = {}): Promise<ProcessServer> {
  const dataDir = options.dataDir ?? (await temporaryDirectory());
  const errors: unknown[] = [];
  const running = await startServer({
    port: 0,
    dataDir,
    env: {},
    ...options,
    onError: (error) => errors.push(error),
  });
  onTestFinished(() => running.close());
  const token = running.token ?? options.token ?? '';
  return { ...reach({ ...running, token, platform: nodePlatform() }), running, errors, dataDir };
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(10);
}

const set = (server: ReachableServer, percent: number): Promise<Response> =>
  server.put('rollouts/stable/digits', JSON.stringify({ version: '1.0.0', percent }));

describe('the signer process', () => {
  it('alone opens the key, and signs what devices verify', async () => {
    const server = await start();
    expect(server.running.signerPid).toBeGreaterThan(0);
    expect(server.running.signerPid).not.toBe(process.pid);
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    await expectOk(set(server, 10));
    expect((await verify(server)).plans).toMatchObject([{ bp: 1000 }]);
    for (const file of ['online-key.json', 'signer.json']) {
      expect((await stat(join(server.dataDir, file))).mode & 0o777).toBe(0o600);
    }
    const { running } = server;
    const pid = running.signerPid ?? 0;
    await running.close();
    expect(() => process.kill(pid, 0)).toThrow();
  });

  it('is started again when it dies, and the server serves what is signed meanwhile', async () => {
    const server = await start();
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    await expectOk(set(server, 10));
    const before = await tipOf(server);
    for (const percent of [20, 30]) {
      const pid = server.running.signerPid ?? 0;
      process.kill(pid, 'SIGKILL');
      expect(await tipOf(server)).toBeDefined();
      await until(() => server.running.signerPid !== undefined && server.running.signerPid !== pid);
      await expectOk(set(server, percent));
    }
    expect((await verify(server)).plans).toMatchObject([{ bp: 3000 }]);
    expect((await tipOf(server)).timestamp).not.toBe(before.timestamp);
    expect(server.errors.length).toBeGreaterThanOrEqual(2);
    expect(server.errors.map(String).join()).toContain('The signer process ended');
  });

  it('is reported in one line when it dies', async () => {
    const log = vi.spyOn(console, 'error').mockImplementation(() => undefined);
    onTestFinished(() => {
      log.mockRestore();
    });
    const running = await startServer({ port: 0, dataDir: await temporaryDirectory(), env: {} });
    onTestFinished(() => running.close());
    const pid = running.signerPid ?? 0;
    process.kill(pid, 'SIGKILL');
    await until(() => running.signerPid !== undefined && running.signerPid !== pid);
    expect(log.mock.calls).toEqual([['The signer process ended; it is started again. (ERR_INLAY_SERVER)']]);
  });

  it('loses nothing that was acknowledged when it dies at any time', { timeout: 120_000 }, async () => {
    const server = await start();
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    let acknowledged = 0;
    for (let round = 1; round <= 6; round += 1) {
      await until(() => server.running.signerPid !== undefined);
      const pid = server.running.signerPid ?? 0;
      const asked = round * 100;
      const [answer] = await Promise.all([
        set(server, asked / 100),
        sleep(round * 4).then(() => process.kill(pid, 'SIGKILL')),
      ]);
      if (answer.ok) acknowledged = asked;
      await until(() => server.running.signerPid !== pid);
      const [plan] = (await verify(server)).plans;
      expect(plan?.bp ?? 0).toBeGreaterThanOrEqual(acknowledged);
    }
    await until(() => server.running.signerPid !== undefined);
    await expectOk(set(server, 50));
    expect((await verify(server)).plans).toMatchObject([{ bp: 5000 }]);
  });

  it('serves the tip while the process hangs', async () => {
    const platform = testPlatform(Date.now());
    const server = await start({ platform });
    await install(server);
    const before = await tipOf(server);
    platform.advanceHours(10);
    const pid = server.running.signerPid ?? 0;
    process.kill(pid, 'SIGSTOP');
    onTestFinished(() => {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It is gone already.
      }
    });
    for (let i = 0; i < 3; i += 1) expect(await tipOf(server)).toEqual(before);
    process.kill(pid, 'SIGCONT');
    let after = await tipOf(server);
    while (after.timestamp === before.timestamp) after = await tipOf(server);
    await verify(server);
  });

  it('signs nothing by a key that was exchanged behind its back', async () => {
    const server = await start();
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    await rm(join(server.dataDir, 'online-key.json'));
    process.kill(server.running.signerPid ?? 0, 'SIGKILL');
    await until(() => server.errors.some((error) => String(error).includes('was exchanged')));
    expect((await set(server, 10)).status).toBe(500);
    expect((await server.get('/v1/tip')).status).toBe(200);
  });

  it('signs anew what is due', { timeout: 60_000 }, async () => {
    const first = await start();
    await publish(first, await install(first), '1.0.0');
    await expectOk(set(first, 10));
    const before = await tipOf(first);
    await first.running.close();
    // Five of the seven days of snapshot and rollout are left for a server that is two days ahead.
    const platform = { ...nodePlatform(), now: () => Date.now() + 2 * 86_400_000 };
    const ahead = { dataDir: first.dataDir, token: first.token, platform, onWarning: () => undefined };
    const later = await start(ahead);
    const after = await tipOf(later);
    expect(later.errors).toEqual([]);
    for (const role of ['rollout', 'snapshot', 'timestamp'] as const)
      expect(after[role]).not.toBe(before[role]);
    expect((await verify(later)).plans).toMatchObject([{ bp: 1000 }]);
  });

  it('signs everything by a new key once the offline keys name it', { timeout: 60_000 }, async () => {
    const first = await start();
    const publisher = await install(first);
    await publish(first, publisher, '1.0.0');
    await first.running.close();
    await rm(join(first.dataDir, 'online-key.json'));
    const again = await start({ dataDir: first.dataDir, token: first.token });
    const { keyid, key } = again.onlineKey;
    const expires = expiresIn(again.platform.now(), 100);
    const root = rootOf(publisher, again.onlineKey, expires, 2);
    await expectOk(again.put('root', await signMetadata(root, [publisher.root])));
    const roles = [
      { name: 'rollout', keyids: [keyid], threshold: 1, paths: ['rollout/*'], terminating: true },
    ];
    const { targets } = publisher;
    const next = { ...targets, version: targets.version + 1, delegations: { keys: { [keyid]: key }, roles } };
    await expectOk(again.put('targets', await signMetadata(next, [publisher.signer])));
    await expectOk(set(again, 10));
    expect((await verify(again)).plans).toMatchObject([{ bp: 1000 }]);
  });

  it('says what is wrong with its key at the start', async () => {
    const server = await start();
    await server.running.close();
    await writeFile(join(server.dataDir, 'online-key.json'), '{"keytype":"ed');
    await expect(start({ dataDir: server.dataDir })).rejects.toThrow(/online-key\.json is damaged/);
    await rm(join(server.dataDir, 'online-key.json'));
    await writeFile(join(server.dataDir, 'signer.json'), 'broken');
    await expect(start({ dataDir: server.dataDir })).rejects.toThrow(/What the signer wrote down is damaged/);
  });

  it('opens a sealed key by the passphrase of its environment', { timeout: 60_000 }, async () => {
    const env = { INLAY_ONLINE_PASSPHRASE: 'correct horse' };
    const server = await start({ env });
    const publisher = await install(server);
    await publish(server, publisher, '1.0.0');
    await server.running.close();
    expect(await readFile(join(server.dataDir, 'online-key.json'), 'utf8')).not.toContain('private');
    await expect(start({ dataDir: server.dataDir, env: {} })).rejects.toMatchObject({
      code: 'ERR_INLAY_UNAUTHORIZED',
    });
    const again = await start({ dataDir: server.dataDir, env, token: server.token });
    await expectOk(set(again, 10));
  });

  it('ends with the server, however that goes', async () => {
    const dataDir = await temporaryDirectory();
    const child = spawn(process.execPath, [script, dataDir], { stdio: ['pipe', 'pipe', 'inherit'] });
    onTestFinished(() => {
      child.kill('SIGKILL');
    });
    const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
    expect(JSON.parse(line)).toMatchObject({ id: 0, result: { versions: { timestamp: 0 } } });
    child.kill('SIGTERM');
    child.stdin.write('not json\n{"id":7,"verb":"sign","body":{}}\n');
    const answers = createInterface(child.stdout);
    const [first] = (await once(answers, 'line')) as [string];
    expect(JSON.parse(first)).toMatchObject({ id: 0, error: { name: 'SyntaxError' } });
    const exit = once(child, 'exit');
    child.stdin.end();
    expect(await exit).toEqual([0, null]);
  });

  it('is not needed where no process may be', async () => {
    const server = await start({ signer: 'inline' });
    expect(server.running.signerPid).toBeUndefined();
    await install(server);
    await chmod(server.dataDir, 0o700);
    await server.running.close();
    const other = await start({ dataDir: server.dataDir, token: server.token });
    expect(other.onlineKey).toEqual(server.onlineKey);
    await verify(other);
  });
});
