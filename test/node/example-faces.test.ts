import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { createInlay, type Feeds, type Model, type Tensor, type TensorMap } from 'inlay';
import * as ort from 'onnxruntime-node';
import { PNG } from 'pngjs';
import { afterAll, afterEach, describe, expect, it } from 'vitest';

interface Box {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}
interface Face extends Box {
  readonly score: number;
}
interface Image {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}
interface Example {
  readonly decodeImage: (bytes: Uint8Array) => Image | undefined;
  readonly encodePng: (image: Image) => Uint8Array;
  readonly toPlanes: (
    image: Image,
    width: number,
    height: number,
    normalize: (value: number) => number,
  ) => Float32Array;
  readonly drawBox: (image: Image, box: Box) => void;
  readonly detectFaces: (model: Pick<Model, 'run'>, image: Image, minScore: number) => Promise<Face[]>;
  readonly toFaces: (scores: Float32Array, boxes: Float32Array, image: Image, minScore: number) => Face[];
  readonly dropOverlaps: (faces: readonly Face[], maxOverlap?: number) => Face[];
  readonly overlap: (a: Box, b: Box) => number;
}

const example = new URL('../../examples/faces/', import.meta.url);
const { decodeImage, encodePng, toPlanes, drawBox, detectFaces, toFaces, dropOverlaps, overlap } =
  Object.assign(
    {},
    ...(await Promise.all(
      ['image.mjs', 'draw.mjs', 'detect.mjs', 'overlap.mjs'].map(
        (file) => import(new URL(file, example).href),
      ),
    )),
  ) as Example;

const data = new URL('../../../shared/data/', import.meta.url);
const photographs = ['portrait.jpg', 'street.jpg', 'wolves.jpg'];
const network = fileURLToPath(new URL('ultraface-rfb-320.onnx', data));
const isHere = [...photographs, 'ultraface-rfb-320.onnx'].every((file) => existsSync(new URL(file, data)));
if (!isHere) console.warn('Skipped: the photographs and the model of ../shared/data are not here.');

const blank = (width: number, height: number): Image => ({
  width,
  height,
  data: new Uint8Array(width * height * 4),
});
const face = (left: number, top: number, right: number, bottom: number, score: number): Face => ({
  left,
  top,
  right,
  bottom,
  score,
});

describe('overlap', () => {
  it('is the shared part of the union', () => {
    expect(overlap(face(0, 0, 10, 10, 1), face(0, 0, 10, 10, 1))).toBe(1);
    expect(overlap(face(0, 0, 10, 10, 1), face(5, 0, 15, 10, 1))).toBeCloseTo(1 / 3, 12);
    expect(overlap(face(0, 0, 10, 10, 1), face(2, 2, 4, 4, 1))).toBeCloseTo(0.04, 12);
  });

  it('is nothing for boxes that only touch, or have no area', () => {
    expect(overlap(face(0, 0, 10, 10, 1), face(10, 0, 20, 10, 1))).toBe(0);
    expect(overlap(face(0, 0, 10, 10, 1), face(20, 20, 30, 30, 1))).toBe(0);
    expect(overlap(face(5, 5, 5, 5, 1), face(5, 5, 5, 5, 1))).toBe(0);
  });
});

