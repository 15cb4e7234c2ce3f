import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { decode } from 'jpeg-js';
import type { Browser, Page } from 'playwright';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { startExample, type RunningExample } from './example-fixture.ts';
import { describePages, startChromium } from './fixture.ts';

const data = fileURLToPath(new URL('../../../shared/data/', import.meta.url));
const images = fileURLToPath(new URL('../../docs/images', import.meta.url));
const network = join(data, 'ultraface-rfb-320.onnx');
const portrait = join(data, 'portrait.jpg');
const isHere = [network, portrait].every((file) => existsSync(file));
if (!isHere) console.warn('Skipped: the photograph and the model of ../shared/data are not here.');

/** A film of one second that shows a photograph, in the format that Chromium takes for a camera (YUV4MPEG2, 4:2:0). */
function toFilm(jpeg: Uint8Array): Uint8Array {
  const photo = decode(jpeg, { useTArray: true });
  const [width, height] = [photo.width & ~1, photo.height & ~1];
  const luma = new Uint8Array(width * height);
  const [blue, red] = [new Uint8Array(luma.length / 4), new Uint8Array(luma.length / 4)];
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const at = 4 * (row * photo.width + column);
      const [r, g, b] = photo.data.subarray(at, at + 3) as unknown as [number, number, number];
      // ITU-R BT.601, studio range.
      luma[row * width + column] = 16 + 0.257 * r + 0.504 * g + 0.098 * b;
      const chroma = (row >> 1) * (width / 2) + (column >> 1);
      blue[chroma] = 128 - 0.148 * r - 0.291 * g + 0.439 * b;
      red[chroma] = 128 + 0.439 * r - 0.368 * g - 0.071 * b;
    }
  }
  const frame = [Buffer.from('FRAME\n'), luma, blue, red];
  const head = Buffer.from(`YUV4MPEG2 W${width} H${height} F30:1 Ip A1:1 C420\n`);
  return Buffer.concat([head, ...Array.from({ length: 30 }, () => frame).flat()]);
}

const { followFrames } = (await import(
  new URL('../../examples/browser-camera/app/frames.js', import.meta.url).href
)) as {
  followFrames(
    video: object,
    work: (counts: { readonly seen: number; readonly dropped: number }) => Promise<void>,
  ): () => void;
};

describe('what follows the frames of a video', () => {
  /** A video whose frames are shown by hand. */
  const createVideo = () => {
    const callbacks = new Map<number, (now: number, frame: { readonly presentedFrames: number }) => void>();
    let handle = 0;
    let presentedFrames = 100;
    return {
      requestVideoFrameCallback: (callback: (now: number, frame: { presentedFrames: number }) => void) => {
        handle += 1;
        callbacks.set(handle, callback);
        return handle;
      },
      cancelVideoFrameCallback: (cancelled: number) => callbacks.delete(cancelled),
      show: () => {
        presentedFrames += 1;
        const due = [...callbacks.values()];
        callbacks.clear();
        for (const callback of due) callback(0, { presentedFrames });
      },
    };
  };

  it('looks at the newest frame when it is free, and leaves out those that came meanwhile', async () => {
    const video = createVideo();
    const looks: { readonly seen: number; readonly dropped: number }[] = [];
    let finish = (): void => {};
    const stop = followFrames(video, (counts) => {
      looks.push(counts);
      return new Promise((resolve) => {
        finish = resolve;
      });
    });
    for (let i = 0; i < 4; i += 1) video.show();
    expect(looks).toEqual([{ seen: 1, dropped: 0 }]);
    finish();
    await new Promise((resolve) => setImmediate(resolve));
    video.show();
    video.show();
    expect(looks.slice(1)).toEqual([{ seen: 5, dropped: 3 }]);
    finish();
    await new Promise((resolve) => setImmediate(resolve));
    stop();
    video.show();
    expect(looks).toHaveLength(2);
  });
});

