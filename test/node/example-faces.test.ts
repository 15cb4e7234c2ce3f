import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { createInlay, Tensor, type Feeds, type Model, type TensorMap } from 'inlay';
import { createGraph, encodeModel } from 'inlay/onnx';
import { imageToTensor, nonMaximumSuppression } from 'inlay/process';
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
  readonly drawBox: (image: Image, box: Box) => void;
  readonly detectFaces: (model: Pick<Model, 'run'>, image: Image, minScore: number) => Promise<Face[]>;
  readonly toFaces: (scores: Float32Array, boxes: Float32Array, image: Image, minScore: number) => Face[];
}

const example = new URL('../../examples/faces/', import.meta.url);
const { decodeImage, encodePng, drawBox, detectFaces, toFaces } = Object.assign(
  {},
  ...(await Promise.all(
    ['image.mjs', 'draw.mjs', 'detect.mjs'].map((file) => import(new URL(file, example).href)),
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

/** Intersection over union. */
function overlap(a: Box, b: Box): number {
  const areaOf = ({ left, top, right, bottom }: Box): number =>
    Math.max(0, right - left) * Math.max(0, bottom - top);
  const shared = areaOf({
    left: Math.max(a.left, b.left),
    top: Math.max(a.top, b.top),
    right: Math.min(a.right, b.right),
    bottom: Math.min(a.bottom, b.bottom),
  });
  return shared / (areaOf(a) + areaOf(b) - shared);
}

describe('decoding the outputs', () => {
  it('takes places that reach the score, the surest first, in pixels, cut at the borders of the image', () => {
    const scores = new Float32Array([0.5, 0.5, 0.25, 0.75, 0, 1]);
    const boxes = new Float32Array([0, 0, 1, 1, 0.25, 0.5, 0.5, 0.75, -0.5, -1, 1.5, 2]);
    expect(toFaces(scores, boxes, blank(400, 100), 0.75)).toEqual([
      face(0, 0, 400, 100, 1),
      face(100, 50, 200, 75, 0.75),
    ]);
  });

  it('keeps the surest of places that overlap by more than 30 %', () => {
    const scores = new Float32Array([0, 0.75, 0, 0.875, 0, 1]);
    const boxes = new Float32Array([0, 0, 0.25, 1, 0, 0, 0.375, 1, 0, 0, 1, 1]);
    expect(toFaces(scores, boxes, blank(8, 8), 0.5)).toEqual([face(0, 0, 8, 8, 1), face(0, 0, 2, 8, 0.75)]);
  });
});

describe('images', () => {
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
      const planes = await planesOf(image);
      const seen = (feeds['input'] as Tensor<'float32'>).data;
      expect(distance(seen, planes)).toBeLessThan(MAX_DISTANCE);
      const input = new ort.Tensor('float32', seen, [1, 3, 240, 320]);
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

/** ONNX Runtime computes positions in float32: at pixel 640, 4e-5 of a pixel, or 255 / 128 times as much of a value. */
const MAX_DISTANCE = 2e-4;

function distance(got: Float32Array, expected: Float32Array): number {
  if (got.length !== expected.length) return Infinity;
  return got.reduce((most, value, i) => Math.max(most, Math.abs(value - (expected[i] as number))), 0);
}

/** What the network shall see, as ONNX Resize makes it. */
async function planesOf({ width, height, data: pixels }: Image): Promise<Float32Array> {
  const graph = createGraph({ name: 'planes', opset: 18 });
  graph.input('image', 'float32', [1, 3, height, width]);
  graph.initializer('sizes', new Tensor('int64', [4], BigInt64Array.of(1n, 3n, 240n, 320n)));
  graph.initializer('mean', new Tensor('float32', [], Float32Array.of(127)));
  graph.initializer('std', new Tensor('float32', [], Float32Array.of(128)));
  const resize = { mode: 'linear', coordinate_transformation_mode: 'half_pixel' };
  const resized = graph.node('Resize', ['image', '', '', 'sizes'], resize);
  const shifted = graph.node('Sub', [resized, 'mean']);
  graph.node('Div', [shifted, 'std'], undefined, { outputs: ['planes'] });
  graph.output('planes', 'float32', [1, 3, 240, 320]);
  const image = Float32Array.from(
    { length: 3 * width * height },
    (_, i) => pixels[(i % (width * height)) * 4 + Math.floor(i / (width * height))] as number,
  );
  const session = await ort.InferenceSession.create(encodeModel(graph.toModel()), { intraOpNumThreads: 1 });
  const outputs: Readonly<Record<string, ort.Tensor>> = await session.run({
    image: new ort.Tensor('float32', image, [1, 3, height, width]),
  });
  await session.release();
  return outputs['planes']?.data as Float32Array;
}

describe('preparing an image', () => {
  it('gives the planes that ONNX Resize gives, growing and shrinking', async () => {
    for (const [width, height] of [
      [1, 1],
      [97, 61],
      [641, 479],
    ] as const) {
      const pixels = Uint8Array.from({ length: width * height * 4 }, (_, i) => (i * 2_654_435_761) >>> 24);
      const image = { width, height, data: pixels };
      const size = { width: 320, height: 240, filter: 'bilinear' } as const;
      const { data: got } = imageToTensor(image, { size, scale: 1, mean: 127, std: 128 });
      expect(distance(got, await planesOf(image))).toBeLessThan(MAX_DISTANCE);
    }
  });
});

describe('choosing among boxes', () => {
  const anyBoxes = fc.array(
    fc.record({
      box: fc
        .tuple(...Array.from({ length: 4 }, () => fc.integer({ min: 0, max: 30 })))
        .map(([x = 0, y = 0, w = 0, h = 0]) => [x, y, x + w, y + h]),
      score: fc.integer({ min: 0, max: 40 }),
    }),
    { minLength: 1, maxLength: 40 },
  );

  it('keeps the boxes that ONNX NonMaxSuppression keeps', async () => {
    const graph = createGraph({ name: 'suppression', opset: 11 });
    graph.input('boxes', 'float32', [1, 'n', 4]);
    graph.input('scores', 'float32', [1, 1, 'n']);
    for (const name of ['iou', 'score']) graph.input(name, 'float32', [1]);
    graph.input('most', 'int64', [1]);
    const inputs = ['boxes', 'scores', 'most', 'iou', 'score'];
    graph.node('NonMaxSuppression', inputs, undefined, { outputs: ['kept'] });
    graph.output('kept', 'int64', ['kept', 3]);
    const session = await ort.InferenceSession.create(encodeModel(graph.toModel()), { intraOpNumThreads: 1 });
    // No small fractions, so that rounding does not decide.
    const threshold = fc.constantFrom(0.0123, 0.2345, 0.4567, 0.6789);
    await fc.assert(
      fc.asyncProperty(anyBoxes, threshold, fc.integer({ min: 1, max: 50 }), async (list, iou, most) => {
        const boxes = Float32Array.from(list.flatMap(({ box }) => box));
        const scores = Float32Array.from(list, ({ score }) => score);
        const outputs: Readonly<Record<string, ort.Tensor>> = await session.run({
          boxes: new ort.Tensor('float32', boxes, [1, list.length, 4]),
          scores: new ort.Tensor('float32', scores, [1, 1, list.length]),
          most: new ort.Tensor('int64', BigInt64Array.of(BigInt(most)), [1]),
          iou: new ort.Tensor('float32', Float32Array.of(iou), [1]),
          score: new ort.Tensor('float32', Float32Array.of(9.5), [1]),
        });
        const rows = outputs['kept']?.data as BigInt64Array;
        const expected = Array.from({ length: rows.length / 3 }, (_, row) => Number(rows[3 * row + 2]));
        const options = { iouThreshold: iou, scoreThreshold: 9.5, maxDetections: most };
        expect(nonMaximumSuppression({ boxes, scores }, options)).toEqual(expected);
      }),
      { numRuns: 300 },
    );
    await session.release();
  });
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
