/** What is asked about the fleet. Cells with too few devices are hidden. */

import type { Kysely } from 'kysely';
import { ServerError } from '../../core/errors.ts';
import type { Platform } from '../../core/platform.ts';
import type {
  ErrorsAnswer,
  FleetAnswer,
  HeatmapAnswer,
  SeriesAnswer,
  SeriesQuery,
  TelemetryHealthAnswer,
} from '../api/answers.ts';
import { takePart, type CountRow, type Part } from '../counts.ts';
import { guarded } from '../db/failure.ts';
import type { Schema } from '../db/schema.ts';
import { createCell, type Cell } from './cell.ts';
import { readHealth } from './health.ts';
import { heatmapOf } from './heatmap.ts';
import { readInventory } from './inventory.ts';
import { lineOf } from './lines.ts';

/** What {@link createFleet} needs. */
export interface FleetParts {
  readonly db: Kysely<Schema>;
  readonly platform: Pick<Platform, 'now' | 'monotonicMs'>;
  /** Devices below which a cell is hidden. Default 20. */
  readonly kAnonymity?: number;
}

/**
 * Answers questions about the fleet. Every method may throw {@link StoreError} if the database fails, and those that take a
 * query {@link ServerError} `ERR_INLAY_REFUSED` for one that cannot be answered.
 */
export interface Fleet {
  /** Who runs what. */
  fleet(): Promise<FleetAnswer>;
  /** Counts over time. The step is 300, 3600 or 86400 s: what was asked for, or the next that gives 400 points at most. */
  series(query: SeriesQuery): Promise<SeriesAnswer>;
  /** Latency over time. */
  heatmap(query: SeriesQuery): Promise<HeatmapAnswer>;
  /** Failed calls by version and code, most first. */
  errors(query: SeriesQuery): Promise<ErrorsAnswer>;
  /** How telemetry itself was in the last 24 hours. */
  health(): Promise<TelemetryHealthAnswer>;
}

const steps = [300, 3600, 86_400] as const;
const mostPoints = 400;
/** Lines of one chart; those with the fewest calls are left out. */
const mostLines = 50;
/** Counting a million devices takes a second: an answer stands for so many times as long as it took, unless it was quick. */
const standsFor = 50;
const quickMs = 20;

/** Which line a series belongs to. */
const lineKeys: Readonly<Record<NonNullable<SeriesQuery['by']>, (row: CountRow) => string>> = {
  version: ({ version }) => version,
  arm: ({ arm }) => arm,
  cls: ({ cls }) => String(cls),
  none: () => '',
};

/** Cells of a chart, by line and time. */
interface Cells {
  readonly step: number;
  /** Begin of each point, milliseconds since 1970. */
  readonly times: readonly number[];
  readonly lines: ReadonlyMap<string, readonly (Cell | undefined)[]>;
}

/** Creates the queries over a database. */
export function createFleet({ db, platform, kAnonymity = 20 }: FleetParts): Fleet {
  let inventory: { readonly answer: Promise<FleetAnswer>; untilMs: number } | undefined;

  const takeInventory = (): Promise<FleetAnswer> => {
    const beganMs = platform.monotonicMs();
    if (inventory && beganMs < inventory.untilMs) return inventory.answer;
    const answer = guarded(() => readInventory(db, platform.now(), kAnonymity));
    const taken = { answer, untilMs: Infinity };
    inventory = taken;
    const settle = (): void => {
      const tookMs = platform.monotonicMs() - beganMs;
      taken.untilMs = tookMs < quickMs ? 0 : beganMs + standsFor * tookMs;
    };
    answer.then(settle, () => {
      taken.untilMs = 0;
    });
    return answer;
  };

  const collect = async (query: SeriesQuery, lineOfRow: (row: CountRow) => string): Promise<Cells> => {
    const { model, version, rollout } = query;
    const { step, firstS, points } = spanOf(query);
    const part = { res: step, from: firstS, to: firstS + points * step };
    const lines = new Map<string, (Cell | undefined)[]>();
    const take = (row: CountRow): void => {
      const key = lineOfRow(row);
      const line = lines.get(key) ?? Array.from({ length: points }, () => undefined);
      lines.set(key, line);
      (line[(row.t - firstS) / step] ??= createCell(step)).add(row);
    };
    await guarded(() => takePart(db, { model, version, rollout }, part, take));
    const times = Array.from({ length: points }, (_, i) => (firstS + i * step) * 1000);
    return { step, times, lines };
  };

  return {
    fleet: takeInventory,

    series: async (query) => {
      const { step, times, lines } = await collect(query, lineKeys[query.by ?? 'version']);
      const most = [...lines].sort(([, a], [, b]) => callsOf(b) - callsOf(a)).slice(0, mostLines);
      return {
        query,
        step,
        times,
        lines: most
          .map(([key, cells]) => lineOf(key, cells, kAnonymity))
          .sort((a, b) => (a.key < b.key ? -1 : 1)),
      };
    },

    heatmap: async (query) => {
      const { step, times, lines } = await collect(query, () => '');
      const cells = lines.get('') ?? [];
      const shown = times.map((_, i) => {
        const cell = cells[i];
        return cell && cell.surely >= kAnonymity ? (cell.counts.h?.lat ?? null) : null;
      });
      return { step, times, ...heatmapOf(shown) };
    },

    errors: async (query) => {
      const { lines } = await collect(query, ({ version }) => version);
      const rows = [...lines].flatMap(([version, cells]) => errorsOf(version, cells, kAnonymity));
      return { rows: rows.sort((a, b) => (b.calls ?? 0) - (a.calls ?? 0) || (a.code < b.code ? -1 : 1)) };
    },

    health: () => guarded(() => readHealth(db, platform.now(), kAnonymity)),
  };
}

function callsOf(cells: readonly (Cell | undefined)[]): number {
  return cells.reduce((sum, cell) => sum + (cell?.counts.n ?? 0), 0);
}

function errorsOf(
  version: string,
  cells: readonly (Cell | undefined)[],
  least: number,
): ErrorsAnswer['rows'][number][] {
  const calls = callsOf(cells);
  const isEnough = cells.some((cell) => cell && cell.surely >= least);
  const codes = new Map<string, number>();
  for (const cell of cells)
    for (const [code, n] of Object.entries(cell?.counts.err ?? {}))
      codes.set(code, (codes.get(code) ?? 0) + n);
  return [...codes].map(([code, n]) => {
    // Fewer calls than that come from fewer devices.
    const isShown = isEnough && n >= least;
    return { version, code, calls: isShown ? n : null, share: isShown ? n / calls : null };
  });
}

/** Points of a query, at the resolutions that are kept: in each of them a device is counted once. */
function spanOf({ from, to, step: asked = 0 }: SeriesQuery): {
  readonly step: Part['res'];
  readonly firstS: number;
  readonly points: number;
} {
  const longestMs = 5 * 366 * 86_400_000;
  if (!(from >= 0 && from < to && to - from <= longestMs)) {
    throw new ServerError(
      'ERR_INLAY_REFUSED',
      `From ${from} to ${to} is no span of time; give milliseconds since 1970, the earlier first, five years apart at most.`,
    );
  }
  const [fromS, toS] = [from / 1000, to / 1000];
  const step = steps.find((one) => one >= asked && (toS - fromS) / one <= mostPoints) ?? 86_400;
  const firstS = Math.floor(fromS / step) * step;
  return { step, firstS, points: Math.ceil((toS - firstS) / step) };
}
