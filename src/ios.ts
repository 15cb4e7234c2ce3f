import type { InlayOptions } from './engine/inlay.ts';

/** The part of `navigator` that tells iOS. */
interface Browser {
  readonly platform?: string;
  readonly userAgent?: string;
  readonly maxTouchPoints?: number;
}

/** Whether this is a browser on iOS or iPadOS: there, all of them are WebKit. An iPad says that it is a Mac. */
export function isIos({ platform = '', userAgent = '', maxTouchPoints = 0 }: Browser): boolean {
  return /iPhone|iPad|iPod/.test(userAgent) || (platform === 'MacIntel' && maxTouchPoints > 1);
}

/**
 * Defaults on iOS. WebKit ends or reloads a page that takes too much memory, sooner with WebGPU and with threads, so that
 * models run on WebAssembly with one thread unless the app says otherwise, and large ones are refused before they are
 * downloaded.
 */
export const IOS: Required<Pick<InlayOptions, 'device' | 'intraOpThreads' | 'maxModelBytes'>> = {
  device: 'cpu',
  intraOpThreads: 1,
  maxModelBytes: 200 * 2 ** 20,
};
