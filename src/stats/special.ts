/** Special functions, to about 13 digits: what the tests of this folder are made of. */

const tiny = 1e-300;
const precision = 1e-16;
const mostTerms = 10_000;

/**
 * Computes the logarithm of the gamma function by Stirling's series (DLMF 5.11.1), after moving small arguments up.
 * @param x - above 0.
 */
export function lnGamma(x: number): number {
  let shift = 0;
  let z = x;
  for (; z < 12; z += 1) shift += Math.log(z);
  const w = 1 / (z * z);
  const series = (1 / 12 - w * (1 / 360 - w * (1 / 1260 - w * (1 / 1680 - w / 1188)))) / z;
  return (z - 0.5) * Math.log(z) - z + 0.5 * Math.log(2 * Math.PI) + series - shift;
}

/**
 * Computes the regularised lower incomplete gamma function P(a, x).
 * @param a - above 0.
 * @param x - at least 0.
 */
export function gammaP(a: number, x: number): number {
  if (x <= 0) return 0;
  return x < a + 1 ? gammaSeries(a, x) : 1 - gammaFraction(a, x);
}

/** Computes Q(a, x) = 1 − P(a, x) without loss where it is small; otherwise as {@link gammaP}. */
export function gammaQ(a: number, x: number): number {
  if (x <= 0) return 1;
  return x < a + 1 ? 1 - gammaSeries(a, x) : gammaFraction(a, x);
}

/** Computes the chance of a chi-squared value of at least `x` with `df` degrees of freedom. */
export function chiSquaredTail(x: number, df: number): number {
  return gammaQ(df / 2, x / 2);
}

/**
 * Computes the value that a chi-squared one with `df` degrees of freedom stays below with chance `p`: Wilson and Hilferty's
 * approximation, refined by Newton's steps.
 * @param p - in (0, 1).
 */
export function chiSquaredQuantile(p: number, df: number): number {
  const spread = 2 / (9 * df);
  let x = Math.max(df * (1 - spread + normalQuantile(p) * Math.sqrt(spread)) ** 3, 1e-3 * df);
  for (let i = 0; i < 12; i += 1) {
    const density = Math.exp((df / 2 - 1) * Math.log(x / 2) - x / 2 - lnGamma(df / 2)) / 2;
    // Half way down at most, so that it stays positive.
    x = Math.max(x / 2, x + (chiSquaredTail(x, df) - (1 - p)) / density);
  }
  return x;
}

/**
 * Computes the regularised incomplete beta function I_x(a, b) by its continued fraction (DLMF 8.17.22).
 * @param a - above 0, like `b`.
 * @param x - in [0, 1].
 */
export function regularizedBeta(a: number, b: number, x: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const front = Math.exp(a * Math.log(x) + b * Math.log1p(-x) - lnBeta(a, b));
  // The fraction converges fast only below the mean.
  return x < (a + 1) / (a + b + 2)
    ? (front * betaFraction(a, b, x)) / a
    : 1 - (front * betaFraction(b, a, 1 - x)) / b;
}

/** Computes the logarithm of the beta function. */
export function lnBeta(a: number, b: number): number {
  return lnGamma(a) + lnGamma(b) - lnGamma(a + b);
}

/** Computes the chance that a standard normal value is at most `x`, without loss in the lower tail. */
export function normalCdf(x: number): number {
  const tail = gammaQ(0.5, (x * x) / 2) / 2;
  return x < 0 ? tail : 1 - tail;
}

/**
 * Computes the value that a standard normal one stays below with chance `p`: the approximation of Abramowitz and Stegun
 * 26.2.23, refined by Halley's steps.
 * @param p - in (0, 1).
 */
export function normalQuantile(p: number): number {
  if (p > 0.5) return -normalQuantile(1 - p);
  const t = Math.sqrt(-2 * Math.log(p));
  let x =
    (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))) - t;
  for (let i = 0; i < 4; i += 1) {
    const step = (normalCdf(x) - p) * Math.sqrt(2 * Math.PI) * Math.exp((x * x) / 2);
    x -= step / (1 + (x * step) / 2);
  }
  return x;
}

/** Probability of at least `k` hits in `n` independent trials of chance `p`: the upper tail of the binomial distribution. */
export function chanceOfAtLeast(k: number, n: number, p: number): number {
  if (k <= 0) return 1;
  if (k > n || p <= 0) return 0;
  if (p >= 1) return 1;
  // In logarithms: (1 − p)^n alone is too small for a number where calls are many.
  const odds = Math.log(p) - Math.log1p(-p);
  let log = n * Math.log1p(-p);
  let below = 0;
  for (let i = 0; i < k; i += 1) {
    below += Math.exp(log);
    log += Math.log((n - i) / (i + 1)) + odds;
  }
  return Math.max(0, 1 - below);
}

/** P(a, x) by its power series (DLMF 8.11.4). */
function gammaSeries(a: number, x: number): number {
  let term = 1 / a;
  let sum = term;
  for (let n = 1; n < mostTerms && term > sum * precision; n += 1) {
    term *= x / (a + n);
    sum += term;
  }
  return sum * Math.exp(a * Math.log(x) - x - lnGamma(a));
}

/** Q(a, x) by its continued fraction (DLMF 8.9.2), with Lentz's method. */
function gammaFraction(a: number, x: number): number {
  let b = x + 1 - a;
  const next = lentz(1 / b, 1 / tiny);
  for (let n = 1; n < mostTerms; n += 1) {
    b += 2;
    if (next(-n * (n - a), b)) break;
  }
  return next.value() * Math.exp(a * Math.log(x) - x - lnGamma(a));
}

function betaFraction(a: number, b: number, x: number): number {
  const next = lentz(1 / atLeastTiny(1 - ((a + b) * x) / (a + 1)), 1);
  for (let m = 1; m < mostTerms; m += 1) {
    next((m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m)), 1);
    if (next((-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1)), 1)) break;
  }
  return next.value();
}

/** Goes on with a continued fraction from its front: each call takes the next term and tells whether that was the last. */
function lentz(first: number, numerator: number): { (a: number, b: number): boolean; value(): number } {
  let d = first;
  let c = numerator;
  let h = d;
  const next = (a: number, b: number): boolean => {
    d = 1 / atLeastTiny(a * d + b);
    c = atLeastTiny(b + a / c);
    h *= d * c;
    return Math.abs(d * c - 1) < 4 * precision;
  };
  return Object.assign(next, { value: () => h });
}

function atLeastTiny(x: number): number {
  return Math.abs(x) < tiny ? tiny : x;
}
