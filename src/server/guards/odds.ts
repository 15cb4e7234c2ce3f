/** An e-value as odds: how many times the stake somebody has won who bet on the candidate being worse. */
export function odds(log: number): string {
  const tens = Math.floor(log / Math.LN10);
  return tens < 5 ? `${Math.round(Math.exp(log)).toLocaleString('en')} to 1` : `10^${tens} to 1`;
}
