import { describe, expect, it } from 'vitest';
import { createLoadListener, type LoadProgress } from '../../../src/engine/progress.ts';
import { createInlay, type InlayOptions, type Inlay } from '../../../src/index.ts';
import { webPlatform } from '../../../src/platform.ts';
import { fakeBackend } from './fakes.ts';

const SIZE = 1000;

/** An Inlay whose network has one file of {@link SIZE} bytes, in four pieces. */
function start(options: InlayOptions = {}, headers: Record<string, string> = {}): Inlay {
  const body = (): ReadableStream<Uint8Array> => {
    let left = 4;
    return new ReadableStream({
      pull: (controller) => {
        left -= 1;
        controller.enqueue(new Uint8Array(SIZE / 4));
        if (left === 0) controller.close();
      },
    });
  };
  const platform = { ...webPlatform('test'), fetch: async () => new Response(body(), { headers }) };
  return createInlay({ ...options, platform, backends: [fakeBackend()] });
}

async function load(inlay: Inlay): Promise<LoadProgress[]> {
  const heard: LoadProgress[] = [];
  await inlay.load('https://models.example/a.onnx', { onProgress: (progress) => heard.push(progress) });
  await inlay.close();
  return heard;
}

describe('progress of a load', () => {
  it('goes from the first byte to the first run', async () => {
    const heard = await load(start({}, { 'content-length': String(SIZE) }));
    expect(heard.slice(0, 4)).toEqual(
      [250, 500, 750, 1000].map((loadedBytes) => ({ phase: 'download', loadedBytes, totalBytes: SIZE })),
    );
    expect(heard.slice(4)).toEqual(
      ['open', 'warm-up'].map((phase) => ({ phase, loadedBytes: SIZE, totalBytes: SIZE })),
    );
  });

  it('says no total where the server does not, or says the length of something else', async () => {
    for (const headers of [{}, { 'content-length': '70', 'content-encoding': 'gzip' }]) {
      const [first] = await load(start({}, headers));
      expect(first).toEqual({ phase: 'download', loadedBytes: 250 });
    }
  });

  it('ends with the load: what is opened later is none of its business', async () => {
    const heard: string[] = [];
    const listener = createLoadListener(
      ({ phase }) => heard.push(phase),
      () => {},
    );
    listener.tell({ phase: 'open', loadedBytes: 1 });
    listener.end();
    listener.tell({ phase: 'warm-up', loadedBytes: 1 });
    expect(heard).toEqual(['open']);
  });

  it('does not end with a listener that throws', async () => {
    const warned: string[] = [];
    const logger = {
      debug: () => {},
      info: () => {},
      warn: (_: object, text: string) => warned.push(text),
      error: () => {},
    };
    const inlay = start({ logger });
    await inlay.load('https://models.example/a.onnx', {
      onProgress: () => {
        throw new Error('The bar is gone.');
      },
    });
    expect(warned).toContain('A listener for progress failed.');
    await inlay.close();
  });
});

describe('maxModelBytes', () => {
  it('refuses a larger model, before it comes in where the server says its size', async () => {
    for (const headers of [{ 'content-length': String(SIZE) }, {}]) {
      const inlay = start({ maxModelBytes: SIZE - 1 }, headers);
      const heard: LoadProgress[] = [];
      await expect(
        inlay.load('https://models.example/a.onnx', { onProgress: (progress) => heard.push(progress) }),
      ).rejects.toMatchObject({ code: 'ERR_INLAY_LENGTH' });
      expect(heard).toHaveLength('content-length' in headers ? 0 : 3);
      await inlay.close();
    }
  });

  it('lets one of exactly that size in', async () => {
    const inlay = start({ maxModelBytes: SIZE });
    await inlay.load('https://models.example/a.onnx');
    await inlay.close();
  });

  it.each([0, -1, NaN, '1'])('is a number above 0, not %s', (maxModelBytes) => {
    expect(() => start({ maxModelBytes: maxModelBytes as number })).toThrow(RangeError);
  });
});

describe('a model to load', () => {
  it.each([
    ['', 'got an empty text'],
    [new Blob(['onnx']), 'pass the bytes that its arrayBuffer() gives'],
    [new Response('onnx'), 'pass the bytes that its arrayBuffer() gives'],
  ])('is none of these: %o', async (reference, words) => {
    const inlay = start();
    await expect(inlay.load(reference as string)).rejects.toThrow(words);
    await inlay.close();
  });
});
