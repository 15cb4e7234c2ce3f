import { Tensor } from '../core/tensor.ts';
import { checkChoice, checkInteger, checkRange } from './arguments.ts';
import { createTransform } from './fft.ts';
import { frameAudio, hannWindow } from './frames.ts';

/** Options of {@link melSpectrogram}. */
export interface MelOptions {
  /** Samples per second. */
  readonly sampleRate: number;
  /** Samples per frame, windowed by a periodic Hann window. Fast for products of small primes. Default 400. */
  readonly frameLength?: number;
  /** Samples from one frame to the next. Default 160. */
  readonly hopLength?: number;
  /** Points of the transform; frames are filled up with zeros at their end. Default: `frameLength`. */
  readonly fftLength?: number;
  /** Bands. Default 80. */
  readonly bands?: number;
  /** Where the lowest band begins, in Hz. Default 0. */
  readonly minFrequency?: number;
  /** Where the highest band ends, in Hz. Default: half the sample rate. */
  readonly maxFrequency?: number;
  /** Mel scale: Slaney's, as librosa and Whisper use it, or that of HTK. Default `slaney`. */
  readonly scale?: 'slaney' | 'htk';
  /** Whether bands are weighed by their width, so that all have the same area. Default true. */
  readonly normalize?: boolean;
  /** Whether frames are centred on multiples of the hop, the ends being reflected, as in librosa. Default true. */
  readonly center?: boolean;
  /** Exponent of the magnitudes: 1 for magnitude, 2 for power. Default 2. */
  readonly power?: number;
}

/**
 * Computes the energy of each mel band over time, without a logarithm.
 * @param samples one channel. With `center`, more than half a frame.
 * @returns float32 `[bands, frames]`; samples at the end that fill no frame are left out.
 * @throws `RangeError` for an option out of range, or too few samples to reflect.
 * @example
 * import { melSpectrogram } from 'inlay/process';
 * const mel = melSpectrogram(new Float32Array(16_000), { sampleRate: 16_000 }); // [80, 101]
 * const logMel = mel.data.map((energy) => Math.log10(Math.max(energy, 1e-10)));
 */
export function melSpectrogram(samples: Float32Array, options: MelOptions): Tensor<'float32'> {
  const sampleRate = checkInteger('sampleRate', options.sampleRate);
  const frameLength = checkInteger('frameLength', options.frameLength ?? 400);
  const hopLength = checkInteger('hopLength', options.hopLength ?? 160);
  const fftLength = checkInteger('fftLength', options.fftLength ?? frameLength, frameLength);
  const bands = checkInteger('bands', options.bands ?? 80);
  const high = checkRange('maxFrequency', options.maxFrequency ?? sampleRate / 2, 0, sampleRate / 2);
  const low = checkRange('minFrequency', options.minFrequency ?? 0, 0, high);
  if (low === high) throw new RangeError(`minFrequency must be below maxFrequency, both are ${low}.`);
  const power = checkRange('power', options.power ?? 2, 0, 8);
  const scale = checkChoice('scale', options.scale ?? 'slaney', ['slaney', 'htk']);
  const filters = createFilters(
    { sampleRate, fftLength, bands, low, high, ...MEL_SCALES[scale] },
    options.normalize ?? true,
  );

  const heard = (options.center ?? true) ? reflectEnds(samples, Math.floor(frameLength / 2)) : samples;
  const frames = frameAudio(heard, { frameLength, hopLength });
  const window = hannWindow(frameLength);
  const transform = createTransform(fftLength);
  const windowed = new Float64Array(fftLength);
  const energies = new Float64Array(Math.floor(fftLength / 2) + 1);
  const data = new Float32Array(bands * frames.length);
  frames.forEach((frame, time) => {
    for (let at = 0; at < frameLength; at += 1) windowed[at] = (frame[at] as number) * (window[at] as number);
    const { re, im } = transform(windowed);
    for (let bin = 0; bin < energies.length; bin += 1) {
      const energy = (re[bin] as number) ** 2 + (im[bin] as number) ** 2;
      energies[bin] = energy ** (power / 2);
    }
    filters.forEach(({ first, weights }, band) => {
      let sum = 0;
      for (let at = 0; at < weights.length; at += 1)
        sum += (weights[at] as number) * (energies[first + at] as number);
      data[band * frames.length + time] = sum;
    });
  });
  return new Tensor('float32', [bands, frames.length], data);
}

interface MelScale {
  readonly toMel: (hertz: number) => number;
  readonly toHertz: (mel: number) => number;
}

/** Slaney's scale is linear to 1000 Hz (200/3 Hz per mel), then 27 steps per factor 6.4 (Auditory Toolbox, 1998, §mfcc). */
const SLANEY_STEP = 27 / Math.log(6.4);

const MEL_SCALES: Readonly<Record<'slaney' | 'htk', MelScale>> = {
  slaney: {
    toMel: (hertz) => (hertz < 1000 ? (hertz * 3) / 200 : 15 + Math.log(hertz / 1000) * SLANEY_STEP),
    toHertz: (mel) => (mel < 15 ? (mel * 200) / 3 : 1000 * Math.exp((mel - 15) / SLANEY_STEP)),
  },
  htk: {
    toMel: (hertz) => 2595 * Math.log10(1 + hertz / 700),
    toHertz: (mel) => 700 * (10 ** (mel / 2595) - 1),
  },
};

interface FilterPlan extends MelScale {
  readonly sampleRate: number;
  readonly fftLength: number;
  readonly bands: number;
  readonly low: number;
  readonly high: number;
}

interface Filter {
  readonly first: number;
  readonly weights: Float64Array;
}

/** Triangles whose corners are equally far apart in mel; each begins and ends at the tips of its neighbours. */
function createFilters(plan: FilterPlan, normalize: boolean): Filter[] {
  const { sampleRate, fftLength, bands, low, high, toMel, toHertz } = plan;
  const from = toMel(low);
  const step = (toMel(high) - from) / (bands + 1);
  const bins = Math.floor(fftLength / 2) + 1;
  return Array.from({ length: bands }, (_, band) => {
    const [left, tip, right] = [0, 1, 2].map((corner) => toHertz(from + (band + corner) * step)) as [
      number,
      number,
      number,
    ];
    const first = Math.min(Math.ceil((left * fftLength) / sampleRate), bins);
    const end = Math.max(Math.min(Math.floor((right * fftLength) / sampleRate) + 1, bins), first);
    const height = normalize ? 2 / (right - left) : 1;
    const weights = Float64Array.from({ length: end - first }, (_bin, at) => {
      const hertz = ((first + at) * sampleRate) / fftLength;
      return height * Math.max(Math.min((hertz - left) / (tip - left), (right - hertz) / (right - tip)), 0);
    });
    return { first, weights };
  });
}

/** Continues samples at both ends by their mirror image; the outermost sample is not repeated. */
function reflectEnds(samples: Float32Array, count: number): Float32Array {
  if (samples.length <= count) {
    throw new RangeError(`Centred frames need more than ${count} samples, got ${samples.length}.`);
  }
  const result = new Float32Array(samples.length + 2 * count);
  result.set(samples, count);
  for (let at = 1; at <= count; at += 1) {
    result[count - at] = samples[at] as number;
    result[count + samples.length - 1 + at] = samples[samples.length - 1 - at] as number;
  }
  return result;
}
