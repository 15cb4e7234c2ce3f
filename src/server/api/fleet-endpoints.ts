/** What devices report, in sums. */

import { z } from 'zod';
import {
  driftSchema,
  errorsSchema,
  fleetSchema,
  healthSchema,
  heatmapSchema,
  seriesSchema,
} from './answer-schemas.ts';
import type { Drift } from '../drift/drift.ts';
import type {
  ErrorsAnswer,
  FleetAnswer,
  HeatmapAnswer,
  SeriesAnswer,
  SeriesQuery,
  TelemetryHealthAnswer,
} from './answers.ts';
import { endpoint, type Endpoint } from './endpoint.ts';
import { countQuery, nameParam, timeQuery } from './inputs.ts';

/** Queries over telemetry. */
export interface FleetQueries {
  fleet(): Promise<FleetAnswer>;
  series(query: SeriesQuery): Promise<SeriesAnswer>;
  heatmap(query: SeriesQuery): Promise<HeatmapAnswer>;
  errors(query: SeriesQuery): Promise<ErrorsAnswer>;
  health(): Promise<TelemetryHealthAnswer>;
}

/** What these routes work on. */
export interface FleetParts {
  readonly fleet: FleetQueries;
  readonly drift: Pick<Drift, 'answer'>;
}

const seriesQuery = z.strictObject({
  model: nameParam,
  version: nameParam.exactOptional(),
  rollout: nameParam.exactOptional(),
  from: timeQuery,
  to: timeQuery,
  step: countQuery(31_536_000).exactOptional(),
  by: z.enum(['version', 'arm', 'cls', 'none']).exactOptional(),
});

const driftQuery = z.strictObject({
  model: nameParam.exactOptional(),
  version: nameParam.exactOptional(),
  channel: nameParam.exactOptional(),
  windowS: countQuery(90 * 86_400).exactOptional(),
  days: countQuery(90).exactOptional(),
});

/** Creates the routes. */
export function createFleetEndpoints({ fleet, drift }: FleetParts): readonly Endpoint[] {
  return [
    endpoint({
      method: 'get',
      path: '/fleet',
      summary: 'Counts devices by what they run',
      role: 'viewer',
      query: z.strictObject({ model: nameParam.exactOptional() }),
      answer: fleetSchema,
      handle: async ({ query: { model } }) => {
        const answer = await fleet.fleet();
        if (model === undefined) return answer;
        const rows = answer.rows.filter((row) => row.model === model);
        return { ...answer, rows, models: answer.models.filter((name) => name === model) };
      },
    }),
    endpoint({
      method: 'get',
      path: '/fleet/series',
      summary: 'Draws calls, failures, times and cost over time',
      role: 'viewer',
      query: seriesQuery,
      answer: seriesSchema,
      handle: ({ query }) => fleet.series(query),
    }),
    endpoint({
      method: 'get',
      path: '/fleet/heatmap',
      summary: 'Counts calls by time and latency',
      role: 'viewer',
      query: seriesQuery,
      answer: heatmapSchema,
      handle: ({ query }) => fleet.heatmap(query),
    }),
    endpoint({
      method: 'get',
      path: '/fleet/errors',
      summary: 'Counts failed calls by version and code',
      role: 'viewer',
      query: seriesQuery,
      answer: errorsSchema,
      handle: ({ query }) => fleet.errors(query),
    }),
    endpoint({
      method: 'get',
      path: '/telemetry/health',
      summary: 'Tells how telemetry itself is',
      role: 'viewer',
      isShared: true,
      answer: healthSchema,
      handle: () => fleet.health(),
    }),
    endpoint({
      method: 'get',
      path: '/drift',
      summary: 'Compares what models see and say with what they were made with',
      role: 'viewer',
      query: driftQuery,
      answer: driftSchema,
      handle: ({ query }) => drift.answer(query),
    }),
  ];
}
