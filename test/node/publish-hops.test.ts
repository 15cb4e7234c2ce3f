import { describe, expect, it } from 'vitest';
import { createAdminClient } from '../../src/cli/admin-client.ts';
import { openKeyDirectory } from '../../src/cli/key-directory.ts';
import { toUtf8 } from '../../src/core/bytes.ts';
import { ServerError } from '../../src/core/errors.ts';
import { chooseHops, mostHops, readEarlier } from '../../src/publish/hops.ts';
import { prepareWays, type PatchEncoder, type PreparedWay } from '../../src/publish/patches.ts';
import { publishRelease, type PublishOptions } from '../../src/publish/publisher.ts';
import { listReleases } from '../../src/publish/release.ts';
import { fetchManifest, type FileSource } from '../../src/publish/released-files.ts';
import type { ReleaseFile, Way } from '../../src/update/manifest.ts';
import { testPlatform } from '../core/platform.ts';
import { startUser } from './cli-user.ts';
import { randomBytes, sha256, verify } from './server-fixture.ts';

const hash = (number: number): string => number.toString(16).padStart(64, '0');
const length = 1_000_000;

/** The file of a release, with patches of so many bytes from the files of earlier ones. */
function released(seq: number, patches: Readonly<Record<number, number>>): ReleaseFile {
  const way = (from: string, bytes: number): Way => ({
    path: `models/m/${seq}/from-${from}.idp`,
    sha256: hash(seq * 100 + Number(from)),
    length: bytes,
    kind: 'patch',
    codec: 'idp',
    from: hash(Number(from)),
  });
  return {
    path: `models/m/${seq}/m.onnx`,
    sha256: hash(seq),
    length,
    variant: 'fp32',
    chunks: { size: length, sha256: hash(0) },
    ways: Object.entries(patches).map(([from, bytes]) => way(from, bytes)),
  };
}

const patchFrom = (seq: number, bytes: number): PreparedWay => ({
  kind: 'patch',
  codec: 'idp',
  from: hash(seq),
  file: `from-${seq}.idp`,
  bytes: new Uint8Array(bytes),
  sha256: hash(9000 + seq),
});
const compressed = (bytes: number): PreparedWay => ({
  kind: 'compressed',
  codec: 'gzip',
  file: 'm.gz',
  bytes: new Uint8Array(bytes),
  sha256: hash(8000),
});
const next = { sha256: hash(999), length };

/** Which files the chosen hops lead from and to. */
async function chosen(
  ways: readonly PreparedWay[],
  earlier: readonly ReleaseFile[],
  gone: readonly string[] = [],
): Promise<string[]> {
  const hops = await chooseHops(next, ways, earlier, async (name) => !gone.includes(name));
  return hops.map(({ from, to }) => `${Number(`0x${from}`)} to ${Number(`0x${to.sha256}`)}`);
}

describe('hops', () => {
  const earlier = [released(3, { 2: 50_000 }), released(2, { 1: 60_000 }), released(1, {})];

  it('lead over earlier releases where that is cheaper than every single way', async () => {
    const near = patchFrom(3, 40_000);
    expect(await chosen([near], earlier)).toEqual(['2 to 3', '1 to 2']);
    expect(await chosen([near, patchFrom(1, 160_000)], earlier)).toEqual(['2 to 3', '1 to 2']);
    expect(await chosen([near, patchFrom(1, 150_000)], earlier)).toEqual(['2 to 3']);
    expect(await chosen([near, compressed(100_000)], earlier)).toEqual(['2 to 3']);
    expect(await chosen([near, compressed(90_000)], earlier)).toEqual([]);
    expect(await chosen([compressed(900_000)], earlier)).toEqual([]);
  });

  it('never make a path of more than nine tenths of the file', async () => {
    const around = (bytes: number) => chosen([patchFrom(3, bytes)], earlier.slice(0, 2));
    expect(await around(840_000)).toEqual(['2 to 3']);
    expect(await around(850_000)).toEqual([]);
  });

  it('are only those that the server still has; then another path serves', async () => {
    const both = [released(3, { 1: 45_000, 2: 50_000 }), ...earlier.slice(1)];
    const near = patchFrom(3, 40_000);
    expect(await chosen([near], both)).toEqual(['2 to 3', '1 to 3']);
    expect(await chosen([near], both, [hash(301)])).toEqual(['2 to 3', '1 to 2']);
    expect(await chosen([near], both, [hash(301), hash(302)])).toEqual([]);
  });

  it('leave room for the ways themselves: manifests name 64 at most', async () => {
    const many = Array.from({ length: 63 }, () => patchFrom(3, 40_000));
    expect(await chosen(many, earlier)).toEqual(['2 to 3']);
    const bases = Array.from({ length: 70 }, (_, i) => ({
      seq: i,
      sha256: hash(i),
      bytes: Uint8Array.of(i),
    }));
    const encode = (): Uint8Array<ArrayBuffer> => Uint8Array.of(1);
    const encoders = [{ codec: 'one', encode }];
    expect(
      await prepareWays({ platform: testPlatform(), encoders, bases }, 'm', new Uint8Array(100)),
    ).toHaveLength(64);
  });

  it('are few, for the newest releases first', async () => {
    const chain = Array.from({ length: 30 }, (_, i) => released(40 - i, { [39 - i]: 1000 }));
    const all = await chosen([patchFrom(40, 1000)], chain);
    expect(all).toHaveLength(mostHops);
    expect(all[0]).toBe('39 to 40');
  });
});

