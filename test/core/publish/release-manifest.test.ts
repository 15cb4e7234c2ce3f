import { describe, expect, it } from 'vitest';
import { toUtf8 } from '../../../src/core/bytes.ts';
import { createSha256 } from '../../../src/core/hash.ts';
import {
  chunkBytes,
  describeChunks,
  writeManifest,
  type PreparedFile,
} from '../../../src/publish/manifest.ts';
import { prepareWays, type PatchEncoder } from '../../../src/publish/patches.ts';
import { sha256Hex } from '../../../src/trust/keys.ts';
import { canonicalJson } from '../../../src/trust/canonical-json.ts';
import { readManifest } from '../../../src/update/manifest.ts';

const platform = { createSha256 };
const hash = (bytes: Uint8Array): string => sha256Hex(platform, bytes);

/** What follows the longest common beginning, after its length: enough of a format to test with. */
const suffix: PatchEncoder = {
  codec: 'suffix',
  encode: (base, next) => {
    let same = 0;
    while (same < next.length && base[same] === next[same]) same += 1;
    return toUtf8(`${same} ${next.slice(same).join()}`);
  },
};

function fill(length: number, seed: number): Uint8Array<ArrayBuffer> {
  let state = seed;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return state >>> 16;
  });
}

async function prepare(
  variant: string,
  file: string,
  bytes: Uint8Array<ArrayBuffer>,
  options: Partial<Parameters<typeof prepareWays>[0]> = {},
): Promise<PreparedFile> {
  const ways = await prepareWays({ platform, encoders: [], bases: [], ...options }, file, bytes);
  return { variant, file, bytes, sha256: hash(bytes), chunks: describeChunks(platform, bytes), ways };
}

describe('describeChunks', () => {
  it('hashes each piece, the last one shorter', () => {
    const bytes = fill(2 * chunkBytes + 3, 1);
    const pieces = [0, 1, 2].map((at) => hash(bytes.slice(at * chunkBytes, (at + 1) * chunkBytes)));
    expect(describeChunks(platform, bytes)).toEqual({ size: chunkBytes, sha256: pieces.join('') });
    expect(describeChunks(platform, bytes.slice(0, chunkBytes)).sha256).toHaveLength(64);
  });
});

describe('prepareWays', () => {
  it('keeps a compressed file only if it saves a twentieth', async () => {
    const bytes = fill(1000, 2);
    const shrunk = (length: number) =>
      prepareWays(
        { platform, encoders: [], bases: [], gzip: async () => new Uint8Array(length) },
        'a.onnx',
        bytes,
      );
    expect(await shrunk(951)).toEqual([]);
    expect(await shrunk(950)).toMatchObject([{ kind: 'compressed', codec: 'gzip', file: 'a.onnx.gz' }]);
  });

  it('keeps a patch only if it saves a tenth, and none from the same file', async () => {
    const base = fill(1000, 3);
    const next = base.slice();
    next[990] = (next[990] ?? 0) ^ 1;
    const baseFile = { seq: 4, sha256: hash(base), bytes: base };
    const ways = (bytes: Uint8Array<ArrayBuffer>) =>
      prepareWays({ platform, encoders: [suffix], bases: [baseFile] }, 'a.onnx', bytes);
    expect(await ways(next)).toMatchObject([
      { kind: 'patch', codec: 'suffix', from: hash(base), file: 'a.onnx.from-4.suffix' },
    ]);
    expect(await ways(fill(1000, 5))).toEqual([]);
    expect(await ways(base)).toEqual([]);
  });

  it('keeps one patch from each file, and none that is no smaller than the compressed file', async () => {
    const base = fill(1000, 3);
    const next = base.slice();
    next[999] = (next[999] ?? 0) ^ 1;
    const bases = [4, 5].map((seq) => ({ seq, sha256: hash(base), bytes: base }));
    const kinds = async (gzipBytes: number) => {
      const gzip = async () => new Uint8Array(gzipBytes);
      const ways = await prepareWays({ platform, encoders: [suffix], bases, gzip }, 'a.onnx', next);
      return ways.map(({ kind }) => kind);
    };
    expect(await kinds(500)).toEqual(['compressed', 'patch']);
    expect(await kinds(5)).toEqual(['compressed']);
  });
});

describe('a file coded by itself', () => {
  it('is offered beside gzip where it is smaller, and saves a twentieth', async () => {
    const kinds = async (codec: string, aloneBytes: number) => {
      const encoder = { ...suffix, codec, encodeAlone: async () => new Uint8Array(aloneBytes) };
      const gzip = async () => new Uint8Array(900);
      const parts = { platform, encoders: [encoder], bases: [] };
      const ways = [
        ...(await prepareWays({ ...parts, gzip }, 'a.onnx', fill(1000, 2))),
        ...(await prepareWays(parts, 'a.onnx', fill(1000, 2))),
      ];
      return ways.map(({ file }) => file);
    };
    expect(await kinds('idp', 899)).toEqual(['a.onnx.gz', 'a.onnx.idp', 'a.onnx.idp']);
    expect(await kinds('idp', 950)).toEqual(['a.onnx.gz', 'a.onnx.idp']);
    expect(await kinds('idp', 951)).toEqual(['a.onnx.gz']);
    // Devices would not know it.
    expect(await kinds('other', 500)).toEqual(['a.onnx.gz']);
  });
});

describe('writeManifest', () => {
  const named = { model: 'digits', version: '1.1.0', seq: 5 };

  it('lists everything that the release has, each as a target of its own', async () => {
    const model = fill(3000, 6);
    const base = model.slice();
    base[2990] = 1 ^ (base[2990] ?? 0);
    const reference = await prepare('fp32', 'digits.onnx', model, {
      gzip: async () => fill(100, 7),
      encoders: [suffix],
      bases: [{ seq: 4, sha256: hash(base), bytes: base }],
    });
    const variant = await prepare('int8', 'int8-digits.onnx', fill(800, 8));
    const golden = { bytes: toUtf8('{"v":1}'), tolerance: { absoluteE6: 100, relativeE6: 1000 } };
    const profile = toUtf8('{}');
    const { manifest, ref, companions } = writeManifest(
      platform,
      { files: [reference, variant], golden, profile },
      named,
    );
    expect(companions.map(({ role, file }) => [role, file])).toEqual([
      ['compressed', 'digits.onnx.gz'],
      ['patch', 'digits.onnx.from-4.suffix'],
      ['variant', 'int8-digits.onnx'],
      ['golden', 'golden.json'],
      ['profile', 'profile.json'],
      ['manifest', 'release.json'],
    ]);
    for (const { bytes, length, sha256 } of companions)
      expect([bytes.length, hash(bytes)]).toEqual([length, sha256]);
    expect(manifest.files.map(({ path, variant: name }) => [path, name])).toEqual([
      ['models/digits/5/digits.onnx', 'fp32'],
      ['models/digits/5/int8-digits.onnx', 'int8'],
    ]);
    expect(ref.path).toBe('models/digits/5/release.json');
    // Devices understand it, and nothing of it is lost on them.
    expect(readManifest(canonicalJson(manifest))).toEqual(manifest);
  });

  it('gives the same bytes for the same release', async () => {
    const write = async (seq: number): Promise<string> =>
      writeManifest(platform, { files: [await prepare('fp32', 'a.onnx', fill(10, 9))] }, { ...named, seq })
        .ref.sha256;
    expect(await write(5)).toBe(await write(5));
    expect(await write(6)).not.toBe(await write(5));
  });
});