describe.skipIf(!isHere)('the page that finds faces', () => {
  describePages('in Chromium', () => {
    let browser: Browser;
    let example: RunningExample;
    let folder: string;
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'inlay-camera-'));
      const film = join(folder, 'camera.y4m');
      await writeFile(film, toFilm(await readFile(portrait)));
      const camera = ['--use-fake-device-for-media-stream', `--use-file-for-fake-video-capture=${film}`];
      [browser, example] = await Promise.all([
        startChromium(camera),
        startExample('browser-camera', '--model', network),
      ]);
    });
    afterAll(async () => {
      await Promise.all([browser?.close(), example?.stop()]);
      await rm(folder, { recursive: true, force: true });
    });

    const open = async (permissions: readonly string[]): Promise<{ page: Page; faults: string[] }> => {
      const context = await browser.newContext({ permissions: [...permissions] });
      onTestFinished(() => context.close());
      const page = await context.newPage();
      const faults: string[] = [];
      page.on('pageerror', (error) => faults.push(String(error)));
      page.on('console', (message) => {
        if (message.type() === 'error') faults.push(message.text());
      });
      await page.goto(example.facts['url'] as string);
      await expect.poll(() => page.isEnabled('#camera'), { timeout: 25_000 }).toBe(true);
      return { page, faults };
    };
    const textOf = (page: Page, id: string) => () => page.textContent(`#${id}`);

    it('finds the face that the camera shows, and lets go of the camera', async () => {
      const { page, faults } = await open(['camera']);
      await page.click('#camera');
      await expect.poll(textOf(page, 'faces'), { timeout: 20_000 }).toBe('1');
      await expect.poll(textOf(page, 'rate'), { timeout: 20_000 }).toMatch(/^[1-9]\d* per second$/);
      expect(await page.evaluate(isBoxed)).toBe(true);

      await page.click('#stop');
      expect(await page.textContent('#message')).toBe('Stopped.');
      expect(await page.evaluate(() => document.querySelector('video')?.srcObject)).toBeNull();
      expect(await page.evaluate(isBoxed)).toBe(false);
      await page.click('#camera');
      await expect.poll(textOf(page, 'message')).toBe('');
      expect(faults).toEqual([]);
    });

    // Not a test: it makes the picture of the documentation, when it is asked for.
    if (process.env['INLAY_SCREENSHOTS'] !== undefined) {
      it('has its picture taken', async () => {
        const { page } = await open(['camera']);
        await page.setViewportSize({ width: 1040, height: 860 });
        await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce' });
        await page.click('#camera');
        await expect.poll(textOf(page, 'rate'), { timeout: 20_000 }).toMatch(/^[1-9]\d* per second$/);
        await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 3000)));
        await page.screenshot({ path: `${images}/browser-camera.jpg`, type: 'jpeg', quality: 80 });
      });
    }

    it('says what to do when the camera is refused, and goes on', async () => {
      const { page } = await open([]);
      await page.click('#camera');
      await expect.poll(textOf(page, 'message')).toContain('was not allowed');
      await page.context().grantPermissions(['camera']);
      await page.click('#camera');
      await expect.poll(textOf(page, 'faces'), { timeout: 20_000 }).toBe('1');
    });

    it('plays a video that is chosen, and refuses what is none', async () => {
      const { page } = await open(['camera']);
      const video = await page.evaluate(record);
      const buffer = Buffer.from(video, 'base64');
      await page.setInputFiles('#file', { name: 'holiday.webm', mimeType: 'video/webm', buffer });
      await expect.poll(textOf(page, 'faces'), { timeout: 20_000 }).toBe('1');
      await page.setInputFiles('#file', {
        name: 'letter.webm',
        mimeType: 'video/webm',
        buffer: Buffer.from('This is no video.'),
      });
      await expect.poll(textOf(page, 'message')).toBe('letter.webm is no video that this browser can play.');
    });
  });
});

/** Whether anything is drawn over the video. */
function isBoxed(): boolean {
  const canvas = document.querySelector('canvas') as HTMLCanvasElement;
  const context = canvas.getContext('2d') as CanvasRenderingContext2D;
  return context.getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0);
}

/** Records what the camera shows. @returns WebM in base64. */
async function record(): Promise<string> {
  const stream = await navigator.mediaDevices.getUserMedia({ video: true });
  const recorder = new MediaRecorder(stream, { mimeType: 'video/webm;codecs=vp8' });
  const parts: Blob[] = [];
  recorder.ondataavailable = ({ data: part }) => parts.push(part);
  const stopped = new Promise((resolve) => {
    recorder.onstop = resolve;
  });
  recorder.start();
  await new Promise((resolve) => setTimeout(resolve, 1500));
  recorder.stop();
  await stopped;
  for (const track of stream.getTracks()) track.stop();
  const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
}