describe('dropping overlaps', () => {
  it('keeps the surest of boxes that overlap, and every box that stands alone', () => {
    const sure = face(0, 0, 10, 10, 0.9);
    const shifted = face(1, 1, 11, 11, 0.8);
    const alone = face(50, 50, 60, 60, 0.7);
    expect(dropOverlaps([alone, shifted, sure])).toEqual([sure, alone]);
  });

  it('lets only boxes that were kept drop others', () => {
    const [first, second, third] = [
      face(0, 0, 10, 10, 0.9),
      face(4, 0, 14, 10, 0.8),
      face(8, 0, 18, 10, 0.7),
    ];
    expect(dropOverlaps([first, second, third])).toEqual([first, third]);
  });

  it('keeps boxes that overlap by 30 % and no more', () => {
    const wide = face(0, 0, 10, 10, 0.9);
    expect(dropOverlaps([wide, face(0, 0, 3, 10, 0.8)])).toHaveLength(2);
    expect(dropOverlaps([wide, face(0, 0, 3.1, 10, 0.8)])).toEqual([wide]);
  });

  it('leaves boxes apart, each dropped one beside a surer one, whatever the boxes', () => {
    const share = fc.integer({ min: 0, max: 50 });
    const score = fc.double({ min: 0, max: 1, noNaN: true });
    const anyFace = fc
      .tuple(share, share, fc.integer({ min: 1, max: 30 }), fc.integer({ min: 1, max: 30 }), score)
      .map(([left, top, width, height, sure]) => face(left, top, left + width, top + height, sure));
    fc.assert(
      fc.property(fc.array(anyFace, { maxLength: 20 }), (faces) => {
        const kept = dropOverlaps(faces);
        kept.forEach((one, i) => {
          for (const other of kept.slice(i + 1)) {
            expect(other.score).toBeLessThanOrEqual(one.score);
            expect(overlap(one, other)).toBeLessThanOrEqual(0.3);
          }
        });
        for (const dropped of faces.filter((one) => !kept.includes(one))) {
          expect(kept.some((one) => one.score >= dropped.score && overlap(one, dropped) > 0.3)).toBe(true);
        }
      }),
    );
  });
});

describe('decoding the outputs', () => {
  it('takes places that reach the score, in pixels, cut at the borders of the image', () => {
    const scores = new Float32Array([0.5, 0.5, 0.25, 0.75, 0, 1]);
    const boxes = new Float32Array([0, 0, 1, 1, 0.25, 0.5, 0.5, 0.75, -0.5, -1, 1.5, 2]);
    expect(toFaces(scores, boxes, blank(400, 100), 0.75)).toEqual([
      face(100, 50, 200, 75, 0.75),
      face(0, 0, 400, 100, 1),
    ]);
  });
});

describe('images', () => {
  const same = (value: number): number => value;

  it('become planes of red, green and blue, without alpha', () => {
    const image = { width: 2, height: 1, data: new Uint8Array([1, 2, 3, 255, 4, 5, 6, 0]) };
    expect([...toPlanes(image, 2, 1, same)]).toEqual([1, 4, 2, 5, 3, 6]);
    expect([...toPlanes(image, 2, 1, (value) => (value - 127) / 128)][0]).toBe(-126 / 128);
  });

  it('shrink and grow by interpolation between the centres of pixels', () => {
    const image = {
      width: 4,
      height: 1,
      data: new Uint8Array([0, 100, 200, 40].flatMap((x) => [x, x, x, 255])),
    };
    expect([...toPlanes(image, 2, 1, same).subarray(0, 2)]).toEqual([50, 120]);
    expect([...toPlanes(image, 8, 1, same).subarray(0, 8)]).toEqual([0, 25, 75, 125, 175, 160, 80, 40]);
    const tall = { ...image, width: 1, height: 4 };
    expect([...toPlanes(tall, 1, 2, same).subarray(0, 2)]).toEqual([50, 120]);
  });

  it('keep one colour at any size', () => {
    const pixels = new Uint8Array(Array.from({ length: 7 * 5 }, () => [10, 20, 30, 255]).flat());
    const planes = toPlanes({ width: 7, height: 5, data: pixels }, 320, 240, same);
    expect(planes).toHaveLength(3 * 240 * 320);
    for (const [channel, value] of [10, 20, 30].entries()) {
      expect(planes.subarray(channel * 76_800, (channel + 1) * 76_800).every((x) => x === value)).toBe(true);
    }
  });

  it('come back from PNG as they were', () => {
    const image = { width: 3, height: 2, data: Uint8Array.from({ length: 24 }, (_, i) => i * 10) };
    const decoded = decodeImage(encodePng(image)) as Image;
    expect([decoded.width, decoded.height]).toEqual([3, 2]);
    expect([...decoded.data]).toEqual([...image.data]);
  });

  it('are none in bytes that are neither JPEG nor PNG', () => {
    const png = encodePng(blank(3, 2));
    for (const bytes of [
      Buffer.from(''),
      Buffer.from('text'),
      Buffer.from([0xff, 0xd8, 1, 2]),
      png.subarray(0, 20),
    ]) {
      expect(decodeImage(bytes)).toBeUndefined();
    }
  });

  it('get an outline of several pixels where a box is, and nothing else', () => {
    const image = blank(20, 12);
    drawBox(image, { left: 3.2, top: 1.8, right: 15, bottom: 30 });
    const painted = Array.from({ length: 12 }, (_, y) =>
      Array.from({ length: 20 }, (_pixel, x) => (image.data[(y * 20 + x) * 4 + 3] === 0 ? '.' : '#')).join(
        '',
      ),
    );
    const side = '...##........##.....';
    expect(painted).toEqual([
      '....................',
      '....................',
      '...############.....',
      '...############.....',
      ...Array.from({ length: 8 }, () => side),
    ]);
  });
});

