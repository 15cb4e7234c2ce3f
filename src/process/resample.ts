import { checkInteger } from './arguments.ts';

/** Options of {@link resampleAudio}. */
export interface ResampleOptions {
  /** Samples per second that there are, an integer. */
  readonly from: number;
  /** Samples per second that there shall be, an integer. */
  readonly to: number;
}

/** Zero crossings of the sinc on either side: with a Kaiser window of this β, 80 dB from 84 % to 100 % of the band. */
const CROSSINGS = 32;
/** β for 80 dB (Oppenheim and Schafer, Discrete-Time Signal Processing, eq. 7.75: 0.1102 · (80 − 8.7)). */
const BETA = 7.857;
/** Middle of the transition, as a share of the lower Nyquist frequency (ibid., eq. 7.76: a width of 16 %). */
const ROLL_OFF = 0.92;
/** Rates that have fewer phases in common compute each kernel once. */
const MAX_KEPT_PHASES = 4096;

/**
 * Changes the sample rate by interpolation with a windowed sinc, after Smith's "Digital Audio Resampling": what lies above the
 * lower of both Nyquist frequencies is filtered out (80 dB), what lies below 84 % of it stays. There is no delay;
 * beyond either end, samples count as 0.
 * @param samples one channel.
 * @returns `ceil(samples.length * to / from)` samples in memory of their own, also when nothing changes.
 * @throws `RangeError` for rates that are no positive integers.
 * @example
 * import { resampleAudio } from 'inlay/process';
 * const speech = resampleAudio(new Float32Array(44_100), { from: 44_100, to: 16_000 });
 */
export function resampleAudio(
  samples: Float32Array,
  { from, to }: ResampleOptions,
): Float32Array<ArrayBuffer> {
  checkInteger('from', from);
  checkInteger('to', to);
  if (from === to) return Float32Array.from(samples);
  const shared = greatestCommonDivisor(from, to);
  const [down, up] = [from / shared, to / shared];
  const cutoff = ROLL_OFF * Math.min(1, up / down);
  const half = Math.ceil(CROSSINGS / cutoff);
  const kept: Float64Array[] = [];
  const kernelOf = (phase: number): Float64Array => {
    if (up > MAX_KEPT_PHASES) return createKernel(phase / up, half, cutoff);
    return (kept[phase] ??= createKernel(phase / up, half, cutoff));
  };
  const result = new Float32Array(Math.ceil((samples.length * up) / down));
  for (let index = 0; index < result.length; index += 1) {
    const phase = (index * down) % up;
    const first = (index * down - phase) / up - half + 1;
    const kernel = kernelOf(phase);
    const end = Math.min(kernel.length, samples.length - first);
    let sum = 0;
    for (let tap = Math.max(0, -first); tap < end; tap += 1) {
      sum += (kernel[tap] as number) * (samples[first + tap] as number);
    }
    result[index] = sum;
  }
  return result;
}

/** Weights of the `2 * half` samples around a point that lies `offset` after the sample at `half - 1`. They sum to 1. */
function createKernel(offset: number, half: number, cutoff: number): Float64Array {
  const kernel = Float64Array.from({ length: 2 * half }, (_, tap) => {
    const distance = tap - (half - 1) - offset;
    const share = (distance * cutoff) / CROSSINGS;
    if (Math.abs(share) >= 1) return 0;
    return sinc(distance * cutoff) * besselI0(BETA * Math.sqrt(1 - share * share));
  });
  const sum = kernel.reduce((total, weight) => total + weight, 0);
  return kernel.map((weight) => weight / sum);
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** Modified Bessel function of the first kind and order 0, by its power series. */
function besselI0(x: number): number {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > sum * 1e-16; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
