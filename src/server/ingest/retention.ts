/** Deletes what has been kept for long enough, a little at a time. */

import type { Kysely } from 'kysely';
import type { GuardLookTable, Schema } from '../db/schema.ts';
import type { Job } from '../jobs/job.ts';
import { MAX_AGE_S } from './clock.ts';

const day = 86_400;

/** How long sums are kept by resolution, and how much of them one transaction deletes; seconds. */
const sums: readonly { readonly res: number; readonly keepS: number; readonly stepS: number }[] = [
  { res: 300, keepS: 14 * day, stepS: 3_600 },
  { res: 3_600, keepS: 13 * 31 * day, stepS: day },
  { res: 86_400, keepS: 5 * 366 * day, stepS: 30 * day },
];
/** A report that comes after its number was forgotten is refused for its age, so an hour more closes the gap between clocks. */
const keepNumbersMs = (MAX_AGE_S + 3_600) * 1000;
const keepDevicesMs = 90 * day * 1000;
const keepHealthS = 13 * 31 * day;
const keepLooksMs = 2 * 366 * day * 1000;
/** Rows that one transaction deletes. */
const mostRows = 1_000;

/** What {@link createRetentionJob} needs. */
export interface RetentionParts {
  readonly db: Kysely<Schema>;
  /** Default an hour. */
  readonly everyMs?: number;
}

/**
 * Creates the job: 5 minutes for 14 days, hours for 13 months, days for 5 years; devices, and those of rollouts, for 90 days
 * after they were heard of last; looks of the guards for 2 years after their rollout ended. Sums since ever stay, and so do
 * changes that are not folded yet, and the audit log.
 */
export function createRetentionJob({ db, everyMs = 3_600_000 }: RetentionParts): Job {
  return {
    name: 'retention',
    everyMs,
    run: async (now, signal) => {
      const steps = [
        ...sums.map(
          ({ res, keepS, stepS }) =>
            () =>
              deleteSums(db, res, now / 1000 - keepS, stepS),
        ),
        () => deleteNumbers(db, now - keepNumbersMs),
        () => deleteDevices(db, now - keepDevicesMs),
        ...(await silentRollouts(db, now - keepDevicesMs)).map((rollout) => () => deleteStages(db, rollout)),
        ...(await oldLooks(db, now - keepLooksMs)).map((stage) => () => deleteLooks(db, stage)),
      ];
      for (const step of steps) for (let more = true; more && !signal.aborted;) more = await step();
      await db
        .deleteFrom('health')
        .where('t_s', '>', 0)
        .where('t_s', '<', Math.floor(now / 1000) - keepHealthS)
        .execute();
    },
  };
}

async function deleteSums(db: Kysely<Schema>, res: number, beforeS: number, stepS: number): Promise<boolean> {
  const oldest = await db
    .selectFrom('roll')
    .select((eb) => eb.fn.min('t_s').as('t_s'))
    .where('res', '=', res)
    .executeTakeFirst();
  if (oldest?.t_s === null || oldest?.t_s === undefined || oldest.t_s >= beforeS) return false;
  await db
    .deleteFrom('roll')
    .where('res', '=', res)
    .where('t_s', '<', Math.min(Math.floor(beforeS), oldest.t_s + stepS))
    .execute();
  return true;
}

async function deleteNumbers(db: Kysely<Schema>, before: number): Promise<boolean> {
  const rows = await db
    .selectFrom('dedupe')
    .select('epoch')
    .where('last_at', '<', before)
    .limit(mostRows)
    .execute();
  if (rows.length === 0) return false;
  const epochs = rows.map(({ epoch }) => epoch);
  await db.deleteFrom('dedupe').where('epoch', 'in', epochs).where('last_at', '<', before).execute();
  return true;
}

async function deleteDevices(db: Kysely<Schema>, before: number): Promise<boolean> {
  const rows = await db
    .selectFrom('device')
    .select('dev')
    .where('last_at', '<', before)
    .limit(mostRows)
    .execute();
  if (rows.length === 0) return false;
  const devices = rows.map(({ dev }) => dev);
  await db.deleteFrom('device').where('dev', 'in', devices).where('last_at', '<', before).execute();
  return true;
}

/** Rollouts of which all devices have been silent for long enough. */
async function silentRollouts(db: Kysely<Schema>, before: number): Promise<readonly string[]> {
  const rows = await db
    .selectFrom('stage_device')
    .select('rollout')
    .groupBy('rollout')
    .having((eb) => eb(eb.fn.max('last_at'), '<', before))
    .execute();
  return rows.map(({ rollout }) => rollout);
}

async function deleteStages(db: Kysely<Schema>, rollout: string): Promise<boolean> {
  const ofRollout = db.selectFrom('stage_device').where('rollout', '=', rollout);
  const rows = await ofRollout.select(['stage', 'dev']).limit(mostRows).execute();
  if (rows.length === 0) return false;
  const stages = new Set(rows.map(({ stage }) => stage));
  const devices = rows.map(({ dev }) => dev);
  await db
    .deleteFrom('stage_device')
    .where('rollout', '=', rollout)
    .where('stage', 'in', [...stages])
    .where('dev', 'in', devices)
    .execute();
  return true;
}

type LookedAt = Pick<GuardLookTable, 'rollout' | 'stage'>;

/** Stages of programmes that ended long enough ago. */
function oldLooks(db: Kysely<Schema>, before: number): Promise<readonly LookedAt[]> {
  return db
    .selectFrom('guard_look')
    .innerJoin('programme', 'programme.rollout', 'guard_look.rollout')
    .select(['guard_look.rollout', 'guard_look.stage'])
    .distinct()
    .where('programme.status', 'in', ['ended', 'failed'])
    .where('programme.updated_at', '<', before)
    .execute();
}

/** The looks of a stage go at once: each builds on those before, so a part of them would prove nothing. */
async function deleteLooks(db: Kysely<Schema>, { rollout, stage }: LookedAt): Promise<boolean> {
  await db.deleteFrom('guard_look').where('rollout', '=', rollout).where('stage', '=', stage).execute();
  return false;
}
