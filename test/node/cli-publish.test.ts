import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, vi } from 'vitest';
import { targetUrl } from '../../src/update/download-file.ts';
import type { ModelTarget, Targets } from '../../src/trust/metadata.ts';
import { readGolden } from '../../src/update/golden.ts';
import { readManifest, type FileRef, type ReleaseManifest } from '../../src/update/manifest.ts';
import { startUser, type User } from './cli-user.ts';
import { failsAtRun, otherSignature, random, scale, unknownOperator } from './publish-fixture.ts';
import { sha256, verify } from './server-fixture.ts';
import { externalModel } from './worker-fixture.ts';

vi.mock('../../src/cli/publish-backend.ts', () => import('./publish-fixture.ts'));

/** Reads a file of a release as a device does. */
async function download({ server }: User, ref: FileRef): Promise<Uint8Array> {
  const response = await server.get(targetUrl('', ref));
  expect(response.status).toBe(200);
  const bytes = new Uint8Array(await response.arrayBuffer());
  expect([bytes.length, sha256(bytes)]).toEqual([ref.length, ref.sha256]);
  return bytes;
}

/** The targets, and the manifest of one release. */
async function released(
  user: User,
  path: string,
): Promise<{ targets: Targets; about: ModelTarget; manifest: ReleaseManifest }> {
  const { targets } = await verify(user.server);
  const about = targets.targets[path]?.custom as unknown as ModelTarget;
  if (!about.manifest) throw new Error('The release has no manifest.');
  return { targets, about, manifest: readManifest(await download(user, about.manifest)) };
}

const digits = ['publish', 'digits.onnx', '--name', 'digits', '--version'] as const;
const spare = (length: number): Float32Array => new Float32Array(length).fill(0.5);

