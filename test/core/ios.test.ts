import { afterEach, describe, expect, it, vi } from 'vitest';
import { createInlay } from '../../src/index.ts';
import { isIos } from '../../src/ios.ts';
import { fakeBackend } from './engine/fakes.ts';

describe('isIos', () => {
  it.each([
    ['an iPhone', 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15', 'iPhone', 5],
    ['an iPad', 'Mozilla/5.0 (iPad; CPU OS 16_7 like Mac OS X) AppleWebKit/605.1.15', 'iPad', 5],
    ['an iPad that asks for desktop pages', 'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)', 'MacIntel', 5],
    ['Chrome on an iPhone', 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_5) CriOS/137.0', 'iPhone', 5],
  ])('knows %s', (_, userAgent, platform, maxTouchPoints) => {
    expect(isIos({ userAgent, platform, maxTouchPoints })).toBe(true);
  });

  it.each([
    ['a Mac', 'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)', 'MacIntel', 0],
    ['a PC with a touch screen', 'Mozilla/5.0 (Windows NT 10.0; Win64; x64)', 'Win32', 10],
    ['a phone with Android', 'Mozilla/5.0 (Linux; Android 16)', 'Linux armv8l', 5],
  ])('does not take %s for one', (_, userAgent, platform, maxTouchPoints) => {
    expect(isIos({ userAgent, platform, maxTouchPoints })).toBe(false);
  });

  it('does without a navigator that tells', () => {
    expect(isIos({})).toBe(false);
  });
});

describe('createInlay on iOS', () => {
  afterEach(() => {
    vi.unstubAllGlobals();
  });

  /** Providers on which a model is tried. */
  const triedWith = async (options: object): Promise<readonly string[]> => {
    vi.stubGlobal('navigator', { userAgent: 'iPhone', platform: 'iPhone', maxTouchPoints: 5 });
    const tried: string[] = [];
    const backend = fakeBackend({
      providers: [
        { name: 'webgpu', device: 'gpu' },
        { name: 'wasm', device: 'cpu' },
      ],
      onCreate: (provider) => {
        tried.push(provider);
      },
    });
    const inlay = createInlay({ ...options, backends: [backend] });
    await inlay.load(new Uint8Array(1));
    await inlay.close();
    return tried;
  };

  it('leaves the GPU alone unless the app asks for it', async () => {
    expect(await triedWith({})).toEqual(['wasm']);
    expect(await triedWith({ device: 'gpu' })).toEqual(['webgpu']);
  });

  it('takes an option that is undefined for one that is not given', async () => {
    expect(await triedWith({ device: undefined })).toEqual(['wasm']);
  });
});
