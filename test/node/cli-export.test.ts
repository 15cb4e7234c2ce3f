import { once } from 'node:events';
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, normalize } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { toUtf8 } from '../../src/core/bytes.ts';
import { targetUrl } from '../../src/update/download-file.ts';
import { createTrustedMetadata } from '../../src/trust/client.ts';
import { readManifest } from '../../src/update/manifest.ts';
import type { ModelTarget, TargetFile, Targets } from '../../src/trust/metadata.ts';
import { startUser, type User } from './cli-user.ts';
import { scale } from './publish-fixture.ts';
import { sha256, type Tip } from './server-fixture.ts';

vi.mock('../../src/cli/publish-backend.ts', () => import('./publish-fixture.ts'));

/** A host that knows files and nothing else. */
async function serveFolder(folder: string): Promise<(path: string) => Promise<Uint8Array>> {
  const host = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://host');
    readFile(join(folder, normalize(pathname))).then(
      (bytes) => response.writeHead(200).end(bytes),
      () => response.writeHead(404).end(),
    );
  }).listen(0, '127.0.0.1');
  await once(host, 'listening');
  onTestFinished(() => void host.close());
  const { port } = host.address() as AddressInfo;
  return async (path) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`);
    if (!response.ok) throw new Error(`${path} answers ${response.status}.`);
    return new Uint8Array(await response.arrayBuffer());
  };
}

/** Updates from a host as a device does. @returns the targets, and the target path that the plan names. */
async function update(
  user: User,
  get: (path: string) => Promise<Uint8Array>,
): Promise<{ targets: Targets; chosen: string }> {
  const { platform } = user.server;
  const root = new Uint8Array(await readFile(user.path('inlay-keys/root.json')));
  const trusted = await createTrustedMetadata({ platform, root });
  const tip = JSON.parse(new TextDecoder().decode(await get('/v1/tip?root=1'))) as Tip;
  for (const text of tip.roots.slice(1)) await trusted.updateRoot(toUtf8(text));
  await trusted.updateTimestamp(await get('/v1/metadata/timestamp.json'));
  const snapshotVersion = trusted.timestamp?.meta['snapshot.json'].version;
  await trusted.updateSnapshot(await get(`/v1/metadata/${snapshotVersion}.snapshot.json`));
  const meta = trusted.snapshot?.meta ?? {};
  await trusted.updateTargets(await get(`/v1/metadata/${meta['targets.json']?.version}.targets.json`));
  await trusted.updateRollout(await get(`/v1/metadata/${meta['rollout.json']?.version}.rollout.json`));
  trusted.assertCurrent();
  const path = 'rollout/stable.json';
  const { hashes, custom } = trusted.rollout?.targets[path] as TargetFile;
  await get(targetUrl('', { path, sha256: hashes['sha256'] ?? '' }));
  const [plan] = custom?.['plans'] as { cand: { path: string } }[];
  return { targets: trusted.targets as Targets, chosen: plan?.cand.path ?? '' };
}

async function publish(user: User, factor: number): Promise<void> {
  await user.write('digits.onnx', scale(factor, new Float32Array(500)));
  const version = `1.${factor}.0`;
  await user.ok('publish', 'digits.onnx', '--name', 'digits', '--version', version);
  await user.ok('rollout', 'set', 'digits', version, '--percent', '100');
}

describe('inlay export', () => {
  it('writes what a static host needs to serve devices', async () => {
    const user = await startUser();
    await publish(user, 1);
    await user.ok('export', 'site');
    const get = await serveFolder(user.path('site'));
    const { targets, chosen } = await update(user, get);
    expect(chosen).toBe('models/digits/1/digits.onnx');
    for (const [path, { length, hashes }] of Object.entries(targets.targets)) {
      const bytes = await get(targetUrl('', { path, sha256: hashes['sha256'] ?? '' }));
      expect([bytes.length, sha256(bytes)]).toEqual([length, hashes['sha256']]);
    }
    const { manifest } = targets.targets[chosen]?.custom as unknown as ModelTarget;
    if (!manifest) throw new Error('There is no manifest.');
    expect(readManifest(await get(targetUrl('', manifest))).files[0].ways).toHaveLength(1);
    expect(await get('/v1/metadata/1.root.json')).toEqual(
      new Uint8Array(await readFile(user.path('inlay-keys/root.json'))),
    );
  });

  it('writes only what changed the next time, and leaves nothing half written', async () => {
    const user = await startUser();
    await publish(user, 1);
    const first = await user.json<{ files: number; written: number }>('export', 'site');
    expect(first.written).toBe(first.files);
    expect(await user.json('export', 'site')).toMatchObject({ files: first.files, written: 0 });
    const before = await stat(user.path('site/v1/metadata/1.root.json'));
    await publish(user, 2);
    const next = await user.json<{ files: number; written: number }>('export', 'site');
    expect(next.written).toBeLessThan(next.files);
    expect((await stat(user.path('site/v1/metadata/1.root.json'))).mtimeMs).toBe(before.mtimeMs);
    expect((await update(user, await serveFolder(user.path('site')))).chosen).toContain('/2/');
    const names = await readdir(user.path('site'), { recursive: true });
    expect(names.filter((name) => name.endsWith('.part'))).toEqual([]);
  });

  it('mends files that were damaged or lost', async () => {
    const user = await startUser();
    await publish(user, 1);
    await user.ok('export', 'site');
    const names = await readdir(user.path('site/v1/targets/models/digits/1'));
    const [one = '', two = ''] = names.filter((name) => /(onnx|json)$/.test(name));
    const folder = user.path('site/v1/targets/models/digits/1');
    const whole = await readFile(join(folder, one));
    await writeFile(join(folder, one), Buffer.alloc(whole.length));
    await rm(join(folder, two));
    expect(await user.json('export', 'site')).toMatchObject({ written: 2 });
    expect(await readFile(join(folder, one))).toEqual(whole);
  });

  it('refuses a file in place of a folder', async () => {
    const user = await startUser();
    await publish(user, 1);
    await user.write('site', 'text');
    for (const dir of ['site', 'site/below']) {
      const { code, err } = await user.run('export', dir);
      expect([code, err]).toEqual([1, `error: ${dir} is not a folder; name one, or a path that is free.`]);
    }
    expect(await readFile(user.path('site'), 'utf8')).toBe('text');
  });

  it('exports nothing that does not verify', async () => {
    const [user, stranger] = [await startUser(), await startUser()];
    await publish(user, 1);
    const { code, err } = await user.run('export', 'site', '--root', stranger.path('inlay-keys/root.json'));
    expect([code, err]).toEqual([1, expect.stringContaining('ERR_INLAY_SIGNATURE')]);
    await expect(stat(user.path('site'))).rejects.toThrow('ENOENT');
    expect((await user.run('export', 'site', '--root', 'none.json')).err).toContain(
      'none.json cannot be read',
    );
  });
});