describe('inlay publish', () => {
  it('publishes variants, golden inputs, a profile and what people want to know, all of it signed', async () => {
    const user = await startUser();
    await user.write('digits.onnx', scale(2, spare(1000)));
    await user.write('small.onnx', scale(2.01));
    await user.write('seen.json', '{"v":1,"inputs":{},"outputs":{}}');
    const about = ['--min-sdk', '0.2.0', '--licence', 'Apache-2.0', '--notes', 'Reads sevens.'];
    const more = ['--variant', 'int8=small.onnx', '--profile', 'seen.json', ...about];
    const out = await user.ok(...digits, '1.0.0', ...more);
    expect(out).toMatch(/^Published digits 1\.0\.0\n {2}path {4}models\/digits\/1\/digits\.onnx\n/);
    expect(out).toMatch(/\n {2}int8 {4}\d+ B \(\d+ bytes\), off by 0\.5 %\n/);
    expect(out).toMatch(/\n {2}gzip {4}\d+ B \(\d+ bytes\), compressed fp32\n/);
    expect(out).toMatch(/\nNext:\n {2}npx inlay rollout set digits 1\.0\.0 --percent 100$/);

    const { targets, about: signed, manifest } = await released(user, 'models/digits/1/digits.onnx');
    expect(signed).toMatchObject({ minSdk: '0.2.0', licence: 'Apache-2.0', notes: 'Reads sevens.' });
    expect(
      Object.keys(targets.targets)
        .map((path) => path.slice(path.lastIndexOf('/') + 1))
        .sort((a, b) => (a < b ? -1 : 1)),
    ).toEqual([
      'digits.onnx',
      'digits.onnx.gz',
      'golden.json',
      'int8-small.onnx',
      'profile.json',
      'release.json',
    ]);
    const [reference, int8] = manifest.files;
    expect([reference.variant, int8?.variant]).toEqual(['fp32', 'int8']);
    const bytes = await download(user, reference);
    expect(bytes).toEqual(new Uint8Array(await readFile(user.path('digits.onnx'))));
    const [way] = reference.ways ?? [];
    if (!way || !int8 || !manifest.golden || !manifest.profile) throw new Error('Something is missing.');
    const unzipped = new Blob([(await download(user, way)) as Uint8Array<ArrayBuffer>])
      .stream()
      .pipeThrough(new DecompressionStream('gzip'));
    expect(new Uint8Array(await new Response(unzipped).arrayBuffer())).toEqual(bytes);
    await download(user, int8);
    expect(await download(user, manifest.profile)).toEqual(
      new Uint8Array(await readFile(user.path('seen.json'))),
    );
    expect(readGolden(await download(user, manifest.golden))).toHaveLength(2);
    expect(manifest.golden.tolerance.relativeE6).toBeGreaterThanOrEqual(10_000);
  });

  it('gives the same bytes for the same release, wherever it is published', async () => {
    const shas: string[] = [];
    for (const user of [await startUser(), await startUser()]) {
      await user.write('digits.onnx', scale(2, spare(1000)));
      await user.ok(...digits, '1.0.0');
      const { targets } = await verify(user.server);
      shas.push(JSON.stringify(targets.targets));
    }
    expect(shas[0]).toBe(shas[1]);
  });

  it('changes nothing when the same content is published again, and refuses other content', async () => {
    const user = await startUser();
    await user.write('digits.onnx', scale(2));
    await user.write('small.onnx', scale(2.01));
    const first = await user.json<{ targets: number }>(...digits, '1.0.0');
    expect(await user.json(...digits, '1.0.0')).toMatchObject({ targets: first.targets, isUnchanged: true });
    const again = await user.ok(...digits, '1.0.0');
    expect(again).toContain('was published before; nothing is changed');
    expect(again).toMatch(/\nNext:\n {2}npx inlay status$/);
    for (const other of [
      ['--notes', 'Other.'],
      ['--variant', 'int8=small.onnx'],
      ['--licence', 'MIT'],
    ]) {
      const { code, err } = await user.run(...digits, '1.0.0', ...other);
      expect([code, err]).toEqual([1, expect.stringContaining('exists with other content')]);
    }
    expect((await verify(user.server)).targets.version).toBe(first.targets);
  });

  it.each([
    ['garbage', new Uint8Array(64).fill(0xab), 'ERR_INLAY_MODEL_INVALID'],
    ['an empty file', new Uint8Array(0), 'ERR_INLAY_MODEL_INVALID'],
    ['a truncated model', scale(2, spare(100)).slice(0, -30), 'ERR_INLAY_MODEL_TRUNCATED'],
    ['an unknown operator', unknownOperator, 'ERR_INLAY_MODEL_UNSUPPORTED'],
    ['a model that does not run', failsAtRun, 'ERR_INLAY_MODEL_UNSUPPORTED'],
    ['a model with weights in other files', externalModel(4, 'w.bin')[0], 'ERR_INLAY_MODEL_UNSUPPORTED'],
    ['a TensorFlow.js archive', Uint8Array.of(0x50, 0x4b, 3, 4, 0, 0), 'ERR_INLAY_MODEL_UNSUPPORTED'],
  ])('publishes nothing of %s', async (_, bytes, code) => {
    const user = await startUser();
    await user.write('digits.onnx', bytes);
    const { code: exit, err } = await user.run(...digits, '1.0.0');
    expect([exit, err]).toEqual([1, expect.stringContaining(`(${code})`)]);
    const { targets } = await verify(user.server);
    expect([targets.version, targets.targets]).toEqual([1, {}]);
  });

  it('publishes without a trial where that is asked for', async () => {
    const user = await startUser();
    await user.write('digits.onnx', failsAtRun);
    expect(await user.ok(...digits, '1.0.0', '--no-check')).toContain('Nobody has tried it out.');
    const { manifest } = await released(user, 'models/digits/1/digits.onnx');
    expect(manifest.golden).toBeUndefined();
    await user.write('digits.onnx', Uint8Array.of(0x50, 0x4b, 3, 4, 0, 0));
    await user.ok(...digits, '1.0.1', '--no-check');
  });

  it('refuses other inputs or outputs than those of the newest release, unless they are meant', async () => {
    const user = await startUser();
    await user.write('digits.onnx', scale(2));
    await user.ok(...digits, '1.0.0');
    await user.write('digits.onnx', otherSignature);
    const { code, err } = await user.run(...digits, '2.0.0');
    expect([code, err]).toEqual([
      1,
      expect.stringMatching(
        /Devices that run 1\.0\.0 would refuse this release: .*x: float32 \[batch, 2\] has become x: int64 .*, with --new-signature\. \(ERR_INLAY_MODEL_UNSUPPORTED\)$/,
      ),
    ]);
    expect((await verify(user.server)).targets.version).toBe(2);
    const out = await user.ok(...digits, '2.0.0', '--new-signature');
    expect(out).toContain('Devices that run 1.0.0 will refuse it');
    expect(out).toContain('npx inlay rollout set digits 2.0.0 --channel CHANNEL --percent 100');

    // The newest one counts, unless it is withdrawn; what is there already is not compared.
    await user.write('digits.onnx', scale(3));
    expect((await user.run(...digits, '1.1.0')).err).toContain('Devices that run 2.0.0 would refuse');
    await user.write('digits.onnx', scale(2));
    expect(await user.json(...digits, '1.0.0')).toMatchObject({ isUnchanged: true });
    await user.ok('revoke', 'digits', '2.0.0');
    await user.write('digits.onnx', scale(3));
    expect(await user.ok(...digits, '1.1.0')).toContain('npx inlay rollout set digits 1.1.0 --percent 10');
    await user.write('digits.onnx', unknownOperator);
    await user.ok(...digits, '1.2.0', '--no-check');
    await user.write('digits.onnx', scale(4));
    expect(await user.ok(...digits, '1.3.0')).toContain('not compared with those of 1.2.0');
  });

  it('tries the model out in a process of its own', async () => {
    const user = await startUser();
    await user.write('digits.onnx', scale(2));
    const main = fileURLToPath(new URL('../../build/cli/main.js', import.meta.url));
    const child = spawn(process.execPath, [main, ...digits, '1.0.0'], {
      cwd: user.cwd,
      env: { ...process.env, INLAY_SERVER: user.server.url, INLAY_TOKEN: user.server.token },
      stdio: 'ignore',
    });
    expect(await once(child, 'exit')).toEqual([0, null]);
    const { manifest } = await released(user, 'models/digits/1/digits.onnx');
    if (!manifest.golden) throw new Error('There are no golden outputs.');
    expect(readGolden(await download(user, manifest.golden))).toHaveLength(2);
  });

  it('says what the publisher should know', async () => {
    const user = await startUser();
    await user.write('digits.onnx', random);
    const out = await user.ok(...digits, '1.0.0', '--patch-from', 'auto');
    expect(out).toContain('does not give the same answer twice');
    expect(out).toContain('golden  none');
  });

  it.each([
    ['a model name', ['--name', 'Digits!'], 1],
    ['a version', ['--version', '1 0'], 1],
    ['a version', ['--version', ''], 1],
    ['a variant', ['--variant', 'int8'], 2],
    ['a tolerance', ['--tolerance', '1'], 2],
    ['a tolerance', ['--tolerance=-1,0'], 2],
    ['a lowest version of Inlay', ['--min-sdk', '2'], 2],
    ['a licence', ['--licence', 'Apache\n2'], 2],
    ['notes', ['--notes', 'x'.repeat(10_001)], 2],
    ['a time limit', ['--timeout', '0'], 2],
    ['the same variant twice', ['--variant', 'fp32=digits.onnx'], 1],
    ['a variant that is not there', ['--variant', 'int8=none.onnx'], 1],
    ['a profile that is none', ['--profile', 'digits.onnx'], 1],
    ['a profile that is not there', ['--profile', 'none.json'], 1],
    ['golden inputs in an unknown format', ['--golden', 'digits.onnx'], 1],
  ])('refuses malformed arguments: %s', async (_, args, code) => {
    const user = await startUser();
    await user.write('digits.onnx', scale(2));
    const result = await user.run('publish', 'digits.onnx', '--name', 'digits', '--version', '1', ...args);
    expect([result.code, result.err]).toEqual([code, expect.stringMatching(/^error: .+/)]);
    expect((await verify(user.server)).targets.version).toBe(1);
  });

  it('lets two publishers at once both have their release', async () => {
    const user = await startUser();
    await user.write('digits.onnx', scale(2));
    await user.write('other.onnx', scale(3));
    const results = await Promise.all([
      user.run(...digits, '1.0.0'),
      user.run('publish', 'other.onnx', '--name', 'digits', '--version', '1.1.0'),
      user.run(...digits, '1.0.0'),
    ]);
    expect(results.map(({ code, err }) => [code, err])).toEqual(results.map(() => [0, '']));
    const { targets } = await verify(user.server);
    const models = Object.entries(targets.targets).filter(([path]) => path.endsWith('.onnx'));
    expect(new Set(models.map(([, { custom }]) => custom?.['version']))).toEqual(new Set(['1.0.0', '1.1.0']));
    for (const [path] of models) await released(user, path);
  });
});