describe.skipIf(!isHere)('the photographs', () => {
  const expected: Readonly<Record<string, readonly Box[]>> = {
    'portrait.jpg': [{ left: 146, top: 33, right: 189, bottom: 78 }],
    'street.jpg': [{ left: 889, top: 216, right: 975, bottom: 317 }],
    'wolves.jpg': [],
  };

  it.each(photographs)(
    '%s runs bit for bit as onnxruntime runs it, and shows the right faces',
    async (name) => {
      const image = decodeImage(readFileSync(new URL(name, data))) as Image;
      const runs: { feeds: Feeds; outputs: TensorMap }[] = [];
      const inlay = createInlay({ device: 'cpu', intraOpThreads: 1 });
      let faces: Face[];
      try {
        const model = await inlay.load(network);
        const recorder: Pick<Model, 'run'> = {
          run: async (feeds, options) => {
            const outputs = await model.run(feeds, options);
            runs.push({ feeds, outputs });
            return outputs;
          },
        };
        faces = await detectFaces(recorder, image, 0.7);
      } finally {
        await inlay.close();
      }
      expect(runs).toHaveLength(1);
      const { feeds, outputs } = runs[0] as (typeof runs)[0];

      const session = await ort.InferenceSession.create(network, { intraOpNumThreads: 1 });
      const input = new ort.Tensor('float32', feeds['input'] as Float32Array, [1, 3, 240, 320]);
      const raw: Readonly<Record<string, ort.Tensor>> = await session.run({ input });
      expect(Object.keys(outputs).sort()).toEqual(['boxes', 'scores']);
      for (const output of ['boxes', 'scores']) {
        const [got, want] = [outputs[output] as Tensor, raw[output] as ort.Tensor];
        expect(got.dtype).toBe(want.type);
        expect(got.shape).toEqual(want.dims);
        expect(Buffer.compare(bytesOf(got.data), bytesOf(want.data)), output).toBe(0);
      }
      await session.release();

      const boxes = expected[name] as readonly Box[];
      expect(faces).toHaveLength(boxes.length);
      for (const [index, box] of boxes.entries()) {
        expect(overlap(faces[index] as Face, box)).toBeGreaterThan(0.9);
        expect(faces[index]?.score).toBeGreaterThan(0.98);
      }
    },
  );
});

function bytesOf(values: unknown): Uint8Array {
  const { buffer, byteOffset, byteLength } = values as Float32Array;
  return new Uint8Array(buffer, byteOffset, byteLength);
}

