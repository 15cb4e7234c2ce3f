import type { Kysely } from 'kysely';
import type { Platform } from '../../core/platform.ts';
import type { DriftRow, RolloutEvidence } from '../api/answers.ts';
import type { Schema } from '../db/schema.ts';
import type { Ingest } from '../ingest/ingest.ts';
import type { Measured } from './families.ts';
import { readTotals } from './totals.ts';

/** Where metrics come from. */
export interface MetricsParts {
  readonly db: Kysely<Schema>;
  readonly platform: Pick<Platform, 'now' | 'memoryBytes'>;
  readonly ingest: Pick<Ingest, 'stats'>;
  /** Evidence of the guards. Default: none. */
  readonly rollouts?: () => Promise<readonly RolloutEvidence[]>;
  /** Drift as it was judged last. Default: none. */
  readonly drift?: () => Promise<readonly DriftRow[]>;
  /** Devices below which a version is left out. Default 20. */
  readonly kAnonymity?: number;
}

/** Reads everything that is exported. */
export async function collect({
  db,
  platform,
  ingest,
  rollouts,
  drift,
  kAnonymity = 20,
}: MetricsParts): Promise<Measured> {
  return {
    totals: await readTotals(db, platform.now(), kAnonymity),
    ingest: ingest.stats(),
    rollouts: (await rollouts?.()) ?? [],
    drift: (await drift?.()) ?? [],
    memoryBytes: platform.memoryBytes?.(),
  };
}
