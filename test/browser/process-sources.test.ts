import { afterEach, describe, expect, it } from 'vitest';
import { isInlayError } from '../../src/core/errors.ts';
import {
  audioToMono,
  fitImage,
  imagesToTensor,
  imageToTensor,
  mixToMono,
  readPixels,
  resampleAudio,
  resizeImage,
  type DrawableImage,
  type ImageFilter,
  type ImageSource,
} from '../../src/process/index.ts';

const opened: { close(): void }[] = [];
const shown: HTMLElement[] = [];

afterEach(() => {
  for (const one of opened.splice(0)) one.close();
  for (const one of shown.splice(0)) one.remove();
});

/** Waves, a hard-edged board and a ramp: what scaling filters disagree about. */
function pattern(width: number, height: number): ImageData {
  const data = new Uint8ClampedArray(width * height * 4);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      data.set(
        [
          128 + 90 * Math.sin(x / 23) * Math.cos(y / 17),
          ((x >> 4) + (y >> 4)) % 2 === 0 ? 40 : 200,
          (x * 255) / width,
          255,
        ],
        (y * width + x) * 4,
      );
    }
  }
  return new ImageData(data, width, height);
}

function canvasOf(pixels: ImageData): OffscreenCanvas {
  const canvas = new OffscreenCanvas(pixels.width, pixels.height);
  canvas.getContext('2d')?.putImageData(pixels, 0, 0);
  return canvas;
}

async function bitmapOf(pixels: ImageData): Promise<ImageBitmap> {
  const bitmap = await createImageBitmap(pixels);
  opened.push(bitmap);
  return bitmap;
}

function frameOf(pixels: ImageData, init: VideoFrameInit = { timestamp: 0 }): VideoFrame {
  const frame = new VideoFrame(canvasOf(pixels), init);
  opened.push(frame);
  return frame;
}

function elementOf(pixels: ImageData): HTMLCanvasElement {
  const canvas = document.createElement('canvas');
  canvas.width = pixels.width;
  canvas.height = pixels.height;
  canvas.getContext('2d')?.putImageData(pixels, 0, 0);
  return canvas;
}

async function pictureOf(pixels: ImageData): Promise<HTMLImageElement> {
  const image = new Image();
  image.src = elementOf(pixels).toDataURL('image/png');
  await image.decode();
  return image;
}

async function videoOf(pixels: ImageData): Promise<HTMLVideoElement> {
  const video = document.createElement('video');
  video.muted = true;
  const canvas = elementOf(pixels);
  document.body.append(video);
  shown.push(video);
  const loaded = new Promise((resolve) => video.addEventListener('loadeddata', resolve, { once: true }));
  video.srcObject = canvas.captureStream();
  // A stream of a canvas begins with its first change.
  canvas.getContext('2d')?.putImageData(pixels, 0, 0);
  await video.play();
  await loaded;
  return video;
}

function differ(one: ArrayLike<number>, other: ArrayLike<number>): { mean: number; most: number } {
  expect(one.length).toBe(other.length);
  let sum = 0;
  let most = 0;
  for (let at = 0; at < one.length; at += 1) {
    const distance = Math.abs((one[at] as number) - (other[at] as number));
    sum += distance;
    most = Math.max(most, distance);
  }
  return { mean: sum / one.length, most };
}

function errorOf(task: () => unknown): unknown {
  try {
    task();
  } catch (error) {
    return error;
  }
  return undefined;
}

const makers: Record<string, (pixels: ImageData) => DrawableImage | Promise<DrawableImage>> = {
  ImageBitmap: bitmapOf,
  VideoFrame: frameOf,
  OffscreenCanvas: canvasOf,
  HTMLCanvasElement: elementOf,
  HTMLImageElement: pictureOf,
};

describe.each(Object.entries(makers))('%s', (_name, make) => {
  const pixels = pattern(96, 64);

  it('becomes the tensor that its pixels become', async () => {
    const source = await make(pixels);
    const options = { scale: 1, dtype: 'uint8' } as const;
    const tensor = imageToTensor(source, options);
    expect(tensor.shape).toEqual([1, 3, 64, 96]);
    expect(differ(tensor.data, imageToTensor(pixels, options).data).most).toBeLessThanOrEqual(2);
  });

  it('is resized as its pixels are where that is asked for', async () => {
    const source = await make(pixels);
    const options = { width: 48, height: 48, fit: 'contain', exact: true, background: 114 } as const;
    const resized = resizeImage(source, options);
    expect(differ(resized.data, resizeImage(pixels, options).data).most).toBeLessThanOrEqual(2);
    expect(resized.fit.toSource(24, 24)).toEqual({ x: 48, y: 32 });
  });

  it('gives its pixels', async () => {
    const read = await readPixels(await make(pixels));
    expect(read).toMatchObject({ width: 96, height: 64 });
    expect(differ(read.data, pixels.data).most).toBeLessThanOrEqual(2);
  });
});

