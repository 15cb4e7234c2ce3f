/** Complex numbers, real and imaginary parts apart. */
export interface Complex {
  readonly re: Float64Array;
  readonly im: Float64Array;
}

/**
 * Prepares the discrete Fourier transform of one length: mixed-radix decimation in time (Cooley and Tukey, 1965), so that
 * lengths of small prime factors are fast: 400 as well as 512.
 * @returns a function that transforms real samples; its result is reused by the next call.
 */
export function createTransform(length: number): (samples: ArrayLike<number>) => Complex {
  const cos = Float64Array.from({ length }, (_, k) => Math.cos((2 * Math.PI * k) / length));
  const sin = Float64Array.from({ length }, (_, k) => -Math.sin((2 * Math.PI * k) / length));
  const re = new Float64Array(length);
  const im = new Float64Array(length);
  const partRe = new Float64Array(length);
  const partIm = new Float64Array(length);
  const factors = primeFactors(length);

  /** Transforms every `step`th sample from `from` on into `size` values from `to` on. */
  const transform = (
    samples: ArrayLike<number>,
    level: number,
    from: number,
    to: number,
    size: number,
  ): void => {
    if (size === 1) {
      re[to] = samples[from] as number;
      im[to] = 0;
      return;
    }
    const step = length / size;
    const parts = factors[level] as number;
    const part = size / parts;
    for (let p = 0; p < parts; p += 1) transform(samples, level + 1, from + p * step, to + p * part, part);
    for (let k = 0; k < part; k += 1) {
      for (let p = 0; p < parts; p += 1) {
        const [a, b] = [re[to + p * part + k] as number, im[to + p * part + k] as number];
        const [c, s] = [cos[p * k * step] as number, sin[p * k * step] as number];
        partRe[p] = a * c - b * s;
        partIm[p] = a * s + b * c;
      }
      for (let q = 0; q < parts; q += 1) {
        let sumRe = 0;
        let sumIm = 0;
        for (let p = 0; p < parts; p += 1) {
          const turn = ((p * q) % parts) * (length / parts);
          const [a, b] = [partRe[p] as number, partIm[p] as number];
          sumRe += a * (cos[turn] as number) - b * (sin[turn] as number);
          sumIm += a * (sin[turn] as number) + b * (cos[turn] as number);
        }
        re[to + q * part + k] = sumRe;
        im[to + q * part + k] = sumIm;
      }
    }
  };

  return (samples) => {
    transform(samples, 0, 0, 0, length);
    return { re, im };
  };
}

function primeFactors(value: number): number[] {
  const factors: number[] = [];
  let rest = value;
  for (let factor = 2; rest > 1; factor = factor * factor > rest ? rest : factor + 1) {
    while (rest % factor === 0) {
      factors.push(factor);
      rest /= factor;
    }
  }
  return factors;
}
