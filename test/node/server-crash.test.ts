import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import Database from 'libsql';
import { describe, expect, it, onTestFinished } from 'vitest';
import { nodePlatform } from '../../src/platform-node.ts';
import type { ServerStatus } from '../../src/server/index.ts';
import {
  expectOk,
  install,
  publish,
  randomBytes,
  reach,
  sha256,
  temporaryDirectory,
  verify,
  type Publisher,
  type ReachableServer,
} from './server-fixture.ts';

const main = fileURLToPath(new URL('../../build/cli/main.js', import.meta.url));

interface ServerProcess extends ReachableServer {
  readonly child: ChildProcess;
}

async function spawnServer(dataDir: string, token = ''): Promise<ServerProcess> {
  const args = [main, 'server', '--port', '0', '--data', dataDir, '--json'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  const started = JSON.parse(line) as Pick<ServerProcess, 'url' | 'onlineKey'> & { token?: string };
  return { ...reach({ ...started, token: started.token ?? token, platform: nodePlatform() }), child };
}

async function kill({ child }: ServerProcess, signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null> {
  const exit = once(child, 'exit') as Promise<[number | null]>;
  child.kill(signal);
  return (await exit)[0];
}

/**
 * Publishes until the server is gone.
 * @param onAcknowledged told of the first version that was acknowledged.
 * @returns versions that were acknowledged.
 */
async function publishUntilGone(
  server: ReachableServer,
  publisher: Publisher,
  round: number,
  onAcknowledged: () => void,
): Promise<string[]> {
  const acknowledged: string[] = [];
  for (let i = 0; ; i += 1) {
    const version = `${round}.0.${i}`;
    try {
      await publish(server, publisher, version, randomBytes(50_000));
      acknowledged.push(version);
      if (i === 0) onAcknowledged();
      const body = JSON.stringify({ version, percent: 100 });
      await expectOk(server.put('rollouts/stable/digits', body));
    } catch (error) {
      if (error instanceof TypeError) return acknowledged;
      throw error;
    }
  }
}

describe('a server that is killed', () => {
  it('has everything that it acknowledged, and nothing by halves', { timeout: 120_000 }, async () => {
    const dataDir = await temporaryDirectory();
    let server = await spawnServer(dataDir);
    const { token } = server;
    const publisher = await install(server);
    const acknowledged: string[] = [];
    for (const [round, delayMs] of [0, 7, 20, 45, 110].entries()) {
      let killed: Promise<unknown> = Promise.resolve();
      const killLater = (): void => {
        killed = new Promise((done) => {
          setTimeout(done, delayMs);
        }).then(() => kill(server, 'SIGKILL'));
      };
      acknowledged.push(...(await publishUntilGone(server, publisher, round, killLater)));
      await killed;
      server = await spawnServer(dataDir, token);

      const { targets } = await verify(server);
      const status = (await expectOk(server.admin('status'))) as ServerStatus;
      const present = Object.values(status.models).flat();
      expect(present.map(({ version }) => version)).toEqual(expect.arrayContaining(acknowledged));
      for (const { path, sha256: hash } of present.slice(-3)) {
        const file = await server.get(`/v1/targets/${path.replace(/[^/]+$/, (name) => `${hash}.${name}`)}`);
        expect(sha256(new Uint8Array(await file.arrayBuffer()))).toBe(hash);
      }
      expect(await readdir(join(dataDir, 'blobs', 'tmp'))).toEqual([]);
      publisher.targets = targets;
    }
    expect(acknowledged.length).toBeGreaterThanOrEqual(5);
    expect(await kill(server, 'SIGTERM')).toBe(0);
    const database = new Database(join(dataDir, 'inlay.db'));
    expect(database.pragma('integrity_check')).toEqual([{ integrity_check: 'ok' }]);
    database.close();
  });

  it.each([1, 30, 60, 90, 130, 200])(
    'starts again after a death %i ms into its first start',
    async (delayMs) => {
      const dataDir = await temporaryDirectory();
      const args = [main, 'server', '--port', '0', '--data', dataDir, '--new-token', '--json'];
      const child = spawn(process.execPath, args, { stdio: 'ignore' });
      await new Promise((done) => {
        setTimeout(done, delayMs);
      });
      const exit = once(child, 'exit');
      child.kill('SIGKILL');
      await exit;
      const again = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
      onTestFinished(() => {
        again.kill('SIGKILL');
      });
      const [line] = (await once(createInterface(again.stdout), 'line')) as [string];
      const started = JSON.parse(line) as {
        url: string;
        token: string;
        onlineKey: ReachableServer['onlineKey'];
      };
      await install(reach({ ...started, platform: nodePlatform() }));
    },
  );
});
