import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished } from 'vitest';
import { createAdminClient } from '../../src/cli/admin-client.ts';
import { openKeyDirectory } from '../../src/cli/key-directory.ts';
import {
  installDrafts,
  proposeRoot,
  readAndKeep,
  type RotationParts,
} from '../../src/publish/root-rotate.ts';
import type { ServerStatus } from '../../src/server/index.ts';
import { hand, startWithKeys, type Person } from './cli-keys-fixture.ts';
import { expectOk, startTestServer, verify, type TestServer } from './server-fixture.ts';

const main = fileURLToPath(new URL('../../build/cli/main.js', import.meta.url));

/** What happens to a request besides being passed on. */
interface Way {
  before?(line: string): Promise<unknown> | undefined;
  after?(line: string): Promise<unknown> | undefined;
}

/** Stands before a server and passes requests on. @returns its URL. */
async function standBefore(server: TestServer, way: Way): Promise<string> {
  const proxy = createServer((request, response) => {
    const pass = async (): Promise<void> => {
      const { method = '', url = '' } = request;
      const parts: Buffer[] = [];
      for await (const part of request) parts.push(part as Buffer);
      await way.before?.(`${method} ${url}`);
      const answer = await fetch(`${server.url}${url}`, {
        method,
        headers: { Authorization: request.headers.authorization ?? '' },
        ...(method === 'PUT' && { body: Buffer.concat(parts) }),
      });
      const body = Buffer.from(await answer.arrayBuffer());
      await way.after?.(`${method} ${url}`);
      response
        .writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? '' })
        .end(body);
    };
    pass().catch(() => response.destroy());
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  onTestFinished(() => {
    proxy.closeAllConnections();
    proxy.close();
  });
  return `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
}

/** Runs the built binary until a request comes to where the way stops, and kills it there. */
async function killAt(
  person: Person,
  server: TestServer,
  at: string,
  args: readonly string[],
): Promise<void> {
  const [side, line = ''] = at.split(': ');
  let reach: () => void = () => undefined;
  const reached = new Promise<void>((done) => {
    reach = done;
  });
  const stop = (request: string): Promise<unknown> | undefined => {
    if (!request.startsWith(line)) return undefined;
    reach();
    return new Promise(() => undefined);
  };
  const url = await standBefore(server, side === 'before' ? { before: stop } : { after: stop });
  const child = spawn(process.execPath, [main, 'keys', ...args, '--server', url], {
    cwd: person.cwd,
    env: { ...process.env, ...person.env },
    stdio: 'ignore',
  });
  await reached;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

/** Parts of which the n-th step fails for good, before or after it took effect. */
function breakAt(
  step: number,
  parts: RotationParts,
): { readonly parts: RotationParts; readonly error: Error } {
  const error = new Error('The power is cut.');
  let count = 0;
  const cut = (): void => {
    count += 1;
    if (count >= step) throw error;
  };
  const breaking =
    <Args extends unknown[], Result>(call: (...args: Args) => Promise<Result>) =>
    async (...args: Args): Promise<Result> => {
      cut();
      const result = await call(...args);
      cut();
      return result;
    };
  const { server, keys } = parts;
  return {
    error,
    parts: {
      ...parts,
      server: { ...server, putRoot: breaking(server.putRoot), putTargets: breaking(server.putTargets) },
      keys: {
        ...keys,
        write: breaking(keys.write),
        remove: breaking(keys.remove),
        retire: breaking(keys.retire),
      },
    },
  };
}

const versionsOf = async (server: TestServer): Promise<[number, number]> => {
  const { root, targets } = (await expectOk(server.admin('status'))) as ServerStatus;
  return [root, targets];
};

describe('a rotation that is killed', () => {
  it.each([
    ['before: PUT /v1/admin/targets', [2, 2]],
    ['after: PUT /v1/admin/targets', [2, 2]],
    ['before: PUT /v1/admin/root', [2, 2]],
    ['after: PUT /v1/admin/root', [2, 2]],
  ])('is completed by the same command, killed %s', async (at, versions) => {
    const { server, alice } = await startWithKeys();
    const args = ['rotate', '--add-root', '2', '--targets'];
    await killAt(alice, server, at, args);
    const completed = await alice.ok(...args);
    expect(completed).toContain('This completes the change');
    expect(await versionsOf(server)).toEqual(versions);
    const { roles } = await alice.root();
    expect(roles.root.keyids).toHaveLength(3);
    await verify(server);
    const files = await alice.files();
    expect(files.filter((name) => name.includes('draft'))).toEqual([]);
    expect(files.filter((name) => name.endsWith('.key.json'))).toHaveLength(4);
    expect(await readdir(join(alice.keys, 'retired'))).toHaveLength(1);
    // Nothing is left to do, and the new keys work.
    await alice.ok('renew');
    await verify(server);
  });

  it('is completed whichever step it broke off at', async () => {
    for (let failAt = 1, isWhole = false; !isWhole; failAt += 1) {
      const { server, alice } = await startWithKeys();
      const { platform, url, token } = server;
      const client = createAdminClient({ server: url, token, platform });
      const keys = openKeyDirectory(alice.keys, platform);
      const addRoot = [await keys.createKey('root', undefined), await keys.createKey('root', undefined)];
      const addTargets = [await keys.createKey('targets', undefined)];
      const rotate = async (parts: RotationParts): Promise<void> => {
        const current = await readAndKeep(parts);
        if (current.root.version > 1) return;
        const isBegun = (await parts.keys.drafts()).length > 0;
        const remove = current.root.roles.targets.keyids;
        if (!isBegun) await proposeRoot(parts, { addRoot, addTargets, remove }, current);
        await installDrafts(parts);
      };
      const { parts, error } = breakAt(failAt, { server: client, keys, platform });
      isWhole = await rotate(parts).then(
        () => true,
        (reason: unknown) => {
          expect(reason).toBe(error);
          return false;
        },
      );
      await verify(server);
      await rotate({ server: client, keys, platform });
      await installDrafts({ server: client, keys, platform });
      const { targets } = await verify(server);
      expect([failAt, (await alice.root()).version, targets.version]).toEqual([failAt, 2, 2]);
      const files = await alice.files();
      expect(files.filter((name) => name.includes('draft') || name.endsWith('.part'))).toEqual([]);
      expect(files.filter((name) => name.endsWith('.key.json'))).toHaveLength(4);
      if (isWhole) expect(failAt).toBeGreaterThan(15);
      await server.close();
    }
    // One server for each of some twenty steps.
  }, 180_000);

  it('does not make keys twice when it was killed before it wrote down what for', async () => {
    const { alice, server } = await startWithKeys();
    await alice.ok('export', '--new', '--out', 'one.json');
    await alice.ok('rotate', '--add-root', '1');
    expect((await alice.files()).filter((name) => /^root.*\.key\.json$/.test(name))).toHaveLength(2);
    await verify(server);
  });
});

describe('a rotation that somebody overtakes', () => {
  it('is refused at the last moment, and repeated from the new root', async () => {
    const { server, alice, newPerson } = await startWithKeys();
    const bob = await newPerson();
    for (const name of await alice.files()) await hand(join(alice.keys, name), bob, name);
    let isFirst = true;
    const url = await standBefore(server, {
      before: (line) => {
        if (!isFirst || line !== 'PUT /v1/admin/root') return undefined;
        isFirst = false;
        return bob.ok('rotate', '--add-root', '1', '--threshold', '1');
      },
    });
    const { code, err } = await alice.run('rotate', '--threshold', '1', '--server', url);
    expect(code).toBe(1);
    expect(err).toMatch(/Somebody else installed root 2 meanwhile.*\(ERR_INLAY_CONFLICT\)$/);
    await alice.ok('rotate', '--add-root', '1');
    expect(await versionsOf(server)).toEqual([3, 1]);
    await verify(server);
  });

  it('signs targets anew upon a release that came in between', async () => {
    const { server, alice, newPerson } = await startWithKeys();
    const bob = await newPerson();
    for (const name of await alice.files()) await hand(join(alice.keys, name), bob, name);
    let isFirst = true;
    const url = await standBefore(server, {
      before: (line) => {
        if (!isFirst || line !== 'PUT /v1/admin/targets') return undefined;
        isFirst = false;
        return bob.ok('renew', '--targets-only');
      },
    });
    await alice.ok('rotate', '--targets', '--server', url);
    expect(await versionsOf(server)).toEqual([2, 3]);
    await verify(server);
  });

  it('leaves devices with targets that their root accepts at every step', async () => {
    const { server, alice } = await startWithKeys();
    const seen: string[] = [];
    const url = await standBefore(server, {
      after: async (line) => {
        if (!line.startsWith('PUT')) return;
        seen.push(line);
        await verify(server);
      },
    });
    await alice.ok('rotate', '--targets', '--add-root', '2', '--server', url);
    await alice.ok('renew', '--server', url);
    expect(seen).toHaveLength(4);
  });
});

describe('a server that lost its key', () => {
  it.each([
    ['is trusted again by one command', 0],
    ['is trusted again also once its signatures are due for renewal', 7],
  ])('%s', async (_what, hours) => {
    const { server, alice } = await startWithKeys();
    const [before] = (await alice.root()).roles.timestamp.keyids;
    await server.close();
    await rm(join(server.dataDir, 'online-key.json'));
    const { dataDir, platform, token } = server;
    platform.advanceHours(hours);
    const restarted = await startTestServer({ dataDir, platform, token });
    expect(restarted.onlineKey.keyid).not.toBe(before);
    alice.env['INLAY_SERVER'] = restarted.url;
    await alice.ok('rotate', '--online');
    const { roles, keys } = await alice.root();
    expect(roles.timestamp.keyids).toEqual([restarted.onlineKey.keyid]);
    expect(keys[before ?? '']).toBeUndefined();
    const { targets } = await verify(restarted);
    expect(targets.delegations?.roles[0]?.keyids).toEqual([restarted.onlineKey.keyid]);
    await alice.ok('renew');
    await verify(restarted);
  });
});
