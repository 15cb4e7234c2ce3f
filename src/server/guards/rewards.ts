import type { Kysely } from 'kysely';
import type { Schema } from '../db/schema.ts';
import type { ArmReward } from './bandit.ts';
import type { StageKey } from './stage-devices.ts';

/** Verdicts of a device of which only is known that it is there. */
const onlyHeard = '{"silence":0}';

/**
 * Counts the judged devices of each arm, and those that did well: with the business event where there is one, and otherwise
 * without a bad verdict.
 */
export async function readRewards(
  db: Kysely<Schema>,
  { rollout, stage }: StageKey,
  event?: string,
): Promise<readonly ArmReward[]> {
  const rows = await db
    .selectFrom('stage_device')
    .select((eb) => {
      // Verdicts are 0 or 1, and names of events have no quotes.
      const isGood =
        event === undefined ? eb('verdicts', 'not like', '%:1%') : eb('biz', 'like', `%"${event}":%`);
      return [
        'arm',
        eb.fn.countAll().as('devices'),
        eb.fn.sum(eb.case().when(isGood).then(1).else(0).end()).as('good'),
      ];
    })
    .where('rollout', '=', rollout)
    .where('stage', '=', stage)
    .where('verdicts', 'not in', ['', onlyHeard])
    .groupBy('arm')
    .execute();
  return rows.map(({ arm, devices, good }) => ({ arm, devices: Number(devices), good: Number(good) }));
}
