/** Figures for people. `null` is what too few devices have in common: it is hidden, and said to be. */

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 });

/** 12,345 */
export function count(value: number | null | undefined, least = 20): string {
  if (value === null) return `< ${least}`;
  return value === undefined ? '–' : whole.format(value);
}

/** 12.3K */
export function compact(value: number): string {
  return short.format(value);
}

/** 1.25 % */
export function percent(share: number | null | undefined, digits = 2): string {
  if (share === null || share === undefined) return '–';
  return `${(share * 100).toFixed(share >= 0.1 ? Math.min(digits, 1) : digits)} %`;
}

/** A share in basis points. */
export function basisPoints(bp: number): string {
  return `${bp / 100} %`;
}

/** 840 µs, 12.4 ms, 1.2 s */
export function seconds(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–';
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${Number((value * 1000).toPrecision(3))} ms`;
  return `${Number(value.toPrecision(3))} s`;
}

/** 12.3 MiB */
export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let left = value;
  while (left >= 1024 && unit < units.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${Number(left.toPrecision(3))} ${units[unit]}`;
}

/** How long ago, in the largest unit that says enough. */
export function ago(at: number, now: number = Date.now()): string {
  const s = Math.max(0, Math.round((now - at) / 1000));
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.round(s / 60)} min ago`;
  if (s < 172_800) return `${Math.round(s / 3600)} h ago`;
  return `${Math.round(s / 86_400)} d ago`;
}

const clock = new Intl.DateTimeFormat('en-GB', {
  month: 'short',
  day: '2-digit',
  hour: '2-digit',
  minute: '2-digit',
});

/** 21 Nov, 18:04 */
export function time(at: number): string {
  return clock.format(at);
}

/** Natural logarithm of an e-value as the odds that it stands for. */
export function odds(logE: number): string {
  if (logE > Math.log(1e6)) return '> 1,000,000';
  if (logE < Math.log(0.01)) return '< 0.01';
  return logE < Math.log(100) ? `${Number(Math.exp(logE).toPrecision(2))}` : whole.format(Math.exp(logE));
}

/** Length of time, in the largest unit that says enough. */
export function span(ms: number): string {
  return ago(0, ms).replace(' ago', '');
}