describe('the program', () => {
  const folder = mkdtempSync(join(tmpdir(), 'inlay-faces-'));
  const out = join(folder, 'out');
  afterEach(() => rmSync(out, { recursive: true, force: true }));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const text = join(folder, 'text.jpg');
  const image = join(folder, 'image.png');
  writeFileSync(text, 'This is no photograph.');
  writeFileSync(image, encodePng(blank(8, 8)));

  const run = (...args: string[]): { status: number | null; stdout: string; stderr: string } =>
    spawnSync(process.execPath, [fileURLToPath(new URL('main.mjs', example)), ...args], { encoding: 'utf8' });

  it.each([
    { it: 'no arguments', args: [], status: 2, says: /^Usage: .*give a model and at least one image/ },
    { it: 'a model alone', args: [text, '--out', out], status: 2, says: /^Usage: / },
    { it: 'no folder to write to', args: [text, image], status: 2, says: /^Usage: .*--out/ },
    { it: 'an unknown option', args: ['--blur', text, image], status: 2, says: /^Usage: .*--blur/ },
    {
      it: 'a score that is no probability',
      args: [text, image, '--out', out, '--score', '70'],
      status: 2,
      says: /"70" is no number between 0 and 1/,
    },
    {
      it: 'two images for one file',
      args: [text, image, 'other/image.jpg', '--out', out],
      status: 2,
      says: /two images would become .*image-faces\.png/,
    },
    {
      it: 'no such model',
      args: [join(folder, 'none.onnx'), image, '--out', out],
      status: 1,
      says: /none\.onnx/,
    },
    { it: 'text as model', args: [text, image, '--out', out], status: 1, says: /text\.jpg/ },
  ])('says in one line what is wrong with $it', ({ args, status, says }) => {
    expectRefusal(run(...args), status, says);
  });

  it.skipIf(!isHere).each([
    { it: 'no such image', path: join(folder, 'none.jpg'), says: /none\.jpg cannot be read \(ENOENT\)/ },
    { it: 'a folder as image', path: folder, says: /cannot be read \(EISDIR\)/ },
    { it: 'text as image', path: text, says: /text\.jpg is not a JPEG or PNG file/ },
  ])('says in one line what is wrong with $it, and writes nothing', ({ path, says }) => {
    expectRefusal(run(network, path, '--out', out), 1, says);
    expect(existsSync(out)).toBe(false);
  });

  it.skipIf(!isHere)('says in one line that it cannot write where a file is in the way', () => {
    expectRefusal(run(network, image, '--out', text), 1, /cannot be written/);
  });

  it.skipIf(!isHere)('writes the photographs with boxes and prints the faces', () => {
    const paths = photographs.map((name) => fileURLToPath(new URL(name, data)));
    const table = run(network, ...paths, '--out', out);
    expect(table).toMatchObject({ status: 0, stderr: '' });
    expect(table.stdout).toMatch(/portrait\.jpg +│ +1 │ 0\.993 │/);
    expect(table.stdout).toMatch(/wolves\.jpg +│ none │/);
    expect(readdirSync(out).sort()).toEqual(photographs.map((name) => name.replace('.jpg', '-faces.png')));

    for (const [index, name] of photographs.entries()) {
      const before = decodeImage(readFileSync(paths[index] as string)) as Image;
      const after = PNG.sync.read(readFileSync(join(out, name.replace('.jpg', '-faces.png'))));
      expect([after.width, after.height]).toEqual([before.width, before.height]);
      expect(Buffer.compare(before.data, after.data) === 0).toBe(name === 'wolves.jpg');
    }

    const json = run(network, ...paths, '--out', out, '--json', '--score', '0.6');
    const report = JSON.parse(json.stdout) as { path: string; faces: Face[] }[];
    expect(report.map(({ faces }) => faces.length)).toEqual([2, 1, 0]);
  });
});

function expectRefusal(
  result: { status: number | null; stdout: string; stderr: string },
  status: number,
  says: RegExp,
): void {
  expect(result.stderr).toMatch(says);
  expect(result.stderr).toMatch(/^[^\n]+\.\n$/);
  expect(result.stdout).toBe('');
  expect(result.status).toBe(status);
}
