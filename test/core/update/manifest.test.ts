import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toUtf8 } from '../../../src/core/bytes.ts';
import { isInlayError } from '../../../src/core/errors.ts';
import { canonicalJson } from '../../../src/trust/canonical-json.ts';
import { readManifest, type FileRef, type ReleaseManifest } from '../../../src/update/manifest.ts';

const hash = (digit: string): string => digit.repeat(64);
const ref = (file: string, digit: string, length = 3000): FileRef => ({
  path: `models/digits/3/${file}`,
  sha256: hash(digit),
  length,
});
const chunks = { size: 1024, sha256: hash('1') + hash('2') + hash('3') };

const ways = [
  { ...ref('model.onnx.gz', 'b', 900), kind: 'compressed', codec: 'gzip' },
  { ...ref('from-2.patch', 'c', 30), kind: 'patch', codec: 'delta-1', from: hash('9') },
  { ...ref('model.onnx.idp', '4', 800), kind: 'compressed', codec: 'idp' },
  {
    ...ref('from-1.patch', '5', 40),
    path: 'models/digits/2/from-1.patch',
    kind: 'hop',
    codec: 'delta-1',
    from: hash('8'),
    to: { sha256: hash('9'), length: 2900 },
  },
];
const manifest = {
  v: 1,
  model: 'digits',
  version: '1.2.0',
  seq: 3,
  files: [
    {
      ...ref('model.onnx', 'a'),
      variant: 'fp32',
      chunks,
      ways,
      anchor: { sha256: hash('9'), length: 2900 },
    },
    {
      ...ref('int8.onnx', 'd', 1024),
      variant: 'int8',
      requires: { providers: ['cpu', 'wasm'], features: ['int8'] },
      tolerance: { absoluteE6: 5000, relativeE6: 50_000 },
      chunks: { size: 1024, sha256: hash('4') },
    },
  ],
  golden: { ...ref('golden.json', 'e'), tolerance: { absoluteE6: 100, relativeE6: 0 } },
  profile: ref('profile.json', 'f'),
};

/** The manifest with one value replaced; `undefined` leaves it out. */
function changed(path: readonly (string | number)[], value: unknown): unknown {
  const copy = structuredClone(manifest) as unknown;
  let at = copy as Record<string | number, unknown>;
  for (const key of path.slice(0, -1)) at = at[key] as typeof at;
  const last = path.at(-1) ?? '';
  if (value === undefined) delete at[last];
  else at[last] = value;
  return copy;
}
const read = (value: unknown): ReleaseManifest => readManifest(canonicalJson(value));
const file = manifest.files[0];

