import { readFile } from 'node:fs/promises';
import { describe, expect, it, vi } from 'vitest';
import type { EmbeddedDescription } from '../../src/cli/embed.ts';
import { readManifest } from '../../src/update/manifest.ts';
import { toUtf8 } from '../../src/core/bytes.ts';
import { startUser, type User } from './cli-user.ts';
import { scale } from './publish-fixture.ts';
import { sha256 } from './server-fixture.ts';

vi.mock('../../src/cli/publish-backend.ts', () => import('./publish-fixture.ts'));

async function withReleases(): Promise<User> {
  const user = await startUser();
  await user.write('small.onnx', scale(1.01));
  for (const factor of [1, 2, 3]) {
    await user.write('digits.onnx', scale(factor));
    const variants = factor === 1 ? ['--variant', 'int8=small.onnx'] : [];
    await user.ok('publish', 'digits.onnx', '--name', 'my-digits', '--version', `1.${factor}.0`, ...variants);
  }
  return user;
}

async function embedded(user: User, folder: string): Promise<EmbeddedDescription & { sha256: string }> {
  const release = JSON.parse(
    await readFile(user.path(`${folder}/my-digits.inlay.json`), 'utf8'),
  ) as EmbeddedDescription;
  return { ...release, sha256: sha256(await readFile(user.path(`${folder}/${release.file.name}`))) };
}

describe('inlay embed', () => {
  it('writes a release and what an app needs to know of it', async () => {
    const user = await withReleases();
    const out = await user.ok('embed', 'my-digits', '--version', '1.2.0', '--out', 'app/models');
    const { release, file, variant, manifest, root, sha256: found } = await embedded(user, 'app/models');
    expect(release).toEqual({
      path: 'models/my-digits/2/digits.onnx',
      sha256: sha256(scale(2)),
      length: scale(2).length,
      seq: 2,
      version: '1.2.0',
    });
    expect([file, variant, found]).toEqual([
      { name: 'digits.onnx', sha256: release.sha256, length: release.length },
      'fp32',
      release.sha256,
    ]);
    expect(readManifest(toUtf8(JSON.stringify(manifest))).files[0].path).toBe(release.path);
    expect(root).toEqual(JSON.parse(await readFile(user.path('inlay-keys/root.json'), 'utf8')));
    expect(out).toContain("import myDigits from './my-digits.inlay.json' with { type: 'json' };");
    expect(out).toContain("const file = new URL('./digits.onnx', import.meta.url);");
    expect(out).toContain("inlay.load({ name: 'my-digits', embedded: { file, release: myDigits } });");
  });

  it('takes what all devices run, or else the newest release', async () => {
    const user = await withReleases();
    const version = async (): Promise<string> => {
      await user.ok('embed', 'my-digits', '--out', 'app');
      return (await embedded(user, 'app')).release.version;
    };
    expect(await version()).toBe('1.3.0');
    await user.ok('rollout', 'set', 'my-digits', '1.1.0', '--percent', '100');
    expect(await version()).toBe('1.1.0');
    await user.ok('rollout', 'set', 'my-digits', '1.2.0', '--percent', '10');
    expect(await version()).toBe('1.1.0');
  });

  it('takes another precision where that is asked for', async () => {
    const user = await withReleases();
    await user.ok('embed', 'my-digits', '--version', '1.1.0', '--variant', 'int8', '--out', 'app');
    const { file, variant, release, sha256: found } = await embedded(user, 'app');
    expect([file.name, file.sha256, variant, found]).toEqual([
      'int8-small.onnx',
      found,
      'int8',
      sha256(scale(1.01)),
    ]);
    expect(release.path).toBe('models/my-digits/1/digits.onnx');
    const { code, err } = await user.run('embed', 'my-digits', '--variant', 'int4', '--version', '1.1.0');
    expect([code, err]).toEqual([1, expect.stringContaining('it has fp32, int8')]);
  });

  it('refuses what is withdrawn or not there', async () => {
    const user = await withReleases();
    await user.ok('revoke', 'my-digits', '1.3.0');
    const refused = await user.run('embed', 'my-digits', '--version', '1.3.0');
    expect([refused.code, refused.err]).toEqual([1, expect.stringContaining('(ERR_INLAY_WITHDRAWN)')]);
    expect(refused.err).toContain('embed 1.2.0');
    await user.ok('embed', 'my-digits', '--out', 'app');
    expect((await embedded(user, 'app')).release.version).toBe('1.2.0');
    await user.ok('floor', 'my-digits', '1.2.0');
    expect((await user.run('embed', 'my-digits', '--version', '1.1.0')).err).toContain('ERR_INLAY_WITHDRAWN');
    for (const args of [['faces'], ['my-digits', '--version', '9']])
      expect((await user.run('embed', ...args)).err).toContain('(ERR_INLAY_NOT_FOUND)');
  });
});
