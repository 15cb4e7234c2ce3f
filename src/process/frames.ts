import { checkChoice, checkInteger } from './arguments.ts';

/** Options of {@link frameAudio}. */
export interface FrameOptions {
  /** Samples per frame. */
  readonly frameLength: number;
  /** Samples from the beginning of one frame to that of the next. Default: `frameLength`, without overlap. */
  readonly hopLength?: number;
  /**
   * What happens to samples at the end that do not fill a frame: `none` leaves them out, `end` fills a last frame up with
   * zeros. Default `none`.
   */
  readonly pad?: 'none' | 'end';
}

/** Options of {@link hannWindow}. */
export interface HannOptions {
  /** Whether the window goes on into its own repetition, as spectra need it; otherwise it is symmetric. Default true. */
  readonly periodic?: boolean;
}

/**
 * Cuts samples into frames of one length, which may overlap.
 * @returns views of `samples`, not copies, except for a last frame that was filled up. With `pad: 'end'`, every sample that
 * is not skipped by a longer hop is in a frame; no samples give no frames.
 * @throws `RangeError` for an option out of range.
 * @example
 * import { frameAudio } from 'inlay/process';
 * const frames = frameAudio(pixels, { frameLength: 400, hopLength: 160, pad: 'end' });
 */
export function frameAudio(samples: Float32Array, options: FrameOptions): Float32Array[] {
  const frameLength = checkInteger('frameLength', options.frameLength);
  const hopLength = checkInteger('hopLength', options.hopLength ?? frameLength);
  const pad = checkChoice('pad', options.pad ?? 'none', ['none', 'end']);
  const hops = (samples.length - frameLength) / hopLength;
  const whole = Math.max(Math.floor(hops) + 1, 0);
  const frames = Array.from({ length: whole }, (_, index) =>
    samples.subarray(index * hopLength, index * hopLength + frameLength),
  );
  const rest = samples.subarray(whole * hopLength);
  const covered = whole === 0 ? 0 : (whole - 1) * hopLength + frameLength;
  if (pad === 'end' && rest.length > 0 && covered < samples.length) {
    const last = new Float32Array(frameLength);
    last.set(rest);
    frames.push(last);
  }
  return frames;
}

/**
 * Gives the Hann window: `0.5 - 0.5 cos(2πi / n)`, with `n` the length, or one less for a symmetric window.
 * @param length number of samples, at least 1.
 * @throws `RangeError` for a length out of range.
 * @example
 * import { hannWindow } from 'inlay/process';
 * const window = hannWindow(400);
 */
export function hannWindow(length: number, { periodic = true }: HannOptions = {}): Float32Array<ArrayBuffer> {
  checkInteger('length', length);
  if (length === 1) return Float32Array.of(1);
  const period = periodic ? length : length - 1;
  return Float32Array.from({ length }, (_, index) => 0.5 - 0.5 * Math.cos((2 * Math.PI * index) / period));
}
