import Table from 'cli-table3';

/** Lists the segments and sums them up. */
export function formatReport({ segments, speechMs, durationMs, windows, tookMs }) {
  const table = new Table({
    head: ['', 'speech', 'seconds'],
    colAligns: ['right', 'left', 'right'],
    style: { head: [], border: [], compact: true },
  });
  for (const [index, { start, end }] of segments.entries()) {
    table.push([index + 1, `${clock(start)} – ${clock(end)}`, seconds(end - start)]);
  }
  const share = ((100 * speechMs) / durationMs).toFixed(0);
  return [
    table.toString(),
    `${segments.length} segments, ${seconds(speechMs)} s of speech in ${seconds(durationMs)} s (${share} %)`,
    `${windows} windows in ${seconds(tookMs)} s: ${(durationMs / tookMs).toFixed(0)} × real time`,
  ].join('\n');
}

/** Writes a time as `1:02.34`. */
function clock(ms) {
  const hundredths = Math.round(ms / 10);
  const minutes = Math.floor(hundredths / 6000);
  return `${minutes}:${((hundredths % 6000) / 100).toFixed(2).padStart(5, '0')}`;
}

function seconds(ms) {
  return (ms / 1000).toFixed(2);
}