describe('a <video>', () => {
  it('gives the frame that it shows', async () => {
    const pixels = pattern(64, 48);
    const video = await videoOf(pixels);
    const tensor = imageToTensor(video, { scale: 1 });
    expect(tensor.shape).toEqual([1, 3, 48, 64]);
    // Colours of a video are sampled at half the resolution.
    expect(differ(tensor.data, imageToTensor(pixels, { scale: 1 }).data).mean).toBeLessThan(6);
  });
});

describe('a drawn image', () => {
  it.each<[ImageFilter, number, number, number, number]>([
    ['nearest', 640, 480, 224, 224],
    ['nearest', 100, 75, 224, 224],
    ['bilinear', 640, 480, 224, 224],
    ['bilinear', 100, 75, 224, 224],
    ['area', 640, 480, 224, 224],
    ['area', 1280, 720, 224, 224],
    ['area', 448, 448, 224, 224],
    ['area', 100, 75, 224, 224],
  ])('comes close to %s from %i × %i to %i × %i', (filter, width, height, toWidth, toHeight) => {
    const pixels = pattern(width, height);
    const options = { width: toWidth, height: toHeight, filter };
    const drawn = resizeImage(canvasOf(pixels), options);
    const { mean } = differ(drawn.data, resizeImage(pixels, options).data);
    expect(mean).toBeLessThan(filter === 'area' ? 4 : 1);
  });

  it('has bars of the background, and lies where the fit says', () => {
    const white = new ImageData(new Uint8ClampedArray(80 * 40 * 4).fill(255), 80, 40);
    const options = { width: 40, height: 40, fit: 'contain', background: [10, 20, 30] } as const;
    const drawn = resizeImage(canvasOf(white), options);
    expect(drawn.fit).toMatchObject(
      JSON.parse(JSON.stringify(fitImage(white, options))) as Record<string, number>,
    );
    expect([...drawn.data]).toEqual([...resizeImage(white, options).data]);
    expect([...drawn.data.subarray(0, 4)]).toEqual([10, 20, 30, 255]);
  });

  it('is cut by cover where its pixels are', () => {
    const pixels = pattern(160, 80);
    const options = { width: 40, height: 40, fit: 'cover', align: 'start' } as const;
    const { mean } = differ(resizeImage(canvasOf(pixels), options).data, resizeImage(pixels, options).data);
    expect(mean).toBeLessThan(3);
  });

  it('stays transparent where it is, inside of bars and after another image', () => {
    void imageToTensor(canvasOf(pattern(20, 20)), { size: { width: 40, height: 40 } });
    const clear = new OffscreenCanvas(40, 20);
    clear.getContext('2d');
    const drawn = resizeImage(clear, { width: 40, height: 40, fit: 'contain', background: 255 });
    expect([...drawn.data.subarray(0, 4)]).toEqual([255, 255, 255, 255]);
    expect([...drawn.data.subarray(20 * 40 * 4, 20 * 40 * 4 + 4)]).toEqual([0, 0, 0, 0]);
    const again = resizeImage(clear, { width: 40, height: 40 });
    expect(again.data.every((value) => value === 0)).toBe(true);
  });

  it('owns its pixels', () => {
    const first = resizeImage(canvasOf(pattern(32, 32)), { width: 16, height: 16 });
    const copy = first.data.slice();
    void resizeImage(new OffscreenCanvas(32, 32), { width: 16, height: 16 });
    expect(first.data).toEqual(copy);
  });

  it('may share a batch with pixels', async () => {
    const pixels = pattern(32, 32);
    const images: ImageSource[] = [pixels, canvasOf(pixels), await bitmapOf(pattern(64, 16))];
    const batch = imagesToTensor(images, { size: { width: 8, height: 8 } });
    expect(batch.shape).toEqual([3, 3, 8, 8]);
    expect(() => imagesToTensor(images)).toThrow(/got 32 × 32 and 64 × 16; give a size/);
  });

  it('may be larger than the canvas that is kept', () => {
    const tensor = imageToTensor(canvasOf(pattern(1100, 1000)), { channels: 'gray' });
    expect(tensor.shape).toEqual([1, 1, 1000, 1100]);
  });
});

describe('a VideoFrame', () => {
  it('of planes becomes colours', async () => {
    // White in BT.601 of limited range: Y 235, U and V 128.
    const data = new Uint8Array(16 * 16 * 1.5).fill(128).fill(235, 0, 256);
    const frame = new VideoFrame(data, { format: 'I420', codedWidth: 16, codedHeight: 16, timestamp: 0 });
    opened.push(frame);
    const read = await readPixels(frame);
    expect(Math.min(...read.data)).toBeGreaterThan(250);
    expect(Math.min(...imageToTensor(frame, { dtype: 'uint8' }).data)).toBeGreaterThan(250);
  });

  it('is read at the size at which it is seen', async () => {
    const frame = frameOf(pattern(32, 16), { timestamp: 0, displayWidth: 64, displayHeight: 16 });
    const read = await readPixels(frame);
    expect(read).toMatchObject({ width: 64, height: 16 });
    expect(read.data).toHaveLength(64 * 16 * 4);
    expect(fitImage(frame, { width: 64, height: 64, fit: 'contain' }).offsetY).toBe(24);
  });

  it('whose pixels are cut is read without its margin', async () => {
    const pixels = pattern(32, 32);
    const frame = frameOf(pixels, { timestamp: 0, visibleRect: { x: 8, y: 8, width: 16, height: 8 } });
    const read = await readPixels(frame);
    expect(read).toMatchObject({ width: 16, height: 8 });
    expect([...read.data.subarray(0, 3)]).toEqual([
      ...pixels.data.subarray((8 * 32 + 8) * 4, (8 * 32 + 8) * 4 + 3),
    ]);
  });
});

