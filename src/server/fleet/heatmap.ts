import { bucketsOf, downscale, mergeHistograms, upperEdge } from '../../telemetry/histogram.ts';
import type { HistogramCounts } from '../../telemetry/report.ts';
import type { HeatmapAnswer } from '../api/answers.ts';

/** Rows of a heat map, at most. */
const mostRows = 40;

/** Writes the rows of a heat map, as fine as the range allows. */
export function heatmapOf(
  times: readonly (HistogramCounts | null)[],
): Pick<HeatmapAnswer, 'edges' | 'counts'> {
  const all = times.filter((counts) => counts !== null);
  const buckets = all.length === 0 ? [] : bucketsOf(all.reduce(mergeHistograms));
  const [first, last] = [buckets[0]?.index, buckets.at(-1)?.index];
  if (first === undefined || last === undefined)
    return { edges: [], counts: times.map((counts) => counts && []) };
  let by = 0;
  while ((last >> by) - (first >> by) + 1 > mostRows) by += 1;
  const lowest = first >> by;
  const edges = Array.from({ length: (last >> by) - lowest + 1 }, (_, i) =>
    upperEdge(((lowest + i + 1) << by) - 1),
  );
  return {
    edges,
    counts: times.map((counts) => {
      if (counts === null) return null;
      const row = edges.map(() => 0);
      for (const { index, count } of bucketsOf(by === 0 ? counts : downscale(counts, by)))
        row[index - lowest] = count;
      // What took no time at all is in the fastest row.
      row[0] = (row[0] ?? 0) + counts.z;
      return row;
    }),
  };
}
