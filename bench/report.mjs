import Table from 'cli-table3';

/**
 * One measured figure, beside its baseline of the same run.
 * @typedef {object} Figure
 * @property {string} bench
 * @property {string} case What was measured.
 * @property {string} metric
 * @property {number} value
 * @property {string} unit
 * @property {number} [baseline] The same metric of the baseline.
 * @property {number} [target] The figure asked for, in the unit of `value` or, with `targetIs: 'ratio'`, of the ratio.
 * @property {'value' | 'ratio'} [targetIs]
 * @property {'lower' | 'higher'} [better] Which side of the target is the good one. Default: lower.
 * @property {boolean} [ok] Whether the target was reached.
 */

/**
 * Completes a figure with its ratio and whether it reached its target.
 * @param {Figure} figure
 */
export function figure({ targetIs = 'value', better = 'lower', ...parts }) {
  const ratio = parts.baseline === undefined ? undefined : parts.value / parts.baseline;
  const reached = targetIs === 'ratio' ? ratio : parts.value;
  const isReached = better === 'higher' ? reached >= parts.target : reached <= parts.target;
  const ok = parts.ok ?? (parts.target === undefined ? undefined : isReached);
  return { ...parts, ratio, targetIs, better, ok };
}

/** Prints figures: one JSON object per line for programs, a table for people. */
export function print(figures, { json }) {
  if (json) {
    for (const { targetIs: _, better: __, ...line } of figures) {
      console.log(
        JSON.stringify({
          ...line,
          value: round(line.value),
          baseline: round(line.baseline),
          ratio: round(line.ratio),
        }),
      );
    }
    return;
  }
  const table = new Table({
    head: ['case', 'metric', 'value', 'baseline', 'ratio', 'target', ''],
    style: { head: [], border: [] },
  });
  for (const row of figures) {
    const target =
      row.target === undefined
        ? ''
        : `${row.better === 'higher' ? '≥' : '≤'} ${row.target}${row.targetIs === 'ratio' ? '×' : ` ${row.unit}`}`;
    table.push([
      row.case,
      row.metric,
      `${round(row.value)} ${row.unit}`,
      row.baseline === undefined ? '' : `${round(row.baseline)} ${row.unit}`,
      row.ratio === undefined ? '' : `${row.ratio.toFixed(2)}×`,
      target,
      row.ok === undefined ? '' : row.ok ? 'ok' : 'missed',
    ]);
  }
  console.log(table.toString());
}

function round(value) {
  return value === undefined ? undefined : Number(value.toPrecision(4));
}
