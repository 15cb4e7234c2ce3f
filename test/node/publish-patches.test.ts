import { expect, it } from 'vitest';
import { createAdminClient } from '../../src/cli/admin-client.ts';
import { openKeyDirectory } from '../../src/cli/key-directory.ts';
import { fromUtf8, toUtf8 } from '../../src/core/bytes.ts';
import type { PatchEncoder } from '../../src/publish/patches.ts';
import {
  publishRelease,
  type PublishedRelease,
  type PublishOptions,
  type ReleaseContent,
} from '../../src/publish/publisher.ts';
import { fetchManifest, fetchTarget } from '../../src/publish/released-files.ts';
import type { ReleaseManifest } from '../../src/update/manifest.ts';
import { startUser } from './cli-user.ts';
import { randomBytes, sha256, verify } from './server-fixture.ts';

/** What follows the longest common beginning, after its length. */
const suffix: PatchEncoder = {
  codec: 'suffix',
  encode: (base, next) => {
    let same = 0;
    while (same < next.length && base[same] === next[same]) same += 1;
    return toUtf8(`${same} ${next.slice(same).join()}`);
  },
};

interface Publishing {
  readonly parts: PublishOptions;
  publish(
    version: string,
    bytes: Uint8Array<ArrayBuffer>,
    more?: Partial<ReleaseContent>,
  ): Promise<PublishedRelease>;
  manifest(release: PublishedRelease): Promise<ReleaseManifest>;
}

async function startPublishing(): Promise<Publishing> {
  const { server, path } = await startUser();
  const { platform, url, token } = server;
  const parts: PublishOptions = {
    server: createAdminClient({ server: url, token, platform }),
    keys: openKeyDirectory(path('inlay-keys'), platform),
    platform,
    encoders: [suffix],
  };
  return {
    parts,
    publish: (version, bytes, more = {}) =>
      publishRelease(parts, bytes, { model: 'digits', version, file: 'digits.onnx', ...more }),
    manifest: async (release) => {
      const manifest = await fetchManifest(parts, (await verify(server)).targets, release);
      if (!manifest) throw new Error('The release has no manifest.');
      return manifest;
    },
  };
}

/** The same bytes but for the last one. */
function changed(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const copy = bytes.slice();
  copy[copy.length - 1] = 1 ^ (copy.at(-1) ?? 0);
  return copy;
}

it('offers patches from the releases that are named, variant by variant', async () => {
  const { parts, publish, manifest } = await startPublishing();
  const [first, small] = [randomBytes(5000), randomBytes(3000)];
  const variants = (bytes: Uint8Array<ArrayBuffer>) => [{ variant: 'int8', file: 'small.onnx', bytes }];
  await publish('1', first, { variants: variants(small) });
  const next = changed(first);
  const { files } = await manifest(
    await publish('2', next, { variants: variants(changed(small)), patchFrom: ['1'] }),
  );
  expect(files.map(({ ways }) => ways)).toEqual([
    [expect.objectContaining({ kind: 'patch', codec: 'suffix', from: sha256(first) })],
    [expect.objectContaining({ kind: 'patch', codec: 'suffix', from: sha256(small) })],
  ]);
  const [way] = files[0].ways ?? [];
  if (!way) throw new Error('There is no patch.');
  const [same = '', rest = ''] = fromUtf8(await fetchTarget(parts, way)).split(' ');
  expect(Uint8Array.from([...first.slice(0, Number(same)), ...rest.split(',').map(Number)])).toEqual(next);
});

it('offers patches from the first and the last three releases on request, and none that save little', async () => {
  const { publish, manifest } = await startPublishing();
  const first = randomBytes(5000);
  const ending = (byte: number) => Uint8Array.of(...first.subarray(0, -2), byte, byte);
  const [second, fourth, fifth, next] = [ending(2), ending(4), ending(5), ending(6)];
  const files = [first, second, randomBytes(5000), fourth, fifth];
  for (const [version, bytes] of files.entries()) await publish(String(version), bytes);
  const { files: made } = await manifest(await publish('5', next, { patchFrom: 'auto' }));
  expect(made[0].ways?.map((way) => 'from' in way && way.from)).toEqual([fifth, fourth, first].map(sha256));
});

it('refuses to patch from a release that is not there', async () => {
  const { publish } = await startPublishing();
  await expect(publish('1', randomBytes(10), { patchFrom: ['0'] })).rejects.toMatchObject({
    code: 'ERR_INLAY_NOT_FOUND',
  });
});

it('refuses two files of one name, and files of a release that names no variant twice', async () => {
  const { publish } = await startPublishing();
  const bytes = randomBytes(10);
  await expect(
    publish('1', bytes, { variants: [{ variant: 'int8', file: 'digits.onnx', bytes: randomBytes(10) }] }),
  ).rejects.toMatchObject({ code: 'ERR_INLAY_REFUSED' });
  await expect(
    publish('1', bytes, { variants: [{ variant: 'fp32', file: 'other.onnx', bytes: randomBytes(10) }] }),
  ).rejects.toMatchObject({ code: 'ERR_INLAY_REFUSED' });
  await expect(publish('1', new Uint8Array(0))).rejects.toMatchObject({ code: 'ERR_INLAY_REFUSED' });
});