describe('readManifest', () => {
  it('reads all of a manifest', () => {
    expect(read(manifest)).toEqual(manifest);
  });

  it('reads the least of one', () => {
    const least = { ...manifest, files: [{ ...manifest.files[1], requires: undefined }] };
    const { golden: _, profile: __, ...rest } = JSON.parse(JSON.stringify(least)) as typeof manifest;
    expect(read(rest)).toEqual(rest);
  });

  it('leaves out what it does not know', () => {
    const way = { kind: 'torrent', url: 'magnet:' };
    const brotli = { ...ref('model.onnx.br', '7'), kind: 'compressed', codec: 'brotli' };
    const extended = changed(['files', 0, 'ways'], [way, brotli, ...ways]);
    expect(read({ ...(extended as object), later: 1 })).toEqual(manifest);
  });

  it.each([
    ['v', ['v'], 2],
    ['model', ['model'], '../digits'],
    ['version', ['version'], 'one two'],
    ['seq', ['seq'], 0],
    ['files', ['files'], []],
    ['files', ['files'], {}],
    ['files', ['files'], Array.from({ length: 65 }, () => file)],
    ['files.variant', ['files', 1, 'variant'], 'fp32'],
    ['files.path', ['files', 1, 'path'], file?.path],
    ['files[0].path', ['files', 0, 'path'], 'models/digits/4/model.onnx'],
    ['files[0].path', ['files', 0, 'path'], 'models/digits/3/../../x'],
    ['files[0].path', ['files', 0, 'path'], 'models/digits/3/a/b'],
    ['files[0].path', ['files', 0, 'path'], 'models/digits/3/'],
    ['files[0].sha256', ['files', 0, 'sha256'], hash('A')],
    ['files[0].sha256', ['files', 0, 'sha256'], undefined],
    ['files[0].length', ['files', 0, 'length'], 0],
    ['files[0].length', ['files', 0, 'length'], -1],
    ['files[0].chunks', ['files', 0, 'chunks'], undefined],
    ['files[0].chunks.size', ['files', 0, 'chunks', 'size'], 1023],
    ['files[0].chunks.size', ['files', 0, 'chunks', 'size'], 2 ** 24 + 1],
    ['files[0].chunks.size', ['files', 0, 'length'], 2 ** 40],
    ['files[0].chunks.sha256', ['files', 0, 'length'], 3073],
    ['files[0].chunks.sha256', ['files', 0, 'length'], 2048],
    ['files[0].chunks.sha256', ['files', 0, 'chunks', 'sha256'], `${hash('1')}${hash('2')}${hash('G')}`],
    ['files[0].variant', ['files', 0, 'variant'], 3],
    ['files[1].requires.providers', ['files', 1, 'requires', 'providers'], ['cpu', 1]],
    ['files[0].ways[0].length', ['files', 0, 'ways', 0, 'length'], 0],
    ['files[0].ways[0]', ['files', 0, 'ways', 0, 'sha256'], hash('a')],
    ['files[0].ways[0].path', ['files', 0, 'ways', 0, 'path'], '/etc/passwd'],
    ['files[0].ways[1].from', ['files', 0, 'ways', 1, 'from'], hash('a')],
    ['files[0].ways[1].from', ['files', 0, 'ways', 1, 'from'], 'x'],
    ['files[0].ways[1].codec', ['files', 0, 'ways', 1, 'codec'], ''],
    ['files[0].ways[0]', ['files', 0, 'ways', 0, 'kind'], 'full'],
    ['files[0].ways[3].path', ['files', 0, 'ways', 3, 'path'], 'models/other/2/from-1.patch'],
    ['files[0].ways[3].path', ['files', 0, 'ways', 3, 'path'], 'models/digits//from-1.patch'],
    ['files[0].ways[3].to', ['files', 0, 'ways', 3, 'to'], hash('9')],
    ['files[0].ways[3].to.length', ['files', 0, 'ways', 3, 'to', 'length'], 0],
    ['files[0].anchor.sha256', ['files', 0, 'anchor', 'sha256'], hash('A')],
    ['golden.tolerance', ['golden', 'tolerance'], undefined],
    ['golden.tolerance.relativeE6', ['golden', 'tolerance', 'relativeE6'], -1],
    ['files[1].tolerance', ['files', 1, 'tolerance'], 5],
    ['files[1].tolerance.absoluteE6', ['files', 1, 'tolerance', 'absoluteE6'], -1],
    ['profile.path', ['profile', 'path'], 'models/digits/2/profile.json'],
  ] as const)('refuses a wrong %s', (field, path, value) => {
    expect(() => read(changed(path, value))).toThrow(
      expect.objectContaining({ code: 'ERR_INLAY_METADATA_INVALID', details: { field } }),
    );
  });

  it('refuses what has no single meaning', () => {
    for (const text of ['', '[]', 'null', '{"v":1,"v":1}', '{"v":1.5}', '{"v":1e0}']) {
      expect(() => readManifest(toUtf8(text))).toThrow(
        expect.objectContaining({ code: 'ERR_INLAY_METADATA_INVALID' }),
      );
    }
  });

  const refusesOrReads = (bytes: Uint8Array): void => {
    try {
      const { model, seq, files } = readManifest(bytes);
      for (const { path, length, chunks: cut } of files) {
        expect(path.startsWith(`models/${model}/${seq}/`)).toBe(true);
        expect(cut.sha256).toHaveLength(64 * Math.ceil(length / cut.size));
      }
    } catch (error) {
      if (!isInlayError(error)) throw error;
      expect(error.code).toBe('ERR_INLAY_METADATA_INVALID');
    }
  };

  it('refuses or reads whatever is at any place', () => {
    const paths: (string | number)[][] = [];
    const visit = (value: unknown, path: (string | number)[]): void => {
      if (path.length > 0) paths.push(path);
      if (typeof value !== 'object' || value === null) return;
      for (const [key, item] of Object.entries(value)) {
        visit(item, [...path, Array.isArray(value) ? Number(key) : key]);
      }
    };
    visit(manifest, []);
    const values = fc.oneof(
      fc.jsonValue({ maxDepth: 3, noUnicodeString: true }),
      fc.constantFrom(0, -1, 2 ** 53 - 1, '', hash('0'), [], {}, null, true, file, chunks),
    );
    fc.assert(
      fc.property(fc.constantFrom(...paths), values, (path, value) => {
        refusesOrReads(toUtf8(JSON.stringify(changed(path, value))));
      }),
      { numRuns: 500 },
    );
  });

  it('refuses or reads bytes that have changed', () => {
    const bytes = canonicalJson(manifest);
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.nat(255), fc.nat(bytes.length), (at, byte, end) => {
        const copy = bytes.slice(0, Math.max(end, at + 1));
        copy[at] = byte;
        refusesOrReads(copy);
      }),
      { numRuns: 500 },
    );
  });
});
