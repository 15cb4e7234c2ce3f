/** How telemetry itself is, by hour. What happens to reports is counted in memory and written every second. */

import type { Kysely } from 'kysely';
import type { Platform } from '../../core/platform.ts';
import { inTransaction } from '../db/transaction.ts';
import type { Schema } from '../db/schema.ts';

/** Names in the table `health`. `skewed`, `future` and `crossed` are windows or reports that were put right or left out. */
export type HealthName =
  | 'reports'
  | 'windows'
  | 'duplicates'
  | 'too_old'
  | 'future'
  | 'unknown'
  | 'refused'
  | 'lost'
  | 'skewed'
  | 'crossed'
  | 'dropped'
  | 'busy'
  | 'consent_necessary'
  | 'consent_full';

/** Counts what happens to reports. */
export interface HealthCounter {
  add(name: HealthName, n?: number): void;
  /** Writes what was counted since the last time. */
  flush(): Promise<void>;
  /** What this process has counted since it began. */
  totals(): ReadonlyMap<HealthName, number>;
}

const flushEveryMs = 1_000;

/** Creates a counter over the table `health`. A process that is killed forgets a second of it. */
export function createHealthCounter(
  db: Kysely<Schema>,
  platform: Pick<Platform, 'now' | 'setTimer'>,
  onError: (error: unknown) => void,
): HealthCounter {
  const totals = new Map<HealthName, number>();
  let waiting = new Map<HealthName, number>();
  let isArmed = false;
  let flushing = Promise.resolve();

  const write = async (counts: ReadonlyMap<HealthName, number>): Promise<void> => {
    const hour = Math.floor(platform.now() / 3_600_000) * 3600;
    // One order for everybody, so that replicas do not wait for each other in a ring.
    const names = [...counts].sort(([a], [b]) => (a < b ? -1 : 1));
    const rows = [0, hour].flatMap((t_s) => names.map(([name, n]) => ({ t_s, name, n })));
    await inTransaction(db, (tx) =>
      tx
        .insertInto('health')
        .values(rows)
        .onConflict((conflict) =>
          conflict
            .columns(['t_s', 'name'])
            .doUpdateSet((eb) => ({ n: eb('health.n', '+', eb.ref('excluded.n')) })),
        )
        .execute(),
    );
  };

  const flush = (): Promise<void> => {
    flushing = flushing.then(async () => {
      const counts = waiting;
      if (counts.size === 0) return;
      waiting = new Map();
      try {
        await write(counts);
      } catch (error) {
        for (const [name, n] of counts) waiting.set(name, (waiting.get(name) ?? 0) + n);
        onError(error);
      }
    });
    return flushing;
  };

  return {
    add: (name, n = 1) => {
      if (n === 0) return;
      totals.set(name, (totals.get(name) ?? 0) + n);
      waiting.set(name, (waiting.get(name) ?? 0) + n);
      if (isArmed) return;
      isArmed = true;
      platform.setTimer(() => {
        isArmed = false;
        void flush();
      }, flushEveryMs);
    },
    flush,
    totals: () => totals,
  };
}