it('releases name the patches of earlier ones that are there and not withdrawn', async () => {
  const suffix: PatchEncoder = {
    codec: 'suffix',
    encode: (base, bytes) => toUtf8(`${base.length} ${bytes.at(-1)}`),
  };
  const { server, path } = await startUser();
  const { platform, url, token } = server;
  const options: PublishOptions = {
    server: createAdminClient({ server: url, token, platform }),
    keys: openKeyDirectory(path('inlay-keys'), platform),
    platform,
    encoders: [suffix],
  };
  const files = [1, 2, 3].map(() => randomBytes(50_000));
  let last: Awaited<ReturnType<typeof publishRelease>> | undefined;
  for (const [i, bytes] of files.entries())
    last = await publishRelease(options, bytes, {
      model: 'digits',
      version: String(i + 1),
      file: 'digits.onnx',
      ...(i > 0 && { patchFrom: [String(i)] }),
      ...(i === 2 && { compact: { mode: 'near', step: '1/4', seed: 1, anchor: sha256(files[0] ?? bytes) } }),
    });
  const { targets } = await verify(server);
  const manifest = last && (await fetchManifest(options, targets, last));
  const [one, two] = files.map((bytes) => ({ sha256: sha256(bytes), length: bytes.length }));
  // The anchor has a patch of its own.
  expect(manifest?.files[0].anchor).toEqual(one);
  expect(manifest?.files[0].ways?.map(({ kind }) => kind)).toEqual(['patch', 'patch']);
  const fourth = randomBytes(50_000);
  const terms = { model: 'digits', file: 'digits.onnx', patchFrom: ['3'] };
  const published = await publishRelease(options, fourth, { ...terms, version: '4' });
  const after = (await verify(server)).targets;
  const ways = (await fetchManifest(options, after, published))?.files[0].ways ?? [];
  expect(ways.filter(({ kind }) => kind === 'hop')).toEqual([
    expect.objectContaining({
      from: two?.sha256,
      to: { sha256: sha256(files[2] ?? fourth), length: 50_000 },
    }),
    expect.objectContaining({ from: one?.sha256, path: expect.stringMatching(/^models\/digits\/3\//) }),
  ]);
  expect(published.ways.map(({ kind, from, to }) => [kind, from, to])).toEqual([
    ['patch', ['3'], undefined],
    ['hop', ['2'], ['3']],
    ['hop', ['1'], ['3']],
  ]);
  const isOut = listReleases(after).find(({ version }) => version === '3')?.seq ?? 0;
  const without = { ...after, custom: { models: { digits: { revoked: [isOut] } } } };
  const seqsOf = async (source: FileSource): Promise<(string | undefined)[]> =>
    (await readEarlier(source, without, 'digits')).map((file) => file.path.split('/')[2]);
  expect(await seqsOf(options)).toEqual([String(published.seq), '2', '1']);
  // A manifest that the server has lost takes its hops along, and nothing else; other faults are told of.
  const losing = (code: 'ERR_INLAY_NOT_FOUND' | 'ERR_INLAY_SERVER'): FileSource => ({
    platform,
    server: {
      text: async (name) => {
        if (name.includes('/2/')) throw new ServerError(code, 'It is gone.');
        return options.server.text(name);
      },
    },
  });
  expect(await seqsOf(losing('ERR_INLAY_NOT_FOUND'))).toEqual([String(published.seq), '1']);
  await expect(seqsOf(losing('ERR_INLAY_SERVER'))).rejects.toThrow('It is gone.');
});
