/** Figures and times as people read them. */

/** What stands for nothing to say. */
export const none = '-';

/** Writes a time: `2026-03-01 12:00`; UTC. */
export function formatTime(at: number | null): string {
  return at === null || at === 0 ? none : new Date(at).toISOString().slice(0, 16).replace('T', ' ');
}

/** Writes a count of devices, or that it is hidden since it is small. */
export function formatDevices(devices: number | null, kAnonymity: number): string {
  return devices === null ? `< ${kAnonymity}` : devices.toLocaleString('en');
}

/** Writes a share in per cent. */
export function formatShare(share: number | null): string {
  if (share === null) return none;
  const percent = share * 100;
  const digits = percent >= 1000 ? percent.toFixed(0) : percent.toPrecision(percent >= 99.95 ? 4 : 3);
  return `${Number(digits)} %`;
}

/** Writes a duration in milliseconds or seconds. */
export function formatLatency(seconds: number | null): string {
  if (seconds === null) return none;
  return seconds < 1 ? `${(seconds * 1000).toPrecision(3)} ms` : `${seconds.toPrecision(3)} s`;
}

/** Writes a number with so many digits after the point. */
export function formatNumber(value: number | null, digits = 2): string {
  return value === null ? none : value.toFixed(digits);
}
