/** One cell of a chart: counts of several series over one span, and how many devices are behind them. */

import type { CountRow } from '../counts.ts';
import type { Aggregate } from '../ingest/aggregate.ts';
import { emptyAggregate, mergeAggregates } from '../ingest/merge.ts';

/** Sums counts. */
export interface Cell {
  add(row: CountRow): void;
  readonly counts: Aggregate;
  /** Devices, a device that was in two places twice. */
  readonly devices: number;
  /** Devices that are surely different ones: those of the fullest place. */
  readonly surely: number;
}

/**
 * Creates an empty cell.
 * @param res - resolution of what is added: 300, 3600 or 86400 seconds.
 */
export function createCell(res: number): Cell {
  const which = res >= 86_400 ? 2 : res >= 3600 ? 1 : 0;
  let counts = emptyAggregate;
  /** Devices by place: within one, each is in one class, and so in one series. */
  const places = new Map<string, number>();
  return {
    add: ({ app, version, rollout, stage, arm, counts: more }) => {
      counts = mergeAggregates(counts, more);
      const place = JSON.stringify([app, version, rollout, stage, arm]);
      places.set(place, (places.get(place) ?? 0) + more.dev[which]);
    },
    get counts() {
      return counts;
    },
    get devices() {
      return counts.dev[which];
    },
    get surely() {
      return Math.max(0, ...places.values());
    },
  };
}
