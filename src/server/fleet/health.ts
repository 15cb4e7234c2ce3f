import type { Kysely } from 'kysely';
import type { TelemetryHealthAnswer } from '../api/answers.ts';
import type { Schema } from '../db/schema.ts';
import type { HealthName } from '../ingest/health.ts';

/** What is shown. */
const names: readonly HealthName[] = [
  'reports',
  'windows',
  'duplicates',
  'too_old',
  'future',
  'unknown',
  'refused',
  'lost',
  'skewed',
  'crossed',
  'dropped',
  'busy',
];

const hourS = 3600;
const hoursShown = 24;

/** Reads how telemetry was in the last 24 hours. */
export async function readHealth(
  db: Kysely<Schema>,
  now: number,
  kAnonymity: number,
): Promise<TelemetryHealthAnswer> {
  const last = Math.floor(now / 1000 / hourS) * hourS;
  const hours = Array.from({ length: hoursShown }, (_, i) => last - (hoursShown - 1 - i) * hourS);
  const rows = await db
    .selectFrom('health')
    .selectAll()
    .where('t_s', '>=', last - (hoursShown - 1) * hourS)
    .execute();
  const byHour = (name: HealthName): number[] =>
    hours.map((hour) => rows.find((row) => row.name === name && row.t_s === hour)?.n ?? 0);
  const total = (name: HealthName): number => byHour(name).reduce((sum, n) => sum + n, 0);
  const shown = (n: number): number | null => (n < kAnonymity ? null : n);
  const [lost, reports] = [total('lost'), total('reports')];
  return {
    hours: hours.map((hour) => hour * 1000),
    counts: Object.fromEntries(names.map((name) => [name, byHour(name)])),
    consent: { necessary: shown(total('consent_necessary')), full: shown(total('consent_full')) },
    lossRate: lost + reports === 0 ? null : lost / (lost + reports),
  };
}