describe('inlay revoke, floor and release remove', () => {
  async function withReleases(): Promise<User> {
    const user = await startUser();
    for (const factor of [1, 2, 3]) {
      await user.write('digits.onnx', scale(factor));
      await user.ok(...digits, `1.${factor}.0`);
    }
    return user;
  }

  it('withdraw releases for good, and say what becomes of devices', async () => {
    const user = await withReleases();
    await user.ok('rollout', 'set', 'digits', '1.2.0', '--percent', '100');
    await user.ok('rollout', 'set', 'digits', '1.3.0', '--percent', '10');
    const out = await user.ok('revoke', 'digits', '1.3.0', '--reason', 'It is too loud.');
    expect(out).toContain('digits 1.3.0 is withdrawn.');
    expect(out).toMatch(/Channel stable offered 1\.3\.0.*: devices go back to 1\.2\.0; roll one out with/);
    const { targets } = await verify(user.server);
    expect(targets.custom).toEqual({ models: { digits: { revoked: [3] } } });
    expect(targets.targets['models/digits/3/digits.onnx']?.custom?.['revokedBecause']).toBe(
      'It is too loud.',
    );
    expect(await user.ok('revoke', 'digits', '1.3.0')).toContain('Nothing was to be changed.');

    await user.ok('floor', 'digits', '1.2.0');
    expect((await verify(user.server)).targets.custom).toEqual({
      models: { digits: { revoked: [3], floorSeq: 2 } },
    });
    const { code, err } = await user.run('floor', 'digits', '1.1.0');
    expect([code, err]).toEqual([1, expect.stringContaining('only rises')]);
  });

  it('list what a floor withdraws, and warn of lower versions that were published later', async () => {
    const user = await startUser();
    for (const [at, version] of ['1.0.0', '1.1.0', '0.9.0', '1.0.1'].entries()) {
      await user.write('digits.onnx', scale(at + 1));
      await user.ok(...digits, version);
    }
    expect(await user.ok('floor', 'digits', '1.1.0')).toBe(
      'Releases of digits published before 1.1.0 are withdrawn: 1.0.0.\n' +
        '  0.9.0 and 1.0.1 were published after it and are not withdrawn; revoke them.',
    );
    expect(await user.json('floor', 'digits', '1.1.0')).toMatchObject({
      isChanged: false,
      withdrawn: ['1.0.0'],
      staying: ['0.9.0', '1.0.1'],
    });
    await user.ok('revoke', 'digits', '0.9.0');
    expect(await user.ok('floor', 'digits', '1.1.0')).toContain(
      '1.0.1 was published after it and is not withdrawn; revoke it.',
    );
  });

  it('let nothing come back that was withdrawn', async () => {
    const user = await withReleases();
    await user.ok('revoke', 'digits', '1.2.0');
    const removed = await user.run('release', 'remove', 'digits', '1.2.0');
    expect([removed.code, removed.err]).toEqual([1, expect.stringContaining('1.2.0 of digits is withdrawn')]);
    await user.write('digits.onnx', scale(2));
    for (const version of ['1.4.0', '1.2.0']) {
      const { code, err } = await user.run(...digits, version);
      expect([code, err]).toEqual([
        1,
        expect.stringContaining('has the content of 1.2.0, which is withdrawn'),
      ]);
    }
  });

  it('refuse what there is not', async () => {
    const user = await withReleases();
    for (const command of [['revoke'], ['floor'], ['release', 'remove']]) {
      const { code, err } = await user.run(...command, 'digits', '9.0.0');
      expect([code, err]).toEqual([1, expect.stringContaining('(ERR_INLAY_NOT_FOUND)')]);
    }
  });

  it('take an old release off the list, unless a plan names it', async () => {
    const user = await withReleases();
    await user.ok('rollout', 'set', 'digits', '1.2.0', '--percent', '100');
    const { code, err } = await user.run('release', 'remove', 'digits', '1.2.0');
    expect([code, err]).toEqual([1, expect.stringMatching(/\(ERR_INLAY_(CONFLICT|REFUSED)\)/)]);
    await user.ok('release', 'remove', 'digits', '1.1.0');
    const { targets } = await verify(user.server);
    expect(Object.keys(targets.targets).some((path) => path.startsWith('models/digits/1/'))).toBe(false);
    await user.write('digits.onnx', scale(4));
    expect(await user.json(...digits, '1.4.0')).toMatchObject({ path: 'models/digits/4/digits.onnx' });
  });
});
