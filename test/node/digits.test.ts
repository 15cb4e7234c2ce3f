import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import * as tf from '@tensorflow/tfjs';
import * as ort from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { createRandom, drawDigit, drawSet, SIDE } from '../../examples/digits/draw.mjs';
import { evaluate } from '../../examples/digits/evaluate.mjs';
import { exportModel } from '../../examples/digits/export.mjs';
import { createWeights, NETWORKS, toLogits } from '../../examples/digits/networks.mjs';
import { train } from '../../examples/digits/train.mjs';
import { parseModel, signatureOf } from '../../src/onnx/index.ts';

const AREA = SIDE * SIDE;

describe('drawing', () => {
  it('gives the same pixels for a seed on every machine', () => {
    const { labels, pixels } = drawSet(2026, 64);
    expect(hashOf(pixels)).toBe('bc1ba5a67157d93fce5f337e4a3c878a06e38ee4b5f81d92f84c08cbe64ee7cf');
    expect([...labels.subarray(0, 10)]).toEqual([3, 7, 3, 7, 9, 9, 5, 1, 3, 5]);
  });

  it('begins a longer set with the digits of a shorter one', () => {
    const [long, short] = [drawSet(5, 20), drawSet(5, 8)];
    expect(long.pixels.slice(0, 8 * AREA)).toEqual(short.pixels);
    expect(long.labels.slice(0, 8)).toEqual(short.labels);
  });

  it('spreads labels evenly', () => {
    const counts = Array.from({ length: 10 }, () => 0);
    for (const label of drawSet(11, 5_000).labels) counts[label] = (counts[label] as number) + 1;
    // Chi-squared with 9 degrees of freedom exceeds 27.9 once in a thousand seeds.
    const distance = counts.reduce((sum, count) => sum + (count - 500) ** 2 / 500, 0);
    expect(distance).toBeLessThan(27.9);
  });

  it('never draws the same image twice', () => {
    const random = createRandom(3);
    for (let label = 0; label < 10; label += 1) {
      const drawn = Array.from({ length: 50 }, () => hashOf(drawDigit(random, label).pixels));
      expect(new Set(drawn).size).toBe(50);
    }
  });

  it('gives different sets for different seeds', () => {
    expect(drawSet(1, 10).pixels).not.toEqual(drawSet(2, 10).pixels);
  });

  it('keeps ink in [0, 1] and leaves most of the paper white', () => {
    const { pixels } = drawSet(13, 200);
    expect(pixels.every((ink) => ink >= 0 && ink <= 1)).toBe(true);
    const mean = pixels.reduce((sum, ink) => sum + ink, 0) / pixels.length;
    expect(mean).toBeGreaterThan(0.05);
    expect(mean).toBeLessThan(0.25);
  });

  it('refuses a label that is no digit', () => {
    expect(() => drawDigit(createRandom(1), 10)).toThrow(RangeError);
  });
});

describe.each([
  { version: '1.0.0', atLeast: 0.95 },
  { version: '1.1.0', atLeast: 0.98 },
])('model $version', ({ version, atLeast }) => {
  const load = (): Promise<Uint8Array> =>
    readFile(new URL(`../../examples/digits/digits-${version}.onnx`, import.meta.url));

  it('reads fresh digits as well as its metadata claims', async () => {
    const bytes = await load();
    const claimed = Number(metadataOf(bytes)['accuracy']);
    const { accuracy } = await evaluate(bytes, { count: 5_000, seed: 8_675_309 });
    expect(claimed).toBeGreaterThanOrEqual(atLeast);
    expect(accuracy).toBeGreaterThanOrEqual(atLeast);
    expect(Math.abs(accuracy - claimed)).toBeLessThan(0.01);
  });

  it('says how it was made', async () => {
    expect(metadataOf(await load())).toEqual({
      description: expect.stringMatching(/digit/),
      version,
      accuracy: expect.stringMatching(/^0\.9\d*$/),
      accuracy_samples: '10000',
      accuracy_seed: '1000003',
      training_samples: expect.stringMatching(/^\d+$/),
      training_seed: '1',
      inlay_version: expect.stringMatching(/^\d+\.\d+\.\d+/),
    });
  });

  it('takes images and gives logits, in at most 400 kB', async () => {
    const bytes = await load();
    expect(bytes.length).toBeLessThanOrEqual(400_000);
    expect(signatureOf(parseModel(bytes))).toEqual({
      inputs: [{ name: 'image', dtype: 'float32', shape: ['batch', 1, 28, 28] }],
      outputs: [{ name: 'logits', dtype: 'float32', shape: ['batch', 10] }],
    });
  });

  it('is trained to the same bytes each time', async () => {
    const options = { version, samples: 96, seed: 4, heldOut: { count: 50, seed: 6 } };
    const [once, again] = [await train(options), await train(options)];
    const other = await train({ ...options, seed: 5 });
    expect(hashOf(again.model)).toBe(hashOf(once.model));
    expect(hashOf(other.model)).not.toBe(hashOf(once.model));
  });

  it('gives in ONNX Runtime what the network gives', async () => {
    tf.enableProdMode();
    await tf.setBackend('cpu');
    const layers = NETWORKS[version] ?? [];
    const weights = createWeights(layers, 9);
    for (const { bias } of weights) bias.assign(tf.randomUniform(bias.shape, -1, 1, 'float32', 10));
    const { pixels } = drawSet(17, 5);
    const expected = toLogits(layers, weights, tf.tensor4d(pixels, [5, SIDE, SIDE, 1])).dataSync();
    const session = await ort.InferenceSession.create(exportModel(layers, weights, {}));
    const { logits } = await session.run({ image: new ort.Tensor('float32', pixels, [5, 1, SIDE, SIDE]) });
    const given = logits?.data as Float32Array;
    await session.release();
    expect(given.length).toBe(50);
    for (const [index, value] of given.entries()) expect(value).toBeCloseTo(expected[index] as number, 4);
  });
});

describe('training', () => {
  it('refuses a version, a number of samples or a seed that does not exist', async () => {
    await expect(train({ version: '9.9.9', samples: 10 })).rejects.toThrow(RangeError);
    await expect(train({ version: '1.0.0', samples: Number.NaN })).rejects.toThrow(RangeError);
    await expect(train({ version: '1.0.0', samples: 1, seed: 0.5 })).rejects.toThrow(RangeError);
  });
});

function metadataOf(bytes: Uint8Array): Record<string, string> {
  const { metadataProps = [] } = parseModel(bytes);
  return Object.fromEntries(metadataProps.map(({ key = '', value = '' }) => [key, value]));
}

function hashOf(data: Float32Array | Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}
