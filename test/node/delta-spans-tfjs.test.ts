/** Where the numbers lie in a ZIP archive of a TensorFlow.js model. */
import fc from 'fast-check';
import { Zip, ZipPassThrough, zipSync } from 'fflate';
import { describe, expect, it } from 'vitest';
import { listZip } from '../../src/backends/tfjs-zip.ts';
import { concatBytes, toUtf8 } from '../../src/core/bytes.ts';
import { encodePatch } from '../../src/publish/delta/encode.ts';
import { mendChecksums } from '../../src/publish/delta/spans-zip.ts';
import { segmentsOf } from '../../src/publish/delta/spans.ts';
import { toZip } from '../conformance/backend-models-tfjs.ts';

/** The bytes 0, 1, 2, … so that a number tells where it lies. */
const counted = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i);

const weightsManifest = [
  {
    paths: ['a.bin', './b.bin'],
    weights: [
      { name: 'kernel', shape: [2, 3], dtype: 'float32' },
      { name: 'ids', shape: [2], dtype: 'int32' },
      { name: 'empty', shape: [0, 4], dtype: 'float32' },
      { name: 'cut', shape: [2, 3, 2], dtype: 'float32' },
    ],
  },
  {
    paths: ['c.bin'],
    weights: [
      { name: 'half', shape: [4], dtype: 'float32', quantization: { dtype: 'float16' } },
      { name: 'byte', shape: [5], dtype: 'float32', quantization: { dtype: 'uint8', scale: 0.5, min: -1 } },
      { name: 'mask', shape: [], dtype: 'bool' },
    ],
  },
];
// The tensor that is cut ends its first file amid the third of its six rows.
const files = { 'a.bin': counted(24 + 8 + 20), 'b.bin': counted(28), 'c.bin': counted(8 + 5 + 1) };
const archive = toZip({ weightsManifest }, files);

describe('tensors of a TensorFlow.js archive', () => {
  it('are the weights that its model.json lays over stored files; of one that is cut, whole rows', () => {
    const spans = segmentsOf(archive);
    expect(spans.map(({ name, numbers, isUnsigned, shape }) => [name, numbers, isUnsigned, shape])).toEqual([
      ['kernel', 'float32', false, [2, 3]],
      ['cut (rows 0 to 1)', 'float32', false, [2, 2]],
      ['cut (rows 3 to 5)', 'float32', false, [3, 2]],
      ['half', 'float16', false, [4]],
      ['byte', 'int8', true, [5]],
      ['mask', 'int8', false, []],
    ]);
    expect(spans.map(({ offset }) => archive[offset])).toEqual([0, 32, 4, 0, 8, 13]);
  });

  it('are found by the model.json that is highest up, beside which its files have to lie', () => {
    const json = toUtf8(JSON.stringify({ weightsManifest }));
    const { 'c.bin': outside, ...beside } = files;
    const net = { 'model.json': json, ...beside };
    const spans = segmentsOf(zipSync({ net, 'c.bin': outside }, { level: 0 }));
    expect(spans.map(({ name }) => name)).toEqual(['kernel', 'cut (rows 0 to 1)', 'cut (rows 3 to 5)']);
    expect(segmentsOf(zipSync({ net, 'model.json': toUtf8('{}') }, { level: 0 }))).toEqual([]);
  });

  it('are none where files are deflated, missing, or not what the manifest says', () => {
    const zeros = { ...files, 'a.bin': new Uint8Array(52) };
    expect(segmentsOf(toZip({ weightsManifest }, zeros, 6))).toEqual([]);
    expect(segmentsOf(toZip({ weightsManifest }, {}))).toEqual([]);
    expect(
      segmentsOf(toZip({ weightsManifest: [null, { paths: 1 }, { paths: [], weights: {} }] }, files)),
    ).toEqual([]);
    const first = { name: 'x', dtype: 'float32' };
    const strange = [
      { ...first, shape: [2 ** 40, 2 ** 40] },
      { ...first, shape: [-1] },
      { ...first, shape: [1], dtype: 'string' },
      { ...first, shape: [1], dtype: 'toString' },
      { shape: [1], dtype: 'float32' },
    ];
    for (const weight of strange) {
      const weights = [
        { ...first, name: 'kept', shape: [1] },
        weight,
        { ...first, name: 'after', shape: [1] },
      ];
      const spans = segmentsOf(toZip({ weightsManifest: [{ paths: ['a.bin'], weights }] }, files));
      expect(spans.map(({ name }) => name)).toEqual(['kept']);
    }
  });

  it('lie within any bytes, whatever these are', () => {
    const change = fc.tuple(fc.nat(archive.length - 1), fc.nat(255));
    fc.assert(
      fc.property(
        fc.array(change, { minLength: 1, maxLength: 6 }),
        fc.nat(archive.length),
        (changes, cut) => {
          const file = archive.slice(0, cut < 40 ? cut : archive.length);
          for (const [at, value] of changes) file[at] = value;
          let end = 0;
          for (const { offset, sizeBytes } of segmentsOf(file)) {
            expect(offset).toBeGreaterThanOrEqual(end);
            end = offset + sizeBytes;
          }
          expect(end).toBeLessThanOrEqual(file.length);
          mendChecksums(file);
        },
      ),
      { numRuns: 2000, seed: 8 },
    );
  });

  it('let a patch see into the archive', () => {
    let state = 1;
    const draw = (): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) | 0;
      return state / 2 ** 31;
    };
    const zipOf = (values: Float32Array): Uint8Array => {
      const weights = [{ name: 'kernel', shape: [64, 64], dtype: 'float32' }];
      return toZip(
        { weightsManifest: [{ paths: ['a.bin'], weights }] },
        { 'a.bin': new Uint8Array(values.buffer) },
      );
    };
    const before = Float32Array.from({ length: 4096 }, draw);
    const after = before.map((value) => value + draw() * 1e-4);
    const patch = encodePatch(zipOf(before), zipOf(after));
    expect(patch.length / 4 / 4096).toBeLessThan(0.6);
  });
});

describe('checksums of an archive', () => {
  const streamed = (): Uint8Array => {
    const pieces: Uint8Array[] = [];
    const zip = new Zip((_, piece) => void pieces.push(piece));
    const entry = new ZipPassThrough('a.bin');
    zip.add(entry);
    entry.push(counted(100), true);
    zip.end();
    return concatBytes(pieces);
  };

  it.each([
    ['before its files', archive, 52],
    ['behind its files', streamed(), 100],
  ])('are right again after numbers changed, %s', async (_, made, sizeBytes) => {
    const file = made.slice();
    mendChecksums(file);
    expect(file).toEqual(made);
    const at = file.findIndex(
      (byte, i) => byte === 0 && counted(20).every((value, k) => value === file[i + k]),
    );
    file[at] = 77;
    const read = (): Promise<unknown> => Promise.resolve(listZip(file).get('a.bin')?.read());
    await expect(read()).rejects.toThrow(/checksum/);
    mendChecksums(file);
    await expect(read()).resolves.toHaveLength(sizeBytes);
  });
});
