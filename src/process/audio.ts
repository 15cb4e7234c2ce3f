import { InputError } from '../core/errors.ts';
import { mixToMono } from './mono.ts';
import { resampleAudio } from './resample.ts';

/** Decoded sound. An `AudioBuffer` fits as it is. */
export interface AudioSource {
  readonly numberOfChannels: number;
  /** Samples of each channel. */
  readonly length: number;
  /** Samples per second. */
  readonly sampleRate: number;
  getChannelData(channel: number): Float32Array;
}

/** Options of {@link audioToMono}. */
export interface AudioOptions {
  /** Samples per second that the result has, an integer. Default: those of the source. */
  readonly sampleRate?: number;
}

/**
 * Makes the input of a sound model from an `AudioBuffer`: the mean of its channels, at the model's sample rate, as
 * {@link mixToMono} and {@link resampleAudio} give it.
 *
 * Resampling takes about ten milliseconds per second of sound: in a page, do it in a worker, or decode with an
 * `OfflineAudioContext` of the model's sample rate.
 * @returns float32 `[samples]` between -1 and 1, in memory of its own.
 * @throws `RangeError` for a sample rate that is no positive integer; {@link InputError} `ERR_INLAY_FEED_DETACHED` if the
 * channels were transferred.
 * @example
 * import { audioToMono } from 'inlay/process';
 * const context = new OfflineAudioContext(1, 1, 48_000);
 * const sound = await context.decodeAudioData(new ArrayBuffer(0));
 * const input = audioToMono(sound, { sampleRate: 16_000 });
 */
export function audioToMono(audio: AudioSource, options: AudioOptions = {}): Float32Array<ArrayBuffer> {
  const channels = Array.from({ length: audio.numberOfChannels }, (_, channel) =>
    audio.getChannelData(channel),
  );
  if (channels.some(({ length }) => length !== audio.length)) {
    throw new InputError(
      'ERR_INLAY_FEED_DETACHED',
      'The channels of the sound were transferred; read it before that, or transfer a copy.',
    );
  }
  const mono = mixToMono(channels);
  const from = Math.round(audio.sampleRate);
  const to = options.sampleRate ?? from;
  return from === to ? mono : resampleAudio(mono, { from, to });
}