describe('what cannot be read', () => {
  const uses: [string, (source: ImageSource) => unknown][] = [
    ['imageToTensor', (source) => imageToTensor(source)],
    ['resizeImage', (source) => resizeImage(source, { width: 4, height: 4 })],
    ['fitImage', (source) => fitImage(source, { width: 4, height: 4 })],
  ];

  it.each(uses)('is refused by %s when it was closed', async (_name, use) => {
    const bitmap = await createImageBitmap(pattern(8, 8));
    bitmap.close();
    const frame = new VideoFrame(canvasOf(pattern(8, 8)), { timestamp: 0 });
    frame.close();
    for (const source of [bitmap, frame]) {
      expect(errorOf(() => use(source))).toMatchObject({
        name: 'InputError',
        code: 'ERR_INLAY_FEED_DETACHED',
        message: expect.stringContaining('closed or transferred') as string,
      });
      await expect(readPixels(source)).rejects.toMatchObject({ code: 'ERR_INLAY_FEED_DETACHED' });
    }
  });

  it.each(uses)('is refused by %s when it has no pixels', async (_name, use) => {
    const moved = new OffscreenCanvas(8, 8);
    structuredClone(moved, { transfer: [moved] });
    const broken = new Image();
    broken.src = 'data:image/png;base64,AAAA';
    await broken.decode().catch(() => {});
    const sources = [new OffscreenCanvas(0, 8), moved, new Image(), broken, document.createElement('video')];
    for (const source of sources) {
      const error = errorOf(() => use(source));
      expect(isInlayError(error) && error.code).toMatch(/FEED_VALUE/);
    }
  });

  it('does not poison what is read afterwards when it comes from another origin', async () => {
    // The same server under its other name.
    const host = location.hostname === 'localhost' ? '127.0.0.1' : 'localhost';
    const { pathname } = new URL('./fixtures/square.svg?no-inline', import.meta.url);
    const picture = new Image();
    picture.src = `http://${host}:${location.port}${pathname}`;
    await picture.decode();
    const options = { size: { width: 8, height: 8 } };
    expect(errorOf(() => imageToTensor(picture, options))).toMatchObject({
      code: 'ERR_INLAY_FEED_VALUE',
      message: expect.stringContaining('crossOrigin') as string,
    });
    expect(imageToTensor(canvasOf(pattern(8, 8)), options).shape).toEqual([1, 3, 8, 8]);
  });

  it('is a TypeError when it is no image at all', () => {
    expect(() => imageToTensor(document.body as never)).toThrow(TypeError);
    expect(() => imageToTensor(null as never)).toThrow(TypeError);
  });
});

describe('an AudioBuffer', () => {
  const stereo = (): AudioBuffer => {
    const audio = new AudioBuffer({ numberOfChannels: 2, length: 44_100, sampleRate: 44_100 });
    for (const channel of [0, 1]) {
      const samples = audio.getChannelData(channel);
      for (let at = 0; at < samples.length; at += 1) {
        samples[at] = Math.sin((2 * Math.PI * 440 * at) / 44_100) * (channel === 0 ? 0.75 : 0.25);
      }
    }
    return audio;
  };

  it('becomes one channel at the rate of the model', () => {
    const audio = stereo();
    const mono = mixToMono([audio.getChannelData(0), audio.getChannelData(1)]);
    expect(audioToMono(audio)).toEqual(mono);
    const speech = audioToMono(audio, { sampleRate: 16_000 });
    expect(speech).toEqual(resampleAudio(mono, { from: 44_100, to: 16_000 }));
    const inner = Array.from({ length: 1000 }, (_, at) => at + 1000);
    const tone = inner.map((at) => 0.5 * Math.sin((2 * Math.PI * 440 * at) / 16_000));
    expect(
      differ(
        inner.map((at) => speech[at] as number),
        tone,
      ).most,
    ).toBeLessThan(1e-3);
  });

  it('is not changed and shares nothing with the result', () => {
    const audio = new AudioBuffer({ length: 4, sampleRate: 16_000 });
    audioToMono(audio).fill(1);
    expect([...audio.getChannelData(0)]).toEqual([0, 0, 0, 0]);
  });

  it('is refused when its channels were transferred', () => {
    const audio = stereo();
    structuredClone(null, { transfer: [audio.getChannelData(1).buffer] });
    expect(errorOf(() => audioToMono(audio))).toMatchObject({ code: 'ERR_INLAY_FEED_DETACHED' });
  });

  it('needs a sample rate that there is', () => {
    expect(() => audioToMono(stereo(), { sampleRate: 0 })).toThrow(RangeError);
  });
});
